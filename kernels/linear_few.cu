// Linear layers of few rows, as decoding has them: out = x W^T, bound by reading W; or silu(gate) * up of it, where rows of W
// are a gate's and its up's in turn.
//
// x (rows, k) of X (f32, bf16, f16); weights as stored_weights.cuh describes them, k a multiple of what 16 bytes hold; out
// (rows, columns) of T, or f32, which may be added to, or (rows, columns / 2) of T. X is T, or f32 that waits for its scale.
// A block of four warps computes four columns of x W^T for up to XS rows of x: each lane loads 16 bytes, of codes 8, of four rows
// of W at a time, the warps share k, and a weight is loaded once per XS rows. The scales of the four rows lie one after the other
// and are copied at once. How it begins and ends: few_rows.cuh.
// Grid: (columns / 4, rows / XS); block 128; static shared memory, and 2 bytes dynamic for each scale of four rows. Sums are
// f32, over lanes and warps in a fixed order; an element has the same bits for every XS. Deterministic. Reference:
// src/ops/linear/stored.
#include "few_rows.cuh"
#include "stored_weights.cuh"

struct Gemv {
    Weights weights;
    const void* x;
    void* out;
    Scale scale;
    Next next;
    int rows, into;
};

constexpr int WARPS = 4, COLUMNS = 4;

template <typename W, typename X, typename T, int XS>
__device__ inline void gemv(const Gemv& g) {
    __shared__ float shared[WARPS][COLUMNS][XS], squares[WARPS][XS];
    extern __shared__ __nv_bfloat16 scales[];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int first = blockIdx.x * COLUMNS, first_x = blockIdx.y * XS;
    int64_t rows[COLUMNS];
    bool there[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
        there[c] = first + c < g.weights.rows;
        rows[c] = there[c] ? first + c : 0;
    }
    int64_t row_bytes = W::bytes(g.weights.k);
    bring_near<WARPS * WARP, COLUMNS>(g.weights.codes + first * row_bytes, row_bytes, g.weights.rows - first);
    await_earlier();
    int groups = W::SCALED ? g.weights.k / g.weights.group : 0;
    if constexpr (W::SCALED) {
        const __nv_bfloat16* from = g.weights.scales + static_cast<int64_t>(first) * groups;
        int count = min(COLUMNS, g.weights.rows - first) * groups;
        for (int i = threadIdx.x; i < COLUMNS * groups; i += WARPS * WARP) scales[i] = i < count ? from[i] : __nv_bfloat16();
        __syncthreads();
    }
    load_squares(squares, g.scale, first_x, g.rows);
    float sums[COLUMNS][XS] = {};
    for (int k = threadIdx.x * W::EACH; k < g.weights.k; k += WARPS * WARP * W::EACH) {
        typename W::Raw raw[COLUMNS];
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
            const char* from = g.weights.codes + W::bytes(rows[c] * g.weights.k + k);
            raw[c] = there[c] ? load_once<typename W::Raw>(from) : typename W::Raw();
        }
        // Sums of what shares a scale; of weights without scales, all.
        float part[COLUMNS][XS] = {};
        float(&to)[COLUMNS][XS] = W::SCALED ? part : sums;
#pragma unroll
        for (int piece = 0; piece < W::EACH / W::PIECE; ++piece) {
            float w[COLUMNS][W::PIECE];
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) W::unpack(w[c], raw[c], piece);
#pragma unroll
            for (int s = 0; s < XS; ++s) {
                if (first_x + s >= g.rows) break;
                int64_t at = static_cast<int64_t>(first_x + s) * g.weights.k + W::place(k, piece);
                float x[W::PIECE];
                load_values(x, static_cast<const X*>(g.x) + at);
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
                    for (int e = 0; e < W::PIECE; ++e) to[c][s] = fmaf(w[c][e], x[e], to[c][s]);
            }
        }
        if constexpr (W::SCALED)
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                float scale = to_float(scales[c * groups + k / g.weights.group]);
#pragma unroll
                for (int s = 0; s < XS; ++s) sums[c][s] = fmaf(scale, part[c][s], sums[c][s]);
            }
    }
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
#pragma unroll
        for (int s = 0; s < XS; ++s) {
            float sum = warp_sum(sums[c][s]);
            if (lane == 0) shared[warp][c][s] = sum;
        }
    __syncthreads();
    if (warp > 0) return;
    int c = threadIdx.x % COLUMNS, s = threadIdx.x / COLUMNS;
    bool present = s < XS && first_x + s < g.rows && first + c < g.weights.rows;
    float sum = 0;
    if (present) {
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += shared[w][c][s];
        sum *= scale_of(squares, g.scale, s, g.weights.k);
    }
    int stride = g.into == GATED ? g.weights.rows / 2 : g.weights.rows;
    finish<T, COLUMNS>(sum, present, first_x + s, first + c, blockIdx.x, gridDim.x, g.into, stride, g.out, g.next);
}

#define GEMV(W, X, T, w, x)                                                                                            \
    extern "C" __global__ void __launch_bounds__(128) linear_few_##w##_##x##_1(Gemv g) { gemv<W, X, T, 1>(g); }       \
    extern "C" __global__ void __launch_bounds__(128) linear_few_##w##_##x##_8(Gemv g) { gemv<W, X, T, 8>(g); }

GEMV(Plain<float>, float, float, f32, f32)
GEMV(Plain<__nv_bfloat16>, float, float, bf16, f32)
GEMV(Plain<__half>, float, float, f16, f32)
GEMV(Int8, float, float, int8, f32)
GEMV(Int4, float, float, int4, f32)
GEMV(Plain<__nv_bfloat16>, __nv_bfloat16, __nv_bfloat16, bf16, bf16)
GEMV(Int8, __nv_bfloat16, __nv_bfloat16, int8, bf16)
GEMV(Int4, __nv_bfloat16, __nv_bfloat16, int4, bf16)
GEMV(Plain<__half>, __half, __half, f16, f16)
// Rows that wait for their scale, into rows of f16.
GEMV(Plain<__half>, float, __half, f16, waiting)
