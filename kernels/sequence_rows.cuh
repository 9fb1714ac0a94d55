// The gradients of a sequence's rows that attention over it asks for. A block of four warps has SEQUENCE_ROWS rows, of which
// each warp holds a quarter in registers, N values to a lane; the vectors of SOURCES pairs and heads at a time pass through
// shared memory.
#pragma once

#include "warp_row.cuh"

constexpr int SEQUENCE_ROWS = 32, SEQUENCE_WARPS = 4, WARP_ROWS = SEQUENCE_ROWS / SEQUENCE_WARPS, SOURCES = 8;

// What attention leaves for them. Members of group s are the pairs of sequence s; probabilities and dlogits of pair p lie at
// heads * starts[p] (heads, length).
struct AttendedRows {
    const uint32_t* left;
    const uint32_t* starts;
    const uint32_t* group_offsets;
    const uint32_t* members;
    const float* u;         // (queries, heads, d)
    const float* dcontext;  // (pairs, heads, d)
    const float* probabilities;
    const float* dlogits;
    int heads, padding;
};

template <int N>
struct SourceVectors {
    alignas(16) float dcontexts[SOURCES][WARP * N];
    alignas(16) float us[SOURCES][WARP * N];
    float probabilities[SOURCES][SEQUENCE_ROWS], dlogits[SOURCES][SEQUENCE_ROWS];
};

// sums += sum over the pairs of a sequence and over heads of a dcontext + dlogit u, in the pairs' order, for the warp's part of
// the rows from number `first` of the sequence on.
template <int N>
__device__ inline void add_attended(float (&sums)[WARP_ROWS][N], SourceVectors<N>& shared, const AttendedRows& a,
                                    int sequence, uint32_t length, uint32_t first, int d) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, mine = warp * WARP_ROWS;
    int rows = min(length - first, static_cast<uint32_t>(SEQUENCE_ROWS));
    bool fours = by_fours(d);
    int sources = (a.group_offsets[sequence + 1] - a.group_offsets[sequence]) * a.heads;
    for (int chunk = 0; chunk < sources; chunk += SOURCES) {
        int count = min(SOURCES, sources - chunk);
        for (int s = warp; s < count; s += SEQUENCE_WARPS) {
            int head = (chunk + s) % a.heads;
            uint32_t pair = a.members[a.group_offsets[sequence] + (chunk + s) / a.heads];
            float vector[N];
            load_row(vector, a.dcontext + (static_cast<int64_t>(pair) * a.heads + head) * d, d, fours);
            share_row(shared.dcontexts[s], vector, fours);
            load_row(vector, a.u + (static_cast<int64_t>(a.left[pair]) * a.heads + head) * d, d, fours);
            share_row(shared.us[s], vector, fours);
            int64_t place = static_cast<int64_t>(a.heads) * a.starts[pair];
            place += head * static_cast<int64_t>(length) + first + lane;
            shared.probabilities[s][lane] = lane < rows ? a.probabilities[place] : 0.0f;
            shared.dlogits[s][lane] = lane < rows ? a.dlogits[place] : 0.0f;
        }
        __syncthreads();
        for (int s = 0; s < count; ++s) {
            float dcontext[N], u[N];
            load_row(dcontext, shared.dcontexts[s], d, fours);
            load_row(u, shared.us[s], d, fours);
#pragma unroll
            for (int r = 0; r < WARP_ROWS; ++r) {
                add_scaled(sums[r], shared.probabilities[s][mine + r], dcontext);
                add_scaled(sums[r], shared.dlogits[s][mine + r], u);
            }
        }
        __syncthreads();
    }
}
