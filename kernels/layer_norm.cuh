// The backward of layer normalization, a warp per row of d values, N to a lane.
#pragma once

#include "warp_row.cuh"

// What is summed over rows: gradients of gamma and beta, and dx.
constexpr int NORM_SUMS = 3, NORM_WARPS = 4;

// g, the gradient of a row's output, becomes dx = rstd * (g' - mean(g') - xhat * mean(g' * xhat)), g' = g * gamma.
template <int N>
__device__ inline void normalize_backward(float (&g)[N], const float (&xhat)[N], const float (&gamma)[N], float rstd, int d,
                                          bool fours, float (&totals)[NORM_SUMS][N]) {
    float sum = 0, product = 0;
#pragma unroll
    for (int v = 0; v < N; ++v) {
        totals[0][v] += g[v] * xhat[v];
        totals[1][v] += g[v];
        g[v] *= gamma[v];
        sum += g[v];
        product += g[v] * xhat[v];
    }
    float mean = warp_sum(sum) / d, along = warp_sum(product) / d;
#pragma unroll
    for (int v = 0; v < N; ++v) {
        g[v] = lane_column(v, fours) < d ? rstd * (g[v] - mean - xhat[v] * along) : 0.0f;
        totals[2][v] += g[v];
    }
}

// The sums of a block's four warps: [dgamma || dbeta || sums of dx].
template <int N>
__device__ inline void store_totals(float* partial, const float (&totals)[NORM_SUMS][N], int d, bool fours) {
    __shared__ alignas(16) float sums[NORM_WARPS][NORM_SUMS][N * WARP];
#pragma unroll
    for (int which = 0; which < NORM_SUMS; ++which) share_row(sums[threadIdx.x / WARP][which], totals[which], fours);
    __syncthreads();
    for (int e = threadIdx.x; e < NORM_SUMS * d; e += NORM_WARPS * WARP) {
        float sum = 0;
        for (int w = 0; w < NORM_WARPS; ++w) sum += sums[w][e / d][e % d];
        partial[e] = sum;
    }
}
