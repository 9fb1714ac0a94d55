// The k largest values of each row, with their numbers: exactly those that sorting would put first, of equal ones those with
// the lower numbers. -0 is less than 0; a value that is no number is as low as -infinity. Reference: src/ops/top_k/mod.rs.
//
// values (rows, length) f32 or, of a second round, candidates (rows, length) in the order of their numbers; out (rows, parts, k):
// of each PART of a row its k best, in the order of their numbers where they are equal, and behind them, if there are fewer,
// candidates that are none. 0 < k <= PART / 2, so that a round leaves fewer than it got; the last one has a single part.
//
// Grid: (length / PART, rows), block 512, 64 KB dynamic and 1 KB static shared memory. A value is read once: its key, whose
// order as an integer is that of the values, stays in shared memory, where the bits of the last key that counts are found 8 at
// a time from the highest down, by how many keys have which. Integer atomics in shared memory only. Deterministic.
#include "common.cuh"

// A value's key and its number; 0 and the largest number: none.
struct __align__(8) Candidate {
    uint32_t key, number;
};

struct TopK {
    const float* values;
    const Candidate* candidates;
    Candidate* out;
    int length, k;
};

constexpr int PART = 16384, THREADS = 512, WARPS = THREADS / WARP, BINS = 256, BITS = 8;
constexpr Candidate NONE = {0, 0xffffffffu};

__device__ inline uint32_t key_of(float value) {
    uint32_t bits = __float_as_uint(value != value ? -INFINITY : value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The `want`-th largest of the keys, and into `equal` how many that are equal to it are among the first `want`.
__device__ inline uint32_t last_key(const uint32_t* keys, int count, int want, int& equal) {
    __shared__ int bins[BINS];
    __shared__ int found[2];
    uint32_t last = 0;
    equal = want;
    for (int shift = 32 - BITS; shift >= 0; shift -= BITS) {
        for (int bin = threadIdx.x; bin < BINS; bin += THREADS) bins[bin] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < count; i += THREADS) {
            uint32_t differs = (keys[i] ^ last) >> shift;
            if (differs < BINS) atomicAdd(&bins[keys[i] >> shift & (BINS - 1)], 1);
        }
        __syncthreads();
        if (threadIdx.x < WARP) {
            // Each lane has eight bins, lane 0 the highest.
            constexpr int MINE = BINS / WARP;
            int highest = BINS - 1 - MINE * static_cast<int>(threadIdx.x), sum = 0;
            for (int bin = highest; bin > highest - MINE; --bin) sum += bins[bin];
            int up_to = sum;
            for (int offset = 1; offset < WARP; offset *= 2) {
                int more = __shfl_up_sync(ALL_LANES, up_to, offset);
                if (threadIdx.x >= offset) up_to += more;
            }
            int before = up_to - sum;
            if (before < equal && equal <= up_to) {
                int bin = highest;
                for (; before + bins[bin] < equal; --bin) before += bins[bin];
                found[0] = bin;
                found[1] = before;
            }
        }
        __syncthreads();
        last |= static_cast<uint32_t>(found[0]) << shift;
        equal -= found[1];
    }
    return last;
}

template <bool CANDIDATES>
__device__ inline void top_k(const TopK& p) {
    extern __shared__ uint32_t keys[];
    __shared__ int counts[WARPS];
    int first = blockIdx.x * PART, count = min(PART, p.length - first), want = min(p.k, count);
    int64_t at = static_cast<int64_t>(blockIdx.y) * p.length + first;
    Candidate* out = p.out + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * p.k;
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += THREADS)
        keys[i] = CANDIDATES ? p.candidates[at + i].key : key_of(p.values[at + i]);
    __syncthreads();
    int equal, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    uint32_t last = last_key(keys, count, want, equal);
    // Those that are larger come first, then the equal ones that there is room for: both in the order of their numbers. Counts of
    // both lie in one integer, of which each has 16 bits.
    int before = 0;
    for (int strip = 0; strip < count; strip += THREADS) {
        int i = strip + threadIdx.x;
        bool larger = i < count && keys[i] > last, same = i < count && keys[i] == last;
        uint32_t larger_lanes = __ballot_sync(ALL_LANES, larger), same_lanes = __ballot_sync(ALL_LANES, same);
        if (lane == 0) counts[warp] = __popc(larger_lanes) | __popc(same_lanes) << 16;
        __syncthreads();
        int mine = before;
        for (int other = 0; other < WARPS; ++other) {
            if (other < warp) mine += counts[other];
            before += counts[other];
        }
        __syncthreads();
        uint32_t earlier = (1u << lane) - 1;
        int place = (mine & 0xffff) + __popc(larger_lanes & earlier);
        int rank = (mine >> 16) + __popc(same_lanes & earlier);
        if (same) place = want - equal + rank;
        if (larger || (same && rank < equal))
            out[place] = CANDIDATES ? p.candidates[at + i] : Candidate{keys[i], static_cast<uint32_t>(first + i)};
    }
    for (int i = want + threadIdx.x; i < p.k; i += THREADS) out[i] = NONE;
}

extern "C" __global__ void __launch_bounds__(THREADS) top_k_of_values(TopK p) { top_k<false>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) top_k_of_candidates(TopK p) { top_k<true>(p); }
