// Kernels with one mistake each.
#include <cstdint>

extern "C" __global__ void reads_past_end(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i % n] = x[i];
}

extern "C" __global__ void writes_before_start(float* x) { x[(int)threadIdx.x - 1] = 1.f; }

extern "C" __global__ void misaligned(char* x) { *(int*)(x + 2) = 1; }

extern "C" __global__ void shared_out_of_bounds(float* x, int n) {
    __shared__ float a[32];
    __shared__ float b[32];
    a[threadIdx.x] = b[threadIdx.x] = 0.f;
    __syncthreads();
    if (threadIdx.x == 0) x[0] = (n < 0 ? a : b)[n];
}

extern "C" __global__ void dynamic_out_of_bounds(float* x, int n) {
    extern __shared__ float d[];
    d[threadIdx.x + n] = 1.f;
    x[threadIdx.x] = d[threadIdx.x + n];
}

extern "C" __global__ void local_out_of_bounds(int* x, int n) {
    int a[8];
    for (int i = 0; i < 8; ++i) a[i] = i * n;
    x[threadIdx.x] = a[n * 100];
}

extern "C" __global__ void null_pointer(int* x) { *x = 3; }

extern "C" __global__ void global_uninitialised(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" __global__ void shared_uninitialised(float* y) {
    __shared__ float a[64];
    if (threadIdx.x < 63) a[threadIdx.x] = 1.f;
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x];
}

extern "C" __global__ void local_uninitialised(int* y, int n) {
    int a[8];
    for (int i = 1; i < n; ++i) a[i] = i;
    y[threadIdx.x] = a[threadIdx.x % 8];
}

extern "C" __global__ void shared_race(float* y) {
    __shared__ float a[64];
    a[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = a[63 - threadIdx.x];
}

extern "C" __global__ void warp_race(float* y) {
    __shared__ float a[32];
    a[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = a[31 - threadIdx.x];
}

// Every lane stores to one place: two, four or eight words in all, the same value if n is 0.
extern "C" __global__ void wide_race(float* y, int n) {
    __shared__ int4 a;
    __shared__ int2 b;
    __shared__ unsigned char c;
    int last = threadIdx.x * n;
    a = make_int4(1, 2, 3, last);
    b = make_int2(4, last);
    c = last;
    __syncthreads();
    reinterpret_cast<int4*>(y)[0] = make_int4(a.x, a.y, a.z + b.x + c, last);
    reinterpret_cast<double*>(y)[4] = last;
}

// Every thread has a word of its own, but a few go on to a neighbour's. Warps also take turns, without a barrier.
extern "C" __global__ void race_of_many_blocks(int* y) {
    __shared__ int a[64];
    int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x, sum = 0;
    for (int k = 0; k < 50; ++k) sum += y[i];
    y[i] = sum;
    if (blockIdx.x % 97 == 96) y[(i + blockDim.x) % n] = 1;
    a[threadIdx.x] = sum;
    if (blockIdx.x % 31 == 30) y[i] = a[threadIdx.x ^ 32];
}

extern "C" __global__ void global_race_in_block(int* y) {
    y[threadIdx.x] = 1;
    if (threadIdx.x) y[threadIdx.x - 1] += 1;
}

extern "C" __global__ void global_race_between_blocks(int* y) {
    if (threadIdx.x == 0) *y += 1;
}

extern "C" __global__ void plain_read_of_atomic(int* y, int* z) {
    __shared__ int a;
    if (threadIdx.x == 0) a = 0;
    __syncthreads();
    atomicAdd(&a, 1);
    z[threadIdx.x] = a;
}

// The swap does not check the value that was read.
extern "C" __global__ void plain_read_beside_exchange(int* y, int* z) {
    z[blockIdx.x * blockDim.x + threadIdx.x] = *y;
    atomicCAS(y, 7, (int)threadIdx.x);
}

extern "C" __global__ void copy_not_awaited(const float* x, float* y) {
    __shared__ __align__(16) float a[128];
    uint32_t dst = (uint32_t)__cvta_generic_to_shared(&a[threadIdx.x * 4]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\ncp.async.commit_group;" ::"r"(dst), "l"(x + threadIdx.x * 4));
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x * 4];
    asm volatile("cp.async.wait_all;");
}

extern "C" __global__ void copy_without_barrier(const float* x, float* y) {
    __shared__ __align__(16) float a[128];
    uint32_t dst = (uint32_t)__cvta_generic_to_shared(&a[threadIdx.x * 4]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\ncp.async.wait_all;" ::"r"(dst), "l"(x + threadIdx.x * 4));
    y[threadIdx.x] = a[(threadIdx.x + 1) % 32 * 4];
}

extern "C" __global__ void copy_of_nothing(const float* x, float* y) {
    __shared__ __align__(16) float a[128];
    uint32_t dst = (uint32_t)__cvta_generic_to_shared(&a[threadIdx.x * 4]);
    bool reads = threadIdx.x < 8;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\ncp.async.wait_all;" ::"r"(dst),
                 "l"(x + (reads ? 0 : 1 << 20) + threadIdx.x * 4), "r"(reads ? 16 : 0));
    __syncthreads();
    y[threadIdx.x] = a[threadIdx.x * 4];
}

extern "C" __global__ void divergent_barrier(float* y) {
    if (threadIdx.x % 2) asm volatile("bar.sync 0;" ::: "memory");
    else asm volatile("bar.sync 1;" ::: "memory");
    y[threadIdx.x] = 1.f;
}

extern "C" __global__ void barrier_after_exit(float* y) {
    if (threadIdx.x < 32) return;
    __syncthreads();
    y[threadIdx.x] = 1.f;
}

extern "C" __global__ void barrier_never_reached(float* y) {
    if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory");
    y[threadIdx.x] = 1.f;
}

extern "C" __global__ void shuffle_from_inactive(int* y) {
    int v = threadIdx.x;
    if (threadIdx.x < 16) v = __shfl_down_sync(0xffff, v, 8);
    y[threadIdx.x] = v;
}

extern "C" __global__ void shuffle_mask_of_exited(int* y) {
    int v = threadIdx.x;
    if (threadIdx.x == 3) asm volatile("trap;");
    y[threadIdx.x] = v;
}

extern "C" __global__ void waits_for_ever(volatile int* y) {
    while (*y == 0) {
    }
}

// Two pairs of warps meet, each at a barrier of its own; the second pair reads what the first wrote.
extern "C" __global__ void barrier_of_others(const float* x, float* y) {
    __shared__ float s[64];
    int pair = threadIdx.x / 64, i = threadIdx.x % 64;
    if (pair == 0) {
        s[i] = x[i];
        asm volatile("bar.sync 1, 64;" ::: "memory");
        y[i] = s[63 - i];
    } else {
        asm volatile("bar.sync 2, 64;" ::: "memory");
        y[64 + i] = s[i];
    }
}
