// Rows of length 1, and the gradient of their direction. Arrays are (n, d), any d. Grid: a warp per row, four to a
// block; no shared memory. Deterministic. Reference: src/ops/normalize/mod.rs.
#include "common.cuh"

// out = x / max(|x|, least), norms (n) = |x|.
struct NormalizeForward {
    const float* x;
    float* out;
    float* norms;
    int n, d;
    float least;
    int padding;
};

extern "C" __global__ void __launch_bounds__(128) normalize_forward(NormalizeForward f) {
    int row = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= f.n) return;
    const float* x = f.x + static_cast<int64_t>(row) * f.d;
    float* out = f.out + static_cast<int64_t>(row) * f.d;
    float sum = 0;
    for (int column = lane; column < f.d; column += WARP) sum = fmaf(x[column], x[column], sum);
    float norm = sqrtf(warp_sum(sum)), scale = 1.0f / fmaxf(norm, f.least);
    for (int column = lane; column < f.d; column += WARP) out[column] = x[column] * scale;
    if (lane == 0) f.norms[row] = norm;
}

// dx = (grad - out <out, grad>) / norm, of a row no longer than `least` grad / least; with `adds` added to what is
// there.
struct NormalizeBackward {
    const float* out;
    const float* norms;
    const float* grad;
    float* dx;
    int n, d;
    float least;
    int adds;
};

extern "C" __global__ void __launch_bounds__(128) normalize_backward(NormalizeBackward b) {
    int row = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= b.n) return;
    const float* out = b.out + static_cast<int64_t>(row) * b.d;
    const float* grad = b.grad + static_cast<int64_t>(row) * b.d;
    float* dx = b.dx + static_cast<int64_t>(row) * b.d;
    float along = 0, norm = b.norms[row], scale = 1.0f / fmaxf(norm, b.least);
    for (int column = lane; column < b.d; column += WARP) along = fmaf(out[column], grad[column], along);
    along = norm > b.least ? warp_sum(along) : 0.0f;
    for (int column = lane; column < b.d; column += WARP) {
        float gradient = fmaf(-along, out[column], grad[column]);
        dx[column] = fmaf(scale, gradient, b.adds ? dx[column] : 0.0f);
    }
}
