// Softmax cross-entropy of each score over each mention's candidates, which stand next to each other.
// Reference: src/ops/cross_entropy/mod.rs.
#include "common.cuh"

// losses (kinds, mentions), still to be averaged; softmax (kinds, pairs). A warp per mention and score.
struct CrossEntropyForward {
    const float* scores;
    const uint32_t* first;  // pair of each mention
    const uint32_t* end;    // pair after its last
    const uint32_t* gold;   // pair of each mention
    float* softmax;
    float* losses;
    int kinds, pairs, mentions, padding;
};

extern "C" __global__ void __launch_bounds__(128) cross_entropy_forward(CrossEntropyForward c) {
    int work = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (work >= c.kinds * c.mentions) return;
    int kind = work / c.mentions, mention = work % c.mentions;
    const float* scores = c.scores + static_cast<int64_t>(kind) * c.pairs;
    float* softmax = c.softmax + static_cast<int64_t>(kind) * c.pairs;
    uint32_t first = c.first[mention], last = c.end[mention];
    float max = -INFINITY, sum = 0;
    for (uint32_t p = first + lane; p < last; p += WARP) max = fmaxf(max, scores[p]);
    max = warp_max(max);
    for (uint32_t p = first + lane; p < last; p += WARP) sum += expf(scores[p] - max);
    sum = warp_sum(sum);
    for (uint32_t p = first + lane; p < last; p += WARP) softmax[p] = expf(scores[p] - max) / sum;
    if (lane == 0) c.losses[work] = max + logf(sum) - scores[c.gold[mention]];
}

// out[k] = mean of row k of x (rows, n). A block per row.
struct RowMeans {
    const float* x;
    float* out;
    int n, padding;
};

extern "C" __global__ void __launch_bounds__(128) row_means(RowMeans r) {
    __shared__ float sums[4];
    float sum = 0;
    for (int i = threadIdx.x; i < r.n; i += 128) sum += r.x[static_cast<int64_t>(blockIdx.x) * r.n + i];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) r.out[blockIdx.x] = (sums[0] + sums[1] + sums[2] + sums[3]) / r.n;
}

// dscores = (softmax - [gold]) * grad / mentions, with `adds` added to what is there. A thread per pair and score.
struct CrossEntropyBackward {
    const float* softmax;
    const float* grad;  // (kinds)
    const uint32_t* mention_of;
    const uint32_t* gold;
    float* dscores;
    int kinds, pairs, mentions, adds;
};

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward(CrossEntropyBackward c) {
    int64_t at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= static_cast<int64_t>(c.kinds) * c.pairs) return;
    uint32_t pair = at % c.pairs;
    float gold = c.gold[c.mention_of[pair]] == pair ? 1.0f : 0.0f;
    float gradient = (c.softmax[at] - gold) * c.grad[at / c.pairs] / c.mentions;
    c.dscores[at] = c.adds ? c.dscores[at] + gradient : gradient;
}
