// Softmax attention of pairs of sequences, forward and backward: the rows of query sequence left[p] attend to those of
// key sequence right[p], for each pair p and head: out = softmax(scale * Q K^T) V. Causal, row i sees keys 0 to i alone.
//
// q (rows of all query sequences, d), k and v (rows of all key sequences, d), d = heads * head, head <= 256; out (rows
// of all pairs, d), the rows of pair p from out_offsets[p] on; lse, delta (rows of all pairs, heads). Sequences lie
// end to end, offsets say where. What softmax gave is computed again in backward from lse, the logarithm of each row's
// sum (Dao et al., 2022); a query or a key sums over its pairs in their order, so that the same input gives the same
// bits. Grids: (sequences or pairs, parts of the longest of four rows, heads), a warp per row and head; no shared
// memory. Deterministic. Reference: src/ops/attention/differentiable/cpu.rs.
#include "warp_row.cuh"

struct AttentionPairs {
    const uint32_t* left;
    const uint32_t* right;
    const uint32_t* query_offsets;
    const uint32_t* key_offsets;
    const uint32_t* out_offsets;
    int heads, head;
    float scale;
    int causal;

    // The key after the last one that a row of the queries sees of those of a sequence.
    __device__ uint32_t keys_end(uint32_t sequence, uint32_t row) const {
        return causal ? key_offsets[sequence] + row + 1 : key_offsets[sequence + 1];
    }

    // Of a row of d values, or of one value per head.
    __device__ int64_t values(uint32_t row) const {
        return (static_cast<int64_t>(row) * heads + blockIdx.z) * head;
    }
    __device__ int64_t value(uint32_t row) const { return static_cast<int64_t>(row) * heads + blockIdx.z; }
};

// The row of a sequence that this warp has, beyond its end for the warps that have none.
__device__ inline uint32_t row_of_warp() { return blockIdx.y * 4 + threadIdx.x / WARP; }

// to = sum, with `adds` added to what is there.
__device__ inline void store_sum(float* to, float (&sum)[LANE_VALUES], int head, bool fours, int adds) {
    float before[LANE_VALUES];
    load_row(before, to, adds ? head : 0, fours);
    add_scaled(sum, 1.0f, before);
    store_row(to, sum, head, fours);
}

// One pass over the keys, whose sums are rescaled whenever the maximum rises. Grid: (pairs, ...) of query rows.
struct AttentionPairsForward {
    AttentionPairs pairs;
    const float* q;
    const float* k;
    const float* v;
    float* out;
    float* lse;
};

extern "C" __global__ void __launch_bounds__(128) attention_pairs_forward(AttentionPairsForward a) {
    const AttentionPairs& pairs = a.pairs;
    uint32_t left = pairs.left[blockIdx.x], right = pairs.right[blockIdx.x], row = row_of_warp();
    uint32_t query = pairs.query_offsets[left] + row;
    if (query >= pairs.query_offsets[left + 1]) return;
    bool fours = by_fours(pairs.head);
    float q[LANE_VALUES], x[LANE_VALUES], out[LANE_VALUES] = {}, highest = -INFINITY, total = 0;
    load_row(q, a.q + pairs.values(query), pairs.head, fours);
    for (uint32_t key = pairs.key_offsets[right]; key < pairs.keys_end(right, row); ++key) {
        load_row(x, a.k + pairs.values(key), pairs.head, fours);
        float logit = pairs.scale * dot(q, x), higher = fmaxf(highest, logit);
        float keep = expf(highest - higher), weight = expf(logit - higher);
        load_row(x, a.v + pairs.values(key), pairs.head, fours);
        total = total * keep + weight;
#pragma unroll
        for (int i = 0; i < LANE_VALUES; ++i) out[i] = out[i] * keep + weight * x[i];
        highest = higher;
    }
#pragma unroll
    for (int i = 0; i < LANE_VALUES; ++i) out[i] /= total;
    uint32_t to = pairs.out_offsets[blockIdx.x] + row;
    store_row(a.out + pairs.values(to), out, pairs.head, fours);
    if (threadIdx.x % WARP == 0) a.lse[pairs.value(to)] = highest + logf(total);
}

struct AttentionPairsBackward {
    AttentionPairs pairs;
    // The pairs of item i are members[group_offsets[i]] and so on: of a query sequence, or of a key sequence.
    const uint32_t* group_offsets;
    const uint32_t* members;
    const float* q;
    const float* k;
    const float* v;
    const float* out;
    const float* dout;
    const float* lse;
    float* delta;
    // Those of v are beside those of k, either may be null.
    float* dto;
    float* dv;
    int adds, dv_adds;
};

// delta = dout . out, the mean of the logits' gradients under softmax. Grid: (pairs, ...) of query rows.
extern "C" __global__ void __launch_bounds__(128) attention_pairs_delta(AttentionPairsBackward a) {
    const AttentionPairs& pairs = a.pairs;
    uint32_t row = pairs.out_offsets[blockIdx.x] + row_of_warp();
    if (row >= pairs.out_offsets[blockIdx.x + 1]) return;
    bool fours = by_fours(pairs.head);
    float out[LANE_VALUES], dout[LANE_VALUES];
    load_row(out, a.out + pairs.values(row), pairs.head, fours);
    load_row(dout, a.dout + pairs.values(row), pairs.head, fours);
    float delta = dot(out, dout);
    if (threadIdx.x % WARP == 0) a.delta[pairs.value(row)] = delta;
}

// dq = scale * sum over the pairs and their keys of dlogit k. Grid: (query sequences, ...) of their rows.
extern "C" __global__ void __launch_bounds__(128) attention_pairs_queries(AttentionPairsBackward a) {
    const AttentionPairs& pairs = a.pairs;
    uint32_t row = row_of_warp(), query = pairs.query_offsets[blockIdx.x] + row;
    if (query >= pairs.query_offsets[blockIdx.x + 1]) return;
    bool fours = by_fours(pairs.head);
    float q[LANE_VALUES], k[LANE_VALUES], v[LANE_VALUES], dout[LANE_VALUES], dq[LANE_VALUES] = {};
    load_row(q, a.q + pairs.values(query), pairs.head, fours);
    for (uint32_t at = a.group_offsets[blockIdx.x]; at < a.group_offsets[blockIdx.x + 1]; ++at) {
        uint32_t pair = a.members[at], from = pairs.out_offsets[pair] + row, right = pairs.right[pair];
        float lse = a.lse[pairs.value(from)], delta = a.delta[pairs.value(from)];
        load_row(dout, a.dout + pairs.values(from), pairs.head, fours);
        for (uint32_t key = pairs.key_offsets[right]; key < pairs.keys_end(right, row); ++key) {
            load_row(k, a.k + pairs.values(key), pairs.head, fours);
            load_row(v, a.v + pairs.values(key), pairs.head, fours);
            float weight = expf(pairs.scale * dot(q, k) - lse);
            add_scaled(dq, pairs.scale * weight * (dot(dout, v) - delta), k);
        }
    }
    store_sum(a.dto + pairs.values(query), dq, pairs.head, fours, a.adds);
}

// dk = scale * sum over the pairs and their queries of dlogit q, dv = the sum of weight dout. Grid: (key sequences,
// ...) of their rows.
extern "C" __global__ void __launch_bounds__(128) attention_pairs_keys(AttentionPairsBackward a) {
    const AttentionPairs& pairs = a.pairs;
    uint32_t row = row_of_warp(), key = pairs.key_offsets[blockIdx.x] + row, first = pairs.causal ? row : 0;
    if (key >= pairs.key_offsets[blockIdx.x + 1]) return;
    bool fours = by_fours(pairs.head);
    float q[LANE_VALUES], k[LANE_VALUES], v[LANE_VALUES], dout[LANE_VALUES];
    float dk[LANE_VALUES] = {}, dv[LANE_VALUES] = {};
    load_row(k, a.k + pairs.values(key), pairs.head, fours);
    load_row(v, a.v + pairs.values(key), pairs.head, fours);
    for (uint32_t at = a.group_offsets[blockIdx.x]; at < a.group_offsets[blockIdx.x + 1]; ++at) {
        uint32_t pair = a.members[at], left = pairs.left[pair], from = pairs.out_offsets[pair] + first;
        for (uint32_t query = pairs.query_offsets[left] + first; query < pairs.query_offsets[left + 1]; ++query, ++from) {
            load_row(q, a.q + pairs.values(query), pairs.head, fours);
            load_row(dout, a.dout + pairs.values(from), pairs.head, fours);
            float weight = expf(pairs.scale * dot(q, k) - a.lse[pairs.value(from)]);
            add_scaled(dk, pairs.scale * weight * (dot(dout, v) - a.delta[pairs.value(from)]), q);
            add_scaled(dv, weight, dout);
        }
    }
    // One after the other: where keys are values, both are added to the same place.
    if (a.dto) store_sum(a.dto + pairs.values(key), dk, pairs.head, fours, a.adds);
    if (a.dv) store_sum(a.dv + pairs.values(key), dv, pairs.head, fours, a.dv_adds);
}
