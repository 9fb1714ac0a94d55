// Layer normalization of rows of d values. A warp per row; d <= 256. Reference: src/ops/layer_norm/cpu.rs.
#include "layer_norm.cuh"

// x (rows, d) -> xhat = (x - mean) * rstd, out = xhat * gamma + beta, rstd (rows). With `residual` (queries, d), row i of x
// is x + residual[residual_row[i]]. xhat is f32, or f16 if it is narrow.
struct LayerNormForward {
    const float* x;
    const float* residual;
    const uint32_t* residual_row;
    const float* gamma;
    const float* beta;
    void* xhat;
    float* out;
    float* rstd;
    int rows, d;
    float eps;
    int narrow;
};

extern "C" __global__ void __launch_bounds__(128)
    layer_norm_forward(const __grid_constant__ Instances<LayerNormForward, 16> all) {
    each_instance(all, [](const LayerNormForward& n, int block) {
        int row = block * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
        if (row >= n.rows) return;
        bool fours = by_fours(n.d);
        float values[LANE_VALUES], other[LANE_VALUES], sum = 0;
        load_row(values, n.x + static_cast<int64_t>(row) * n.d, n.d, fours);
        if (n.residual) {
            load_row(other, n.residual + static_cast<int64_t>(n.residual_row[row]) * n.d, n.d, fours);
            add_scaled(values, 1.0f, other);
        }
#pragma unroll
        for (int v = 0; v < LANE_VALUES; ++v) sum += values[v];
        float mean = warp_sum(sum) / n.d, squares = 0;
#pragma unroll
        for (int v = 0; v < LANE_VALUES; ++v) {
            float distance = lane_column(v, fours) < n.d ? values[v] - mean : 0.0f;
            squares += distance * distance;
        }
        float rstd = rsqrtf(warp_sum(squares) / n.d + n.eps);
#pragma unroll
        for (int v = 0; v < LANE_VALUES; ++v) values[v] = (values[v] - mean) * rstd;
        int64_t start = static_cast<int64_t>(row) * n.d;
        if (n.narrow) {
            store_row(static_cast<__half*>(n.xhat) + start, values, n.d, fours);
        } else {
            store_row(static_cast<float*>(n.xhat) + start, values, n.d, fours);
        }
        float gamma[LANE_VALUES];
        load_row(gamma, n.gamma, n.d, fours);
        load_row(other, n.beta, n.d, fours);
#pragma unroll
        for (int v = 0; v < LANE_VALUES; ++v) values[v] = fmaf(values[v], gamma[v], other[v]);
        store_row(n.out + start, values, n.d, fours);
        if (lane == 0) n.rstd[row] = rstd;
    });
}

// dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * gamma; partial[b] = [dgamma || dbeta || sums of dx] over the
// rows of block b, rows_per_block each. A block of four warps; warp w takes every fourth row. dx has rows of `stride`
// values; those beyond d are zero. xhat is f32, or f16 if it is narrow.
struct LayerNormBackward {
    const float* dy;
    const void* xhat;
    const float* rstd;
    const float* gamma;
    void* dx;
    float* partial;
    int rows, d, stride, rows_per_block, narrow, padding;
};

template <typename T>
__device__ inline void layer_norm_backward(const LayerNormBackward& n, int block) {
    int first = block * n.rows_per_block, last = min(first + n.rows_per_block, n.rows);
    bool fours = by_fours(n.d);
    float totals[NORM_SUMS][LANE_VALUES] = {}, gamma[LANE_VALUES];
    load_row(gamma, n.gamma, n.d, fours);
    for (int row = first + threadIdx.x / WARP; row < last; row += NORM_WARPS) {
        int64_t start = static_cast<int64_t>(row) * n.d;
        float g[LANE_VALUES], xhat[LANE_VALUES];
        load_row(g, n.dy + start, n.d, fours);
        if (n.narrow) {
            load_row(xhat, static_cast<const __half*>(n.xhat) + start, n.d, fours);
        } else {
            load_row(xhat, static_cast<const float*>(n.xhat) + start, n.d, fours);
        }
        normalize_backward(g, xhat, gamma, n.rstd[row], n.d, fours, totals);
        store_row(static_cast<T*>(n.dx) + static_cast<int64_t>(row) * n.stride, g, n.stride, fours);
    }
    store_totals(n.partial + static_cast<int64_t>(block) * NORM_SUMS * n.d, totals, n.d, fours);
}

extern "C" __global__ void __launch_bounds__(128)
    layer_norm_backward_f32(const __grid_constant__ Instances<LayerNormBackward, 16> all) {
    each_instance(all, [](const LayerNormBackward& n, int block) { layer_norm_backward<float>(n, block); });
}
extern "C" __global__ void __launch_bounds__(128)
    layer_norm_backward_bf16(const __grid_constant__ Instances<LayerNormBackward, 16> all) {
    each_instance(all, [](const LayerNormBackward& n, int block) { layer_norm_backward<__nv_bfloat16>(n, block); });
}
