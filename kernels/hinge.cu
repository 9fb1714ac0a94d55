// Hinge loss of each score over each mention's candidates, which stand next to each other. Grid: a warp per mention and
// score, four to a block; no shared memory. Deterministic. Reference: src/ops/hinge/mod.rs.
#include "common.cuh"

struct Hinge {
    const float* scores;    // (kinds, pairs)
    const uint32_t* first;  // pair of each mention
    const uint32_t* end;    // pair after its last
    const uint32_t* gold;   // pair of each mention
    const float* grad;      // (kinds), of backward
    float* out;             // forward: losses (kinds, mentions), still to be averaged; backward: dscores (kinds, pairs)
    int kinds, pairs, mentions;
    float margin;
    int adds, padding;
};

// A mention's candidates in one of the scores.
struct Candidates {
    int kind, mention, lane;
    const float* scores;
    uint32_t first, end, gold;
    // What a negative's score is added to: the margin less the gold candidate's score.
    float bar;

    __device__ Candidates(const Hinge& h, int work) {
        kind = work / h.mentions, mention = work % h.mentions, lane = threadIdx.x % WARP;
        scores = h.scores + static_cast<int64_t>(kind) * h.pairs;
        first = h.first[mention], end = h.end[mention], gold = h.gold[mention];
        bar = h.margin - scores[gold];
    }

    // How far a pair's score is beyond what the margin allows, if it is a negative and is.
    __device__ float violation(uint32_t pair) const { return pair == gold ? 0.0f : relu(bar + scores[pair]); }

    __device__ float negatives() const { return fmaxf(end - first - 1, 1.0f); }
};

// The mean violation over each mention's negatives.
extern "C" __global__ void __launch_bounds__(128) hinge_forward(Hinge h) {
    int work = blockIdx.x * 4 + threadIdx.x / WARP;
    if (work >= h.kinds * h.mentions) return;
    Candidates c(h, work);
    float sum = 0;
    for (uint32_t pair = c.first + c.lane; pair < c.end; pair += WARP) sum += c.violation(pair);
    sum = warp_sum(sum);
    if (c.lane == 0) h.out[work] = sum / c.negatives();
}

// dscores: its share of the gradient for each negative that violates the margin, less their sum for the gold pair; with
// `adds` added to what is there.
extern "C" __global__ void __launch_bounds__(128) hinge_backward(Hinge h) {
    int work = blockIdx.x * 4 + threadIdx.x / WARP;
    if (work >= h.kinds * h.mentions) return;
    Candidates c(h, work);
    float* out = h.out + static_cast<int64_t>(c.kind) * h.pairs;
    float share = h.grad[c.kind] / (c.negatives() * h.mentions), violated = 0;
    for (uint32_t pair = c.first + c.lane; pair < c.end; pair += WARP) {
        if (pair == c.gold) continue;
        bool violates = !(c.violation(pair) <= 0.0f);
        float gradient = violates ? share : 0.0f;
        violated += violates ? 1.0f : 0.0f;
        out[pair] = h.adds ? out[pair] + gradient : gradient;
    }
    violated = warp_sum(violated);
    if (c.lane == 0) out[c.gold] = (h.adds ? out[c.gold] : 0.0f) - share * violated;
}
