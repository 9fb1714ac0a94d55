// Correct kernels of kinds that checks once took for wrong.
#include <cstdio>
#include <cuda_bf16.h>

extern "C" __global__ void prints(const int* x, int* y) {
    if (threadIdx.x == 0) y[0] = printf("%d and %s\n", x[0], "text");
}

extern "C" __global__ void meets_at_an_mbarrier(const int* x, int* y) {
    __shared__ unsigned long long barrier;
    __shared__ int part[64];
    unsigned at = (unsigned)__cvta_generic_to_shared(&barrier);
    if (threadIdx.x == 0) asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(64) : "memory");
    __syncthreads();
    part[threadIdx.x] = x[threadIdx.x] + 1;
    unsigned long long token;
    asm volatile("mbarrier.arrive.shared.b64 %0, [%1];" : "=l"(token) : "r"(at) : "memory");
    int done = 0;
    while (!done)
        asm volatile("{.reg .pred p; mbarrier.test_wait.shared.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
                     : "=r"(done)
                     : "r"(at), "l"(token)
                     : "memory");
    y[threadIdx.x] = part[63 - threadIdx.x];
}

// The loop of the CUDA programming guide: what was read plainly counts only if the exchange still finds it there.
extern "C" __global__ void largest_by_exchange(const int* x, int* y) {
    int value = x[threadIdx.x] + (int)(blockIdx.x * blockDim.x + threadIdx.x), old = *y, assumed;
    do {
        assumed = old;
        old = atomicCAS(y, assumed, max(value, assumed));
    } while (assumed != old);
}

extern "C" __global__ void sum_by_exchange(const int* x, float* y) {
    float value = (float)x[threadIdx.x] + 1.f, old = *y, assumed;
    do {
        assumed = old;
        old = __int_as_float(atomicCAS((int*)y, __float_as_int(assumed), __float_as_int(assumed + value)));
    } while (__float_as_int(assumed) != __float_as_int(old));
}

extern "C" __global__ void bf16_sum(const int* x, __nv_bfloat16* y) { atomicAdd(y, __float2bfloat16((float)x[threadIdx.x])); }

extern "C" __global__ void shared_sum_by_exchange(const int* x, int* y) {
    __shared__ int sum;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    int old = sum, assumed;
    do {
        assumed = old;
        old = atomicCAS(&sum, assumed, assumed + x[threadIdx.x]);
    } while (assumed != old);
    __syncthreads();
    y[threadIdx.x] = sum;
}

// The place is one of many: its address is computed.
extern "C" __global__ void counts_by_exchange(const int* x, int* y) {
    int* count = &y[x[threadIdx.x] + 3];
    int old = count[2], assumed;
    do {
        assumed = old;
        old = atomicCAS(count + 2, assumed, assumed + 1);
    } while (assumed != old);
}
