// Matrix product of strided f32 operands, for layers whose operands are small: C = alpha A B (+ bias) (+ C), ReLU.
//
//   A(i, k) = a[i * a_row + k * a_col], m x k;  B(k, j) = b[k * b_row + j * b_col], k x n;  C(i, j) = c[i * c_row + j]
//
// gemm_tf32: 64 x 64 tiles of C, 128 threads, operands rounded to tf32 (11 bits) on tensor cores, f32 sums; gemm_f32: the same tiles, 256 threads,
// f32 throughout. Grid: (tiles of m, tiles of n, batch * splits). With splits > 1 each part of k writes an m x n block of
// its own, which reduce_partials (reduce.cu) adds up. Reference: src/device/cpu/{matmul,linear}.rs.
#include "common.cuh"

struct Gemm {
    const float* a;
    const float* b;
    float* c;
    const float* bias;
    int64_t a_row, a_col, b_row, b_col, c_row;
    // From one product of a batch to the next.
    int64_t a_batch, b_batch, c_batch, bias_batch;
    int m, n, k, splits;
    float alpha;
    int accumulate, relu, padding;
};

constexpr int TILE = 64;

// The part of the work that a block does.
struct Part {
    const float* a;
    const float* b;
    float* c;
    const float* bias;
    int64_t c_row;
    int first_k, last_k;
};

__device__ inline Part part_of(const Gemm& g) {
    int batch = blockIdx.z / g.splits, split = blockIdx.z % g.splits;
    // Parts of k are whole tiles of 32.
    int length = ((g.k + 31) / 32 + g.splits - 1) / g.splits * 32;
    Part part{g.a + batch * g.a_batch, g.b + batch * g.b_batch, g.c + batch * g.c_batch,
              g.bias ? g.bias + batch * g.bias_batch : nullptr, g.c_row, min(split * length, g.k),
              min((split + 1) * length, g.k)};
    if (g.splits > 1) {
        part.c = g.c + static_cast<int64_t>(blockIdx.z) * g.m * g.n;
        part.c_row = g.n;
    }
    return part;
}

__device__ inline void store(const Gemm& g, const Part& part, int i, int j, float sum) {
    if (i >= g.m || j >= g.n) return;
    float value = g.alpha * sum;
    if (part.bias) value += part.bias[j];
    float* to = part.c + i * part.c_row + j;
    if (g.accumulate) value += *to;
    *to = g.relu ? fmaxf(value, 0.0f) : value;
}

// Two neighbours of a row, at once where they lie on an 8-byte boundary.
__device__ inline void store_pair(const Gemm& g, const Part& part, int i, int j, float low, float high) {
    float* to = part.c + i * part.c_row + j;
    bool together = i < g.m && j + 1 < g.n && !g.accumulate && reinterpret_cast<uintptr_t>(to) % 8 == 0;
    if (!together) {
        store(g, part, i, j, low);
        store(g, part, i, j + 1, high);
        return;
    }
    float2 value = make_float2(g.alpha * low, g.alpha * high);
    if (part.bias) value = make_float2(value.x + part.bias[j], value.y + part.bias[j + 1]);
    if (g.relu) value = make_float2(fmaxf(value.x, 0.0f), fmaxf(value.y, 0.0f));
    *reinterpret_cast<float2*>(to) = value;
}

// Loads a TILE x DEPTH tile of an operand, element (i, k) at base[i * row + k * col], and hands each to `put`. Threads
// follow each other along the axis that is contiguous in memory: along all of k, or along 16 of i and then 2 of k, so that
// the rows of shared memory which they write lie in as many banks as can be.
template <int DEPTH, int THREADS, typename Put>
__device__ inline void load_tile(const float* base, int64_t row, int64_t col, int first, int rows, int first_k,
                                 int last_k, Put put) {
#pragma unroll
    for (int e = threadIdx.x; e < TILE * DEPTH; e += THREADS) {
        int i = e / DEPTH, k = e % DEPTH;
        if (col != 1) {
            i = e % 16 + e / WARP % (TILE / 16) * 16;
            k = e / 16 % 2 + e / (WARP * TILE / 16) * 2;
        }
        bool there = first + i < rows && first_k + k < last_k;
        put(i, k, there ? base[(first + i) * row + (first_k + k) * col] : 0.0f);
    }
}

extern "C" __global__ void __launch_bounds__(256, 2) gemm_f32(Gemm g) {
    constexpr int DEPTH = 16;
    // Five floats apart: neither the stores along k nor the loads along i meet in a bank.
    __shared__ float a[DEPTH][TILE + 5], b[DEPTH][TILE + 5];
    Part part = part_of(g);
    int first_i = blockIdx.x * TILE, first_j = blockIdx.y * TILE;
    int row = threadIdx.x / 16, column = threadIdx.x % 16;
    float sums[4][4] = {};
    for (int k = part.first_k; k < part.last_k; k += DEPTH) {
        load_tile<DEPTH, 256>(part.a, g.a_row, g.a_col, first_i, g.m, k, part.last_k,
                              [&](int i, int k, float x) { a[k][i] = x; });
        load_tile<DEPTH, 256>(part.b, g.b_col, g.b_row, first_j, g.n, k, part.last_k,
                              [&](int j, int k, float x) { b[k][j] = x; });
        __syncthreads();
#pragma unroll
        for (int depth = 0; depth < DEPTH; ++depth) {
            float x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[i] = a[depth][row + 16 * i];
                y[i] = b[depth][column + 16 * i];
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            store(g, part, first_i + row + 16 * i, first_j + column + 16 * j, sums[i][j]);
}

extern "C" __global__ void __launch_bounds__(128, 4) gemm_tf32(Gemm g) {
    constexpr int DEPTH = 32;
    // Rows four floats apart modulo the banks: the eight rows and four columns of a fragment lie in 32 different ones.
    __shared__ float a[TILE][DEPTH + 4], b[TILE][DEPTH + 4];
    Part part = part_of(g);
    int first_i = blockIdx.x * TILE, first_j = blockIdx.y * TILE;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    // Each of the four warps computes 32 x 32 of the tile; a lane holds row lane / 4 and column lane % 4 of a fragment.
    int row = warp / 2 * 32 + lane / 4, column = warp % 2 * 32 + lane / 4, along = lane % 4;
    float sums[2][4][4] = {};
    for (int k = part.first_k; k < part.last_k; k += DEPTH) {
        load_tile<DEPTH, 128>(part.a, g.a_row, g.a_col, first_i, g.m, k, part.last_k,
                              [&](int i, int k, float x) { a[i][k] = round_to_tf32(x); });
        load_tile<DEPTH, 128>(part.b, g.b_col, g.b_row, first_j, g.n, k, part.last_k,
                              [&](int j, int k, float x) { b[j][k] = round_to_tf32(x); });
        __syncthreads();
#pragma unroll
        for (int depth = 0; depth < DEPTH; depth += 8) {
            float left[2][4], right[4][2];
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e) left[i][e] = a[row + 16 * i + e % 2 * 8][depth + along + e / 2 * 4];
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) right[j][e] = b[column + 8 * j][depth + along + e * 4];
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) mma_tf32(sums[i][j], left[i], right[j]);
        }
        __syncthreads();
    }
    int first_row = first_i + row, first_column = first_j + warp % 2 * 32 + along * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                store_pair(g, part, first_row + 16 * i + half * 8, first_column + 8 * j, sums[i][j][2 * half],
                           sums[i][j][2 * half + 1]);
}
