// What nvcc makes of matrix fragments, of barriers in memory, and of clocks.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>
#include <cstdint>
#include <mma.h>

using namespace nvcuda;

// D = A B + C; A is m x k row-major, B k x n column-major, C and D row-major.
template <typename T, typename Element, typename Sum, int M, int N, int K>
__device__ void product(const Element* a, const Element* b, const Sum* c, Sum* d) {
    wmma::fragment<wmma::matrix_a, M, N, K, T, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, M, N, K, T, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, M, N, K, Sum> sum;
    wmma::load_matrix_sync(fa, a, K);
    wmma::load_matrix_sync(fb, b, K);
    wmma::load_matrix_sync(sum, c, N, wmma::mem_row_major);
    wmma::mma_sync(sum, fa, fb, sum);
    wmma::store_matrix_sync(d, sum, N, wmma::mem_row_major);
}

#define PRODUCT(name, T, Element, Sum, M, N, K)                                                              \
    extern "C" __global__ void name##_##M##x##N##x##K(const Element* a, const Element* b, const Sum* c, Sum* d) { \
        product<T, Element, Sum, M, N, K>(a, b, c, d);                                                       \
    }
#define SHAPES(name, T, Sum)             \
    PRODUCT(name, T, T, Sum, 16, 16, 16) \
    PRODUCT(name, T, T, Sum, 32, 8, 16)  \
    PRODUCT(name, T, T, Sum, 8, 32, 16)

SHAPES(half, half, float)
SHAPES(halves, half, half)
SHAPES(bfloat, __nv_bfloat16, float)
SHAPES(bytes, signed char, int)
SHAPES(unsigned_bytes, unsigned char, int)
PRODUCT(tf32, wmma::precision::tf32, float, float, 16, 16, 8)
PRODUCT(doubles, double, double, double, 8, 8, 4)

// Nibbles, packed.
extern "C" __global__ void nibbles(const uint32_t* a, const uint32_t* b, const int* c, int* d) {
    using namespace wmma::experimental;
    wmma::fragment<wmma::matrix_a, 8, 8, 32, precision::s4, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 8, 8, 32, precision::s4, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 8, 8, 32, int> sum;
    wmma::load_matrix_sync(fa, a, 32);
    wmma::load_matrix_sync(fb, b, 32);
    wmma::load_matrix_sync(sum, c, 8, wmma::mem_row_major);
    wmma::mma_sync(sum, fa, fb, sum);
    wmma::store_matrix_sync(d, sum, 8, wmma::mem_row_major);
}

// Sums that clamp.
extern "C" __global__ void clamped(const signed char* a, const signed char* b, const int* c, int* d) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, signed char, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, signed char, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 16, int> sum;
    wmma::load_matrix_sync(fa, a, 16);
    wmma::load_matrix_sync(fb, b, 16);
    wmma::load_matrix_sync(sum, c, 16, wmma::mem_row_major);
    wmma::mma_sync(sum, fa, fb, sum, true);
    wmma::store_matrix_sync(d, sum, 16, wmma::mem_row_major);
}

// Reverses 128 words through shared memory that asynchronous copies fill.
extern "C" __global__ void pipeline(const int* x, int* y) {
    __shared__ int tile[128];
    __pipeline_memcpy_async(&tile[threadIdx.x], &x[threadIdx.x], 4);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    y[threadIdx.x] = tile[127 - threadIdx.x];
}

// Clocks go on.
extern "C" __global__ void clocks(int* y) {
    long long first = clock64();
    unsigned narrow = clock();
    __nanosleep(20);
    y[threadIdx.x] = clock64() > first && clock() != narrow;
}

// The device's timer, before and after a wait by it.
extern "C" __global__ void timer(unsigned long long* y) {
    unsigned long long begun, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begun));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - begun < 3000000);
    y[0] = begun, y[1] = now;
}
