// Linear layers whose weights lie in the blocks of a GGUF file (blocks.cuh): out = x W^T of a few rows, bound by reading W; and
// the same weights as f16 or f32, for products of many rows (linear_stored.cu) and for embeddings.
//
// linear_blocks_*: x (rows, k) of X (f32 or f16), W (columns, k), out (rows, columns) within rows of `stride`, of T or f32, which
// may be added to, or (rows, columns / 2) of T: silu(gate) * up, where rows of W are a gate's and its up's in turn. X is T, or
// f32 that waits for its scale. A block of four warps computes two columns of up to four rows of x: each thread takes every 128th
// group of 32 weights of two rows of W, whose codes become floats in registers. How it begins and ends: few_rows.cuh. Grid:
// (columns / 2, rows / 4); block 128; static shared memory. Sums are f32, over threads in a fixed order; an element has the same
// bits whatever rows stand beside it. Deterministic.
// unpack_blocks_*: out (rows, k) of T, row i being row `numbers[i]` of the weights, or row i. Grid: a thread for each group of 32
// weights; block 128. Deterministic.
// Reference: src/tensor/blocks.rs, src/ops/linear/stored.
#include "blocks.cuh"
#include "few_rows.cuh"

struct LinearBlocks {
    const uint8_t* weights;
    const void* x;
    void* out;
    Scale scale;
    Next next;
    int rows, columns, k, stride, into, padding;
};

struct UnpackBlocks {
    const uint8_t* weights;
    const uint32_t* numbers;
    void* out;
    int rows, k;
};

constexpr int WARPS = 4, COLUMNS = 2, ROWS = 4;

template <typename Kind, typename X, typename T>
__device__ inline void linear(const LinearBlocks& g) {
    __shared__ float shared[WARPS][COLUMNS][ROWS], squares[WARPS][ROWS];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int first = blockIdx.x * COLUMNS, first_x = blockIdx.y * ROWS;
    int64_t row_bytes = static_cast<int64_t>(g.k / Kind::WEIGHTS) * Kind::BYTES;
    bring_near<WARPS * WARP, COLUMNS>(g.weights + first * row_bytes, row_bytes, g.columns - first);
    await_earlier();
    load_squares(squares, g.scale, first_x, g.rows);
    float sums[COLUMNS][ROWS] = {};
    for (int group = threadIdx.x; group < g.k / GROUP; group += WARPS * WARP) {
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            if (first + c >= g.columns) break;
            float w[GROUP];
            unpack_group<Kind>(w, g.weights + (first + c) * row_bytes, group);
#pragma unroll
            for (int s = 0; s < ROWS; ++s) {
                if (first_x + s >= g.rows) break;
                float x[GROUP];
                load_values(x, static_cast<const X*>(g.x) + static_cast<int64_t>(first_x + s) * g.k + group * GROUP);
#pragma unroll
                for (int i = 0; i < GROUP; ++i) sums[c][s] = fmaf(w[i], x[i], sums[c][s]);
            }
        }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
        for (int s = 0; s < ROWS; ++s) {
            float sum = warp_sum(sums[c][s]);
            if (lane == 0) shared[warp][c][s] = sum;
        }
    __syncthreads();
    if (warp > 0) return;
    int c = threadIdx.x % COLUMNS, s = threadIdx.x / COLUMNS;
    bool present = s < ROWS && first_x + s < g.rows && first + c < g.columns;
    float sum = 0;
    if (present) {
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += shared[w][c][s];
        sum *= scale_of(squares, g.scale, s, g.k);
    }
    finish<T, COLUMNS>(sum, present, first_x + s, first + c, blockIdx.x, gridDim.x, g.into, g.stride, g.out, g.next);
}

template <typename Kind, typename T>
__device__ inline void unpack_rows(const UnpackBlocks& g) {
    await_earlier();
    int groups = g.k / GROUP;
    int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= static_cast<int64_t>(g.rows) * groups) return;
    int64_t row = at / groups;
    int group = static_cast<int>(at % groups);
    int64_t from = g.numbers ? g.numbers[row] : row;
    float w[GROUP];
    unpack_group<Kind>(w, g.weights + from * (g.k / Kind::WEIGHTS) * Kind::BYTES, group);
    T* out = static_cast<T*>(g.out) + row * g.k + group * GROUP;
#pragma unroll
    for (int i = 0; i < GROUP; i += PER_LOAD<T>) {
        uint4 some;
        auto* values = reinterpret_cast<T*>(&some);
#pragma unroll
        for (int e = 0; e < PER_LOAD<T>; ++e) values[e] = from_float<T>(w[i + e]);
        *reinterpret_cast<uint4*>(out + i) = some;
    }
}

#define OF_KIND(name, Kind)                                                                                            \
    extern "C" __global__ void __launch_bounds__(128) linear_blocks_##name##_f32(LinearBlocks g) {                     \
        linear<Kind, float, float>(g);                                                                                 \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) linear_blocks_##name##_f16(LinearBlocks g) {                     \
        linear<Kind, __half, __half>(g);                                                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) linear_blocks_##name##_waiting(LinearBlocks g) {                 \
        linear<Kind, float, __half>(g);                                                                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) unpack_blocks_##name##_f32(UnpackBlocks g) {                     \
        unpack_rows<Kind, float>(g);                                                                                   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128) unpack_blocks_##name##_f16(UnpackBlocks g) {                     \
        unpack_rows<Kind, __half>(g);                                                                                  \
    }

OF_KIND(q4_0, Q4_0)
OF_KIND(q4_1, Q4_1)
OF_KIND(q5_0, Q5_0)
OF_KIND(q5_1, Q5_1)
OF_KIND(q8_0, Q8_0)
OF_KIND(q4_k, Q4_K)
OF_KIND(q5_k, Q5_K)
OF_KIND(q6_k, Q6_K)
