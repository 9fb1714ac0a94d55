// How products of a few rows begin and end (linear_few.cu, linear_blocks.cu): the scale of a normalization that x still lacks, and
// what becomes of the sums.
//
// A normalization by the root mean square (rms_norm.cu) between two products needs no launch of its own. The product before it
// adds to the residual stream and leaves, beside the sums, these times the next gain, and of each of its blocks the sum of the
// squares. The product behind it takes those rows as its x and multiplies its outputs by the row's scale, which it finds
// meanwhile. Rows of f16 activations are left in f32: before they are scaled they may be beyond f16's numbers.
// Reference: src/ops/linear/stored/input.rs.
#pragma once

#include "decoder.cuh"

// What becomes of a sum; as in src/ops/linear/stored/on_device.rs.
enum Into { OWN = 0, WIDE = 1, ADDED = 2, GATED = 3 };

struct Scale {
    const float* squares;  // (rows, parts), or null: x is as it should be
    int parts;
    float eps;
};

struct Next {
    const float* gain;  // (columns), or null: nothing is normalized behind it
    void* rows;         // (rows, columns) of bf16 or f32
    float* squares;     // (rows, parts): a part for each block
};

// The type in which activations of T wait for their scale.
template <typename T>
struct Waiting { using Type = float; };
template <>
struct Waiting<__nv_bfloat16> { using Type = __nv_bfloat16; };

// What each warp found of the sums of squares of rows `first` to `first + XS - 1`, which all threads of a block share.
template <int WARPS, int XS>
__device__ inline void load_squares(float (&shared)[WARPS][XS], const Scale& scale, int first, int rows) {
    if (!scale.squares) return;
    float squares[XS] = {};
#pragma unroll
    for (int s = 0; s < XS; ++s) {
        if (first + s >= rows) break;
        const float* from = scale.squares + static_cast<int64_t>(first + s) * scale.parts;
#pragma unroll 8
        for (int i = threadIdx.x; i < scale.parts; i += WARPS * WARP) squares[s] += load_written(from + i);
    }
#pragma unroll
    for (int s = 0; s < XS; ++s) {
        float sum = warp_sum(squares[s]);
        if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP][s] = sum;
    }
}

// What row s of a product with x (rows, k) is multiplied by.
template <int WARPS, int XS>
__device__ inline float scale_of(const float (&shared)[WARPS][XS], const Scale& scale, int s, int k) {
    if (!scale.squares) return 1.0f;
    float squares = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) squares += shared[w][s];
    return rsqrtf(squares / k + scale.eps);
}

// Sums of a block, in its first warp: thread c + COLUMNS s holds that of column `column` and row `row`, or is not `there`. `part`
// is the block's among `parts`.
template <typename T, int COLUMNS>
__device__ inline void finish(float sum, bool there, int64_t row, int column, int part, int parts, int into, int stride,
                              void* out, const Next& next) {
    // Of gates and ups in turn, the up that belongs to a gate.
    float up = __shfl_down_sync(ALL_LANES, sum, 1);
    float square = 0.0f;
    int64_t at = row * stride + column;
    if (there) switch (into) {
        case OWN: static_cast<T*>(out)[at] = from_float<T>(sum); break;
        case WIDE: static_cast<float*>(out)[at] = sum; break;
        case ADDED: {
            float all = static_cast<float*>(out)[at] + sum;
            static_cast<float*>(out)[at] = all;
            if (next.gain) {
                using X = typename Waiting<T>::Type;
                static_cast<X*>(next.rows)[at] = from_float<X>(all * next.gain[column]);
                square = all * all;
            }
            break;
        }
        default:
            if (column % 2 == 0)
                static_cast<T*>(out)[row * stride + column / 2] = from_float<T>(sum / (1.0f + expf(-sum)) * up);
    }
    if (into != ADDED || !next.gain) return;
#pragma unroll
    for (int offset = COLUMNS / 2; offset > 0; offset /= 2) square += __shfl_xor_sync(ALL_LANES, square, offset);
    if (there && threadIdx.x % COLUMNS == 0) next.squares[row * parts + part] = square;
}
