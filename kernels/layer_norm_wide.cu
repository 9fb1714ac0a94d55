// Layer normalization of wide rows, for inference: out = (x - mean) * rstd * gamma + beta.
//
// x (rows, width) row-major, f32; gamma, beta (width) f32. The result is written as f32 where it goes on as a residual, and as
// bf16 where products take it: either pointer may be null. Width is a multiple of 4, at most 2048; sums are f32, of squares
// of distances from the mean.
// Grid: blocks of 32 rows; eight warps, four rows each in turn, a row in the registers of its warp; gamma and beta in
// dynamic shared memory, 8 * width bytes. Deterministic. Reference: src/ops/layer_norm/cpu.rs.
#include "vector.cuh"

struct LayerNormWideArgs {
    const float* x;
    const float* gamma;
    const float* beta;
    float* wide;
    __nv_bfloat16* narrow;
    int rows, width;
    float eps;
    int padding;
};

constexpr int BLOCK_ROWS = 32, BLOCK_WARPS = 8, VECTORS = 16;

extern "C" __global__ void __launch_bounds__(256) layer_norm_wide(LayerNormWideArgs n) {
    extern __shared__ __align__(16) float parameters[];
    float *gamma = parameters, *beta = parameters + n.width;
    for (int column = threadIdx.x; column < n.width; column += BLOCK_WARPS * WARP) {
        gamma[column] = n.gamma[column];
        beta[column] = n.beta[column];
    }
    __syncthreads();
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int last = min((blockIdx.x + 1) * BLOCK_ROWS, n.rows);
    for (int row = blockIdx.x * BLOCK_ROWS + warp; row < last; row += BLOCK_WARPS) {
        int64_t start = static_cast<int64_t>(row) * n.width;
        Four values[VECTORS];
        float sum = 0;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            int column = (v * WARP + lane) * FOUR;
            if (column >= n.width) break;
            values[v] = load_four(n.x + start + column);
#pragma unroll
            for (int e = 0; e < FOUR; ++e) sum += values[v].at[e];
        }
        float mean = warp_sum(sum) / n.width, squares = 0;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            if ((v * WARP + lane) * FOUR >= n.width) break;
#pragma unroll
            for (int e = 0; e < FOUR; ++e) squares += (values[v].at[e] - mean) * (values[v].at[e] - mean);
        }
        float rstd = rsqrtf(warp_sum(squares) / n.width + n.eps);
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            int column = (v * WARP + lane) * FOUR;
            if (column >= n.width) break;
            Four scale = load_four(gamma + column), shift = load_four(beta + column);
#pragma unroll
            for (int e = 0; e < FOUR; ++e)
                values[v].at[e] = (values[v].at[e] - mean) * rstd * scale.at[e] + shift.at[e];
            if (n.wide) store_four(n.wide + start + column, values[v]);
            if (n.narrow) store_four(n.narrow + start + column, values[v]);
        }
    }
}
