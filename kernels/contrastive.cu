// The contrastive loss of n pairs: softmax cross-entropy of the rows and of the columns of e^log_scale * dots (n, n) at
// the diagonal. The products are those of matmul.cu. No shared memory but for four sums. Deterministic.
// Reference: src/ops/contrastive/cpu.rs.
#include "common.cuh"

// sums (2, n): logarithms of the sums of e to the logits of each row, then of each column; losses (2, n), still to be
// averaged. Grid: a warp per row and per column, four to a block.
struct ContrastiveForward {
    const float* dots;
    const float* log_scale;
    float* sums;
    float* losses;
    int n, padding;
};

extern "C" __global__ void __launch_bounds__(128) contrastive_forward(ContrastiveForward c) {
    int work = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (work >= 2 * c.n) return;
    int item = work % c.n;
    bool row = work < c.n;
    int64_t step = row ? 1 : c.n;
    const float* dots = c.dots + (row ? static_cast<int64_t>(item) * c.n : item);
    float scale = expf(*c.log_scale), max = -INFINITY, sum = 0;
    for (int i = lane; i < c.n; i += WARP) max = fmaxf(max, scale * dots[i * step]);
    max = warp_max(max);
    for (int i = lane; i < c.n; i += WARP) sum += expf(scale * dots[i * step] - max);
    float total = max + logf(warp_sum(sum));
    if (lane == 0) {
        c.sums[work] = total;
        c.losses[work] = total - scale * dots[item * step];
    }
}

// dots = their gradients; parts (n): each row's part of the gradient of log_scale. Grid: a warp per row, four to a block.
struct ContrastiveBackward {
    float* dots;
    const float* log_scale;
    const float* sums;
    const float* grad;  // (2)
    float* parts;
    int n, padding;
};

extern "C" __global__ void __launch_bounds__(128) contrastive_backward(ContrastiveBackward c) {
    int row = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= c.n) return;
    float* dots = c.dots + static_cast<int64_t>(row) * c.n;
    float scale = expf(*c.log_scale), of_text = c.grad[0] / c.n, of_image = c.grad[1] / c.n, part = 0;
    for (int column = lane; column < c.n; column += WARP) {
        float logit = scale * dots[column], gold = row == column ? 1.0f : 0.0f;
        float text = expf(logit - c.sums[row]) - gold, image = expf(logit - c.sums[c.n + column]) - gold;
        float gradient = of_text * text + of_image * image;
        part = fmaf(gradient, logit, part);
        dots[column] = scale * gradient;
    }
    part = warp_sum(part);
    if (lane == 0) c.parts[row] = part;
}

// out = the sum of the parts, with `adds` added to what is there. One block.
struct ContrastiveScale {
    const float* parts;
    float* out;
    int n, adds;
};

extern "C" __global__ void __launch_bounds__(128) contrastive_scale(ContrastiveScale s) {
    __shared__ float sums[4];
    float sum = 0;
    for (int i = threadIdx.x; i < s.n; i += 128) sum += s.parts[i];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) *s.out = (s.adds ? *s.out : 0.0f) + (sums[0] + sums[1] + sums[2] + sums[3]);
}
