// One query vector attends to a sequence, with neither keys nor values. Reference: src/ops/cross_attention/cpu.rs,
// src/ops/cross_attention/mod.rs.
//
// Pair p has query left[p] with logit vectors u (queries, heads, d) and sequence right[p]; its logits and probabilities
// lie at heads * starts[p] (heads, length). d <= 256.
//
// Rows of sequences are f32, or f16 before the scale `gamma` and shift `beta` of their columns, gamma x + beta. A shift gives
// all logits of a pair the same, which softmax ignores, and the scale goes to the vectors that rows are multiplied with.
#include "sequence_rows.cuh"

struct Pairs {
    const uint32_t* left;
    const uint32_t* right;
    const uint32_t* offsets;  // of the sequences
    const uint32_t* starts;   // of each pair's probabilities, if there were one head
};

// What a warp has: a pair with a head, the rows of the pair's sequence, and where its logits lie.
struct PairAndHead {
    int pair, head, length;
    uint32_t first;
    int64_t logits;
};

__device__ inline PairAndHead pair_and_head(const Pairs& pairs, int work, int heads) {
    int pair = work / heads, head = work % heads;
    uint32_t first = pairs.offsets[pairs.right[pair]];
    int length = pairs.offsets[pairs.right[pair] + 1] - first;
    return {pair, head, length, first, static_cast<int64_t>(heads) * pairs.starts[pair] + head * length};
}

// Probabilities and contexts (pairs, heads, d). A warp per pair and head; one pass over the sequence, whose sums are
// rescaled whenever the maximum rises.
struct AttendForward {
    Pairs pairs;
    const float* u;
    const void* sequence;
    const float* gamma;
    const float* beta;
    float* probabilities;
    float* context;
    int count, heads, d, padding;
};

// x *= the scale of f16 rows.
template <typename T>
__device__ inline void apply_scale(float (&x)[LANE_VALUES], const float* gamma, int d, bool fours) {
    if constexpr (sizeof(T) == sizeof(__half)) {
        float scale[LANE_VALUES];
        load_row(scale, gamma, d, fours);
        multiply(x, scale);
    }
}

template <typename T>
__device__ inline void attend_forward(const AttendForward& a, int block) {
    int work = block * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (work >= a.count * a.heads) return;
    auto [pair, head, length, first, logits] = pair_and_head(a.pairs, work, a.heads);
    bool fours = by_fours(a.d);
    float u[LANE_VALUES], row[LANE_VALUES], context[LANE_VALUES] = {};
    load_row(u, a.u + (static_cast<int64_t>(a.pairs.left[pair]) * a.heads + head) * a.d, a.d, fours);
    apply_scale<T>(u, a.gamma, a.d, fours);
    float* probabilities = a.probabilities + logits;
    // Logits are kept until a lane each has one, and then stored at once.
    float max = -INFINITY, sum = 0, mine = 0;
    for (int l = 0; l < length; ++l) {
        load_row(row, static_cast<const T*>(a.sequence) + static_cast<int64_t>(first + l) * a.d, a.d, fours);
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
    apply_scale<T>(context, a.gamma, a.d, fours);
    if constexpr (sizeof(T) == sizeof(__half)) {
        load_row(row, a.beta, a.d, fours);
        add_scaled(context, 1.0f, row);
    }
    store_row(a.context + static_cast<int64_t>(work) * a.d, context, a.d, fours);
    for (int l = lane; l < length; l += WARP) probabilities[l] = expf(probabilities[l] - max) * share;
}

extern "C" __global__ void __launch_bounds__(128)
    attend_forward_f32(const __grid_constant__ Instances<AttendForward, 16> all) {
    each_instance(all, [](const AttendForward& a, int block) { attend_forward<float>(a, block); });
}
extern "C" __global__ void __launch_bounds__(128)
    attend_forward_f16(const __grid_constant__ Instances<AttendForward, 16> all) {
    each_instance(all, [](const AttendForward& a, int block) { attend_forward<__half>(a, block); });
}

// Gradients of the logits (as the probabilities lie) and of each pair's u (pairs, heads, d). A warp per pair and head.
struct AttendBackward {
    Pairs pairs;
    const void* sequence;
    const float* gamma;
    const float* probabilities;
    const float* dcontext;
    float* dlogits;
    float* du;
    int count, heads, d, padding;
};

template <typename T>
__device__ inline void attend_backward(const AttendBackward& a, int block) {
    int work = block * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (work >= a.count * a.heads) return;
    auto [pair, head, length, first, logits] = pair_and_head(a.pairs, work, a.heads);
    const float* probabilities = a.probabilities + logits;
    float* dlogits = a.dlogits + logits;
    bool fours = by_fours(a.d);
    float dcontext[LANE_VALUES], row[LANE_VALUES];
    load_row(dcontext, a.dcontext + static_cast<int64_t>(work) * a.d, a.d, fours);
    apply_scale<T>(dcontext, a.gamma, a.d, fours);
    // du = sum of a (da - mean) F = sum of a da F - mean (sum of a F), so that one pass is enough.
    float along[LANE_VALUES] = {}, context[LANE_VALUES] = {}, mean = 0, mine = 0;
    for (int l = 0; l < length; ++l) {
        load_row(row, static_cast<const T*>(a.sequence) + static_cast<int64_t>(first + l) * a.d, a.d, fours);
        float da = dot(dcontext, row), probability = probabilities[l];
        mean = fmaf(probability, da, mean);
        add_scaled(along, probability * da, row);
        add_scaled(context, probability, row);
        if (l % WARP == lane) mine = da;
        if (l % WARP == WARP - 1 || l + 1 == length)
            if (lane <= l % WARP) dlogits[l - l % WARP + lane] = mine;
    }
    add_scaled(along, -mean, context);
    apply_scale<T>(along, a.gamma, a.d, fours);
    store_row(a.du + static_cast<int64_t>(work) * a.d, along, a.d, fours);
    for (int l = lane; l < length; l += WARP) dlogits[l] = probabilities[l] * (dlogits[l] - mean);
}

extern "C" __global__ void __launch_bounds__(128)
    attend_backward_f32(const __grid_constant__ Instances<AttendBackward, 16> all) {
    each_instance(all, [](const AttendBackward& a, int block) { attend_backward<float>(a, block); });
}
extern "C" __global__ void __launch_bounds__(128)
    attend_backward_f16(const __grid_constant__ Instances<AttendBackward, 16> all) {
    each_instance(all, [](const AttendBackward& a, int block) { attend_backward<__half>(a, block); });
}

// dsequence[l] = sum over the pairs of its sequence and over heads of a dcontext + dlogit u, in the pairs' order; with
// `adds` added to what is there. Of sequences of f32.
// Blocks: the parts of each sequence (SEQUENCE_ROWS rows), as many as the longest has.
struct AttendSequence {
    AttendedRows attended;
    const uint32_t* offsets;  // of the sequences
    float* dsequence;
    int d, adds;
    // Of the longest sequence.
    int parts, padding;
};

template <int N>
__device__ inline void attend_sequence(const AttendSequence& a, int block) {
    __shared__ SourceVectors<N> shared;
    int sequence = block / a.parts;
    uint32_t start = a.offsets[sequence], length = a.offsets[sequence + 1] - start;
    uint32_t first = block % a.parts * SEQUENCE_ROWS;
    if (first >= length) return;
    int mine = threadIdx.x / WARP * WARP_ROWS, rows = min(length - first, static_cast<uint32_t>(SEQUENCE_ROWS));
    bool fours = by_fours(a.d);
    float* to = a.dsequence + (static_cast<int64_t>(start) + first + mine) * a.d;
    float sums[WARP_ROWS][N] = {};
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r)
        if (a.adds && mine + r < rows) load_row(sums[r], to + r * a.d, a.d, fours);
    add_attended(sums, shared, a.attended, sequence, length, first, a.d);
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r)
        if (mine + r < rows) store_row(to + r * a.d, sums[r], a.d, fours);
}

extern "C" __global__ void __launch_bounds__(128)
    attend_sequence_128(const __grid_constant__ Instances<AttendSequence, 16> all) {
    each_instance(all, [](const AttendSequence& a, int block) { attend_sequence<4>(a, block); });
}
// Three blocks a multiprocessor: ptxas' own choice for sm_86, four, spills.
extern "C" __global__ void __launch_bounds__(128, 3)
    attend_sequence_256(const __grid_constant__ Instances<AttendSequence, 16> all) {
    each_instance(all, [](const AttendSequence& a, int block) { attend_sequence<8>(a, block); });
}
