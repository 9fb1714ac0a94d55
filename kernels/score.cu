// Dot products of both sides' vectors of each pair, for up to six scores. Reference: src/ops/score/mod.rs.
//
// Bit k of `by_item` says that score k's vectors are indexed by left and right item instead of by pair. A warp has LANES_ROW
// columns at a time, of any d.
#include "warp_row.cuh"

constexpr int SCORES = 6, LANES_ROW = LANE_VALUES * WARP;

struct ScoreForward {
    const float* left[SCORES];
    const float* right[SCORES];
    const uint32_t* left_item;
    const uint32_t* right_item;
    float* scores;  // (kinds, pairs)
    int kinds, pairs, d, by_item;
};

extern "C" __global__ void __launch_bounds__(128) score_forward(ScoreForward s) {
    int work = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (work >= s.kinds * s.pairs) return;
    int kind = work / s.pairs, pair = work % s.pairs;
    bool by_item = s.by_item >> kind & 1;
    const float* left = s.left[kind] + static_cast<int64_t>(by_item ? s.left_item[pair] : pair) * s.d;
    const float* right = s.right[kind] + static_cast<int64_t>(by_item ? s.right_item[pair] : pair) * s.d;
    bool fours = by_fours(s.d);
    float x[LANE_VALUES], y[LANE_VALUES], sum = 0;
    for (int start = 0; start < s.d; start += LANES_ROW) {
        load_row(x, left + start, s.d - start, fours);
        load_row(y, right + start, s.d - start, fours);
#pragma unroll
        for (int v = 0; v < LANE_VALUES; ++v) sum = fmaf(x[v], y[v], sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) s.scores[work] = sum;
}

// dto[row] = sum over the pairs of row of grad[pair] * other[row of the other side], with `adds` added to what is there. A warp
// per row of `dto`: a pair, or
// an item, whose pairs are members[offsets[item]] and so on.
struct ScoreBackward {
    const float* other;
    const float* grad;  // of one score (pairs)
    const uint32_t* offsets;
    const uint32_t* members;
    const uint32_t* other_item;
    float* dto;
    int rows, d, by_item, adds;
};

extern "C" __global__ void __launch_bounds__(128)
    score_backward(const __grid_constant__ Instances<ScoreBackward, 2 * SCORES> all) {
    each_instance(all, [](const ScoreBackward& s, int block) {
        int row = block * 4 + threadIdx.x / WARP;
        if (row >= s.rows) return;
        uint32_t first = s.by_item ? s.offsets[row] : row, last = s.by_item ? s.offsets[row + 1] : row + 1;
        bool fours = by_fours(s.d);
        for (int start = 0; start < s.d; start += LANES_ROW) {
            float* to = s.dto + static_cast<int64_t>(row) * s.d + start;
            float sum[LANE_VALUES] = {}, x[LANE_VALUES];
            for (uint32_t at = first; at < last; ++at) {
                uint32_t pair = s.by_item ? s.members[at] : at;
                uint32_t item = s.by_item ? s.other_item[pair] : pair;
                load_row(x, s.other + static_cast<int64_t>(item) * s.d + start, s.d - start, fours);
                add_scaled(sum, s.grad[pair], x);
            }
            load_row(x, to, s.adds ? s.d - start : 0, fours);
            add_scaled(sum, 1.0f, x);
            store_row(to, sum, s.d - start, fours);
        }
    });
}
