// What C++ makes of PTX beyond arithmetic: functions, recursion, function pointers, local memory, printf, asserts.
#include <cassert>
#include <cstdio>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ float weights[4] = {1.f, 2.f, 3.f, 4.f};
__constant__ int primes[6] = {2, 3, 5, 7, 11, 13};
__device__ const char* greeting = "lane";

__noinline__ __device__ float scaled(float a, int b) { return a * b + weights[b & 3]; }
__noinline__ __device__ float shifted(float a, int b) { return a - b; }
typedef float (*Function)(float, int);
__device__ Function functions[2] = {scaled, shifted};

__noinline__ __device__ int factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }

struct Record {
    int a;
    double b;
    signed char c[5];
};

extern "C" __global__ void calls(float* out, Record record) {
    int i = threadIdx.x;
    out[i] = functions[i & 1](1.5f, i) + factorial(i % 7) + record.c[i % 5] + (float)record.b + record.a;
}

extern "C" __global__ void locals(int* out, int n) {
    int table[16];
    for (int k = 0; k < 16; ++k) table[k] = k * n + primes[k % 6];
    int sum = 0;
    for (int k = 0; k < n; ++k) sum += table[(threadIdx.x * 7 + k * k) & 15];
    out[threadIdx.x] = sum;
}

extern "C" __global__ void prints(float x) {
    if (threadIdx.x == 5) printf("%s %d: %.3f %5.1e %x %%\n", greeting, (int)threadIdx.x, x, x, 255u);
}

extern "C" __global__ void asserts(int limit) { assert((int)threadIdx.x < limit); }

// Loops and branches of different lengths in each lane.
extern "C" __global__ void diverges(int* out) {
    int i = threadIdx.x, steps = 0;
    unsigned n = i + 1;
    while (n != 1) {
        n = n % 2 ? 3 * n + 1 : n / 2;
        ++steps;
        if (steps > 60) break;
    }
    switch (i % 5) {
        case 0: steps += 100; break;
        case 1: steps *= 2;
        case 2: steps -= 3; break;
        case 3: if (i > 16) return;
        default: steps = -steps;
    }
    out[i] = steps;
}

// One lane of a warp holds a lock that the others spin on.
extern "C" __global__ void spins(int* lock, int* count) {
    bool done = false;
    while (!done) {
        if (atomicCAS(lock, 0, 1) == 0) {
            *(volatile int*)count = *(volatile int*)count + 1;
            __threadfence();
            atomicExch(lock, 0);
            done = true;
        }
    }
}

// The library's functions, which use directed rounding, f64 and tables.
extern "C" __global__ void library(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    y[i] = sinf(v);
    y[n + i] = expf(v);
    y[2 * n + i] = logf(fabsf(v) + 1e-3f);
    y[3 * n + i] = erff(v);
    y[4 * n + i] = powf(fabsf(v), 1.7f);
    y[5 * n + i] = (float)sqrt((double)fabsf(v));
    y[6 * n + i] = tanhf(v);
    y[7 * n + i] = 1.f / v;
    y[8 * n + i] = (float)exp((double)v / 8);
    y[9 * n + i] = rsqrtf(fabsf(v) + 0.1f);
}

// Warp intrinsics.
extern "C" __global__ void warps(unsigned* out) {
    unsigned lane = threadIdx.x % 32, full = ~0u, *o = out + threadIdx.x;
    int stride = blockDim.x;
    o[0 * stride] = __ballot_sync(full, lane % 3 == 0);
    o[1 * stride] = __all_sync(full, lane < 32) + 2 * __any_sync(full, lane == 40);
    o[2 * stride] = __match_any_sync(full, lane / 4);
    o[3 * stride] = __reduce_add_sync(full, lane) + __reduce_max_sync(full, lane ^ 5);
    o[4 * stride] = __shfl_sync(full, lane * 3, (lane + 7) % 32);
    o[5 * stride] = __shfl_up_sync(full, lane, 3, 8);
    o[6 * stride] = __shfl_down_sync(full, lane, 2, 16);
    o[7 * stride] = __shfl_xor_sync(full, lane, 9);
    o[8 * stride] = __syncthreads_count(lane < 5);
    o[9 * stride] = __syncthreads_or(lane == 77) + 2 * __syncthreads_and(lane < 40);
    o[10 * stride] = __popc(__activemask()) + __ffs(lane) + __clz(lane) + __brev(lane);
    int all;
    o[11 * stride] = __match_all_sync(full, 7, &all) + all;
}

// Half the lanes shuffle among themselves, then the other half.
extern "C" __global__ void halves(int* out) {
    int lane = threadIdx.x;
    if (lane < 16)
        out[lane] = __shfl_xor_sync(0xffff, lane, 1);
    else
        out[lane] = __shfl_xor_sync(0xffff0000, lane, 2);
}

// Long arithmetic, packed halves and bytes.
extern "C" __global__ void wide(const unsigned long long* a, unsigned long long* out) {
    int i = threadIdx.x;
    unsigned long long x = a[i], y = a[(i + 1) % blockDim.x];
    unsigned __int128 p = (unsigned __int128)x * y;
    out[4 * i] = (unsigned long long)(p >> 64);
    out[4 * i + 1] = (unsigned long long)(p + x);
    out[4 * i + 2] = x / (y | 1) + x % (y | 1);
    __half2 h = __floats2half2_rn((float)(i % 9), 0.5f);
    __nv_bfloat162 b = __floats2bfloat162_rn((float)i, 1.5f);
    h = __hfma2(h, h, h);
    out[4 * i + 3] = __half_as_ushort(__low2half(h)) + __bfloat16_as_ushort(b.y) + __dp4a((int)x, (int)y, 3);
}
