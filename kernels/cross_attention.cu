// One query vector attends to a sequence, with neither keys nor values. Reference: src/ops/cross_attention/cpu.rs,
// src/ops/cross_attention/mod.rs.
//
// Pair p has query left[p] with logit vectors u (queries, heads, d) and sequence right[p]; its logits and probabilities
// lie at heads * starts[p] (heads, length). d <= 256.
#include "warp_row.cuh"

struct Pairs {
    const uint32_t* left;
    const uint32_t* right;
    const uint32_t* offsets;  // of the sequences
    const uint32_t* starts;   // of each pair's probabilities, if there were one head
};

// Probabilities and contexts (pairs, heads, d). A warp per pair and head; one pass over the sequence, whose sums are
// rescaled whenever the maximum rises.
struct AttendForward {
    Pairs pairs;
    const float* u;
    const float* sequence;
    float* probabilities;
    float* context;
    int count, heads, d, padding;
};

extern "C" __global__ void __launch_bounds__(128)
    attend_forward(const __grid_constant__ Instances<AttendForward, 16> all) {
    each_instance(all, [](const AttendForward& a, int block) {
        int work = block * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
        if (work >= a.count * a.heads) return;
        int pair = work / a.heads, head = work % a.heads;
        uint32_t first = a.pairs.offsets[a.pairs.right[pair]], last = a.pairs.offsets[a.pairs.right[pair] + 1];
        int length = last - first;
        bool fours = by_fours(a.d);
        float u[LANE_VALUES], row[LANE_VALUES], context[LANE_VALUES] = {};
        load_row(u, a.u + (static_cast<int64_t>(a.pairs.left[pair]) * a.heads + head) * a.d, a.d, fours);
        float* probabilities = a.probabilities + static_cast<int64_t>(a.heads) * a.pairs.starts[pair] + head * length;
        // Logits are kept until a lane each has one, and then stored at once.
        float max = -INFINITY, sum = 0, mine = 0;
        for (int l = 0; l < length; ++l) {
            load_row(row, a.sequence + static_cast<int64_t>(first + l) * a.d, a.d, fours);
            float logit = dot(u, row), higher = fmaxf(max, logit);
            float keep = expf(max - higher), weight = expf(logit - higher);
            sum = sum * keep + weight;
#pragma unroll
            for (int v = 0; v < LANE_VALUES; ++v) context[v] = context[v] * keep + weight * row[v];
            max = higher;
            if (l % WARP == lane) mine = logit;
            if (l % WARP == WARP - 1 || l + 1 == length)
                if (lane <= l % WARP) probabilities[l - l % WARP + lane] = mine;
        }
        float share = 1.0f / sum;
#pragma unroll
        for (int v = 0; v < LANE_VALUES; ++v) context[v] *= share;
        store_row(a.context + static_cast<int64_t>(work) * a.d, context, a.d, fours);
        for (int l = lane; l < length; l += WARP) probabilities[l] = expf(probabilities[l] - max) * share;
    });
}

// Gradients of the logits (as the probabilities lie) and of each pair's u (pairs, heads, d). A warp per pair and head.
struct AttendBackward {
    Pairs pairs;
    const float* sequence;
    const float* probabilities;
    const float* dcontext;
    float* dlogits;
    float* du;
    int count, heads, d, padding;
};

extern "C" __global__ void __launch_bounds__(128)
    attend_backward(const __grid_constant__ Instances<AttendBackward, 16> all) {
    each_instance(all, [](const AttendBackward& a, int block) {
        int work = block * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
        if (work >= a.count * a.heads) return;
        int pair = work / a.heads, head = work % a.heads;
        uint32_t first = a.pairs.offsets[a.pairs.right[pair]], last = a.pairs.offsets[a.pairs.right[pair] + 1];
        int length = last - first;
        const float* probabilities = a.probabilities + static_cast<int64_t>(a.heads) * a.pairs.starts[pair] + head * length;
        float* dlogits = a.dlogits + static_cast<int64_t>(a.heads) * a.pairs.starts[pair] + head * length;
        bool fours = by_fours(a.d);
        float dcontext[LANE_VALUES], row[LANE_VALUES];
        load_row(dcontext, a.dcontext + static_cast<int64_t>(work) * a.d, a.d, fours);
        // du = sum of a (da - mean) F = sum of a da F - mean (sum of a F), so that one pass is enough.
        float along[LANE_VALUES] = {}, context[LANE_VALUES] = {}, mean = 0, mine = 0;
        for (int l = 0; l < length; ++l) {
            load_row(row, a.sequence + static_cast<int64_t>(first + l) * a.d, a.d, fours);
            float da = dot(dcontext, row), probability = probabilities[l];
            mean = fmaf(probability, da, mean);
            add_scaled(along, probability * da, row);
            add_scaled(context, probability, row);
            if (l % WARP == lane) mine = da;
            if (l % WARP == WARP - 1 || l + 1 == length)
                if (lane <= l % WARP) dlogits[l - l % WARP + lane] = mine;
        }
        add_scaled(along, -mean, context);
        store_row(a.du + static_cast<int64_t>(work) * a.d, along, a.d, fours);
        for (int l = lane; l < length; l += WARP) dlogits[l] = probabilities[l] * (dlogits[l] - mean);
    });
}

// dsequence[l] = sum over the pairs of its sequence and over heads of a dcontext + dlogit u, in the pairs' order; with
// `adds` added to what is there.
// A block per sequence and SEQUENCE_ROWS of its rows, of which each warp has a quarter in registers; the vectors of SOURCES
// pairs and heads at a time pass through shared memory. Members of group s are the pairs of sequence s.
// Blocks: the parts of each sequence, as many as the longest has.
struct AttendSequence {
    Pairs pairs;
    const uint32_t* group_offsets;
    const uint32_t* members;
    const float* u;
    const float* dcontext;
    const float* probabilities;
    const float* dlogits;
    float* dsequence;
    int heads, d, adds;
    // Of the longest sequence.
    int parts;
};

constexpr int SEQUENCE_ROWS = 32, SOURCES = 16;

extern "C" __global__ void __launch_bounds__(128)
    attend_sequence(const __grid_constant__ Instances<AttendSequence, 16> all) {
    constexpr int WARPS = 4, MINE = SEQUENCE_ROWS / WARPS;
    __shared__ alignas(16) float dcontexts[SOURCES][WARP * LANE_VALUES], us[SOURCES][WARP * LANE_VALUES];
    __shared__ float probabilities[SOURCES][SEQUENCE_ROWS], dlogits[SOURCES][SEQUENCE_ROWS];
    each_instance(all, [&](const AttendSequence& a, int block) {
        int sequence = block / a.parts;
        uint32_t start = a.pairs.offsets[sequence], length = a.pairs.offsets[sequence + 1] - start;
        uint32_t first = block % a.parts * SEQUENCE_ROWS;
        if (first >= length) return;
        int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        int rows = min(length - first, static_cast<uint32_t>(SEQUENCE_ROWS)), mine = warp * MINE;
        bool fours = by_fours(a.d);
        float* to = a.dsequence + static_cast<int64_t>(start + first + mine) * a.d;
        float sums[MINE][LANE_VALUES] = {};
#pragma unroll
        for (int r = 0; r < MINE; ++r)
            if (a.adds && mine + r < rows) load_row(sums[r], to + r * a.d, a.d, fours);
        int sources = (a.group_offsets[sequence + 1] - a.group_offsets[sequence]) * a.heads;
        for (int chunk = 0; chunk < sources; chunk += SOURCES) {
            int count = min(SOURCES, sources - chunk);
            for (int s = warp; s < count; s += WARPS) {
                int head = (chunk + s) % a.heads;
                uint32_t pair = a.members[a.group_offsets[sequence] + (chunk + s) / a.heads];
                float vector[LANE_VALUES];
                load_row(vector, a.dcontext + (static_cast<int64_t>(pair) * a.heads + head) * a.d, a.d, fours);
                share_row(dcontexts[s], vector, fours);
                load_row(vector, a.u + (static_cast<int64_t>(a.pairs.left[pair]) * a.heads + head) * a.d, a.d, fours);
                share_row(us[s], vector, fours);
                int64_t place = static_cast<int64_t>(a.heads) * a.pairs.starts[pair];
                place += head * static_cast<int64_t>(length) + first + lane;
                probabilities[s][lane] = lane < rows ? a.probabilities[place] : 0.0f;
                dlogits[s][lane] = lane < rows ? a.dlogits[place] : 0.0f;
            }
            __syncthreads();
            for (int s = 0; s < count; ++s) {
                float dcontext[LANE_VALUES], u[LANE_VALUES];
                load_row(dcontext, dcontexts[s], a.d, fours);
                load_row(u, us[s], a.d, fours);
#pragma unroll
                for (int r = 0; r < MINE; ++r) {
                    add_scaled(sums[r], probabilities[s][mine + r], dcontext);
                    add_scaled(sums[r], dlogits[s][mine + r], u);
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int r = 0; r < MINE; ++r)
            if (mine + r < rows) store_row(to + r * a.d, sums[r], a.d, fours);
    });
}
