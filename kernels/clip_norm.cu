// The length of up to 96 gradients together, and their scaling down to `most` if it is longer.
// Reference: src/ops/clip_norm/mod.rs. Deterministic: every sum has one order.
#include "common.cuh"

struct Gradient {
    float* values;
    int64_t length;
};

struct ClipNorm {
    Gradient gradients[96];
    float* sums;         // of squares: of each block of this launch, in order
    const float* total;  // the length (1)
    float most;
    int padding;
};

// Sum over a block of 256 threads, in its first thread.
__device__ inline float block_sum(float x) {
    __shared__ float sums[8];
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0;
    if (threadIdx.x == 0)
        for (int i = 0; i < 8; ++i) sum += sums[i];
    return sum;
}

// Grid: (parts of a gradient, gradients).
extern "C" __global__ void __launch_bounds__(256) clip_norm_squares(ClipNorm c) {
    Gradient g = c.gradients[blockIdx.y];
    float sum = 0;
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < g.length; i += gridDim.x * 256ll)
        sum = fmaf(g.values[i], g.values[i], sum);
    sum = block_sum(sum);
    if (threadIdx.x == 0) c.sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// total = the root of the sum of n sums. One block.
struct ClipNormTotal {
    const float* sums;
    float* total;
    int n, padding;
};

extern "C" __global__ void __launch_bounds__(256) clip_norm_total(ClipNormTotal c) {
    float sum = 0;
    for (int i = threadIdx.x; i < c.n; i += 256) sum += c.sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *c.total = sqrtf(sum);
}

// Grid: (parts of a gradient, gradients).
extern "C" __global__ void __launch_bounds__(256) clip_norm_scale(ClipNorm c) {
    float total = *c.total;
    if (total <= c.most) return;
    Gradient g = c.gradients[blockIdx.y];
    float scale = c.most / total;
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < g.length; i += gridDim.x * 256ll) g.values[i] *= scale;
}
