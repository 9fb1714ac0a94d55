// Layer normalization with gradients, of rows of any width: what layer_norm.cu does in registers for d <= 256.
//
// A warp per row, which passes over it in device memory; sums are f32, of squares of distances from the mean.
// Deterministic. Reference: src/ops/layer_norm/cpu.rs.
#include "common.cuh"

// x (rows, d) -> xhat = (x - mean) * rstd, out = xhat * gamma + beta, rstd (rows). Grid: four rows to a block of four
// warps.
struct LayerNormRowsForward {
    const float* x;
    const float* gamma;
    const float* beta;
    float* xhat;
    float* out;
    float* rstd;
    int rows, d;
    float eps;
    int padding;
};

extern "C" __global__ void __launch_bounds__(128) layer_norm_rows_forward(LayerNormRowsForward n) {
    int row = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= n.rows) return;
    int64_t start = static_cast<int64_t>(row) * n.d;
    const float* x = n.x + start;
    float sum = 0, squares = 0;
    for (int column = lane; column < n.d; column += WARP) sum += x[column];
    float mean = warp_sum(sum) / n.d;
    for (int column = lane; column < n.d; column += WARP) squares += (x[column] - mean) * (x[column] - mean);
    float rstd = rsqrtf(warp_sum(squares) / n.d + n.eps);
    for (int column = lane; column < n.d; column += WARP) {
        float xhat = (x[column] - mean) * rstd;
        n.xhat[start + column] = xhat;
        n.out[start + column] = fmaf(xhat, n.gamma[column], n.beta[column]);
    }
    if (lane == 0) n.rstd[row] = rstd;
}

struct LayerNormRowsBackward {
    const float* dy;
    const float* xhat;
    const float* rstd;
    const float* gamma;
    float* dx;
    float* partial;
    int rows, d, rows_per_block, adds;
};

// dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = dy * gamma; with `adds` added to what is there. Grid: four
// rows to a block of four warps.
extern "C" __global__ void __launch_bounds__(128) layer_norm_rows_backward(LayerNormRowsBackward n) {
    int row = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= n.rows) return;
    int64_t start = static_cast<int64_t>(row) * n.d;
    float sum = 0, product = 0;
    for (int column = lane; column < n.d; column += WARP) {
        float g = n.dy[start + column] * n.gamma[column];
        sum += g;
        product = fmaf(g, n.xhat[start + column], product);
    }
    float mean = warp_sum(sum) / n.d, along = warp_sum(product) / n.d, rstd = n.rstd[row];
    for (int column = lane; column < n.d; column += WARP) {
        float g = n.dy[start + column] * n.gamma[column];
        float dx = rstd * (g - mean - n.xhat[start + column] * along);
        n.dx[start + column] = n.adds ? n.dx[start + column] + dx : dx;
    }
}

// partial[b] = [sums of dy * xhat || sums of dy || not written], d each, over the rows of block b. A thread per
// column. Grid: (chunks of 128 columns, parts of rows_per_block rows).
extern "C" __global__ void __launch_bounds__(128) layer_norm_rows_sums(LayerNormRowsBackward n) {
    int column = blockIdx.x * 128 + threadIdx.x;
    if (column >= n.d) return;
    int first = blockIdx.y * n.rows_per_block, last = min(first + n.rows_per_block, n.rows);
    float gamma = 0, beta = 0;
    for (int row = first; row < last; ++row) {
        int64_t at = static_cast<int64_t>(row) * n.d + column;
        gamma = fmaf(n.dy[at], n.xhat[at], gamma);
        beta += n.dy[at];
    }
    float* partial = n.partial + blockIdx.y * 3ll * n.d + column;
    partial[0] = gamma;
    partial[n.d] = beta;
}
