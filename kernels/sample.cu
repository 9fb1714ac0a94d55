// Choosing the next token of each sequence where its logits lie, so that four bytes go to the host.
//
// Greedy, or drawn: weights floor(2^40 e) of e = exp((logit - largest) * sharpness) are integers, so that sums of them do not
// depend on their order; of the likeliest tokens (of equal ones the lower) the fewest are kept whose weights make top_p of all,
// and of these, in the order of their numbers, the one is chosen at place number * kept / 2^64. Reference, with the same
// token for the same logits: src/device/cpu/sampling.rs.
// logits (rows, vocabulary) f32, of any size below 2^31; sample_choose leaves e in their place. peaks (rows, parts) of PART
// values each. draws (rows). out (rows) u32,
// which may lie in the host's memory.
// sample_peaks: grid (parts, rows), block 256: the largest of a part with its number, of equal ones the first; NaN is none.
// sample_choose: grid rows, block 1024, 8.5 KB static shared memory: a greedy row reads its peaks alone; a drawn one is read once
// for e, thrice for the weight of the last kept token (its bits found from the highest down, by weights added up in 1024 bins),
// twice for the tokens at the two places. Integer atomics in shared memory only. Deterministic.
// sample_gather: out (rows, count) = logits[row][tokens[j]]. Grid: (count / 128, rows), block 128. Reference: src/ops/sample/mod.rs.
#include "early.cuh"

struct __align__(8) Peak {
    float value;
    uint32_t token;
};

struct Peaks {
    const float* logits;
    Peak* peaks;
    int vocabulary, parts;
};

struct Draw {
    uint64_t number;
    float sharpness;  // 1 / temperature; 0: greedy
    float top_p;
};

struct Choose {
    float* logits;
    const Peak* peaks;
    const Draw* draws;
    uint32_t* out;
    int vocabulary, parts;
};

constexpr int PART = 4096, PEAK_THREADS = 256, THREADS = 1024, WARPS = THREADS / WARP, BINS = 1024;
static_assert(WARPS == WARP, "`find` has a lane for each warp's sum");

// As atomicAdd takes it.
using Mass = unsigned long long;

__device__ inline Peak no_peak() { return {-INFINITY, 0}; }

__device__ inline Peak higher(Peak a, Peak b) {
    return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

__device__ inline Peak warp_peak(Peak x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        x = higher(x, {__shfl_xor_sync(ALL_LANES, x.value, offset), __shfl_xor_sync(ALL_LANES, x.token, offset)});
    return x;
}

// The highest of the block's peaks, in every thread.
template <int COUNT>
__device__ inline Peak block_peak(Peak mine) {
    __shared__ Peak peaks[COUNT];
    int lane = threadIdx.x % WARP;
    mine = warp_peak(mine);
    if (lane == 0) peaks[threadIdx.x / WARP] = mine;
    __syncthreads();
    return warp_peak(lane < COUNT ? peaks[lane] : no_peak());
}

extern "C" __global__ void __launch_bounds__(PEAK_THREADS) sample_peaks(Peaks p) {
    await_earlier();
    const float* logits = p.logits + static_cast<int64_t>(blockIdx.y) * p.vocabulary;
    int first = blockIdx.x * PART, end = min(first + PART, p.vocabulary);
    Peak mine = no_peak();
#pragma unroll 4
    for (int i = first + threadIdx.x; i < end; i += PEAK_THREADS) {
        float value = logits[i];
        if (value > mine.value) mine = {value, static_cast<uint32_t>(i)};
    }
    mine = block_peak<PEAK_THREADS / WARP>(mine);
    if (threadIdx.x == 0) p.peaks[static_cast<int64_t>(blockIdx.y) * p.parts + blockIdx.x] = mine;
}

// e^z of z <= 0 by the operations of src/device/cpu/vector/mod.rs, none of them fused further; 0 where no weight is left (and of
// NaN). There 2^n comes in two factors, here n is above -42: both are exact.
__device__ inline float exponential(float z) {
    constexpr float ROUND = 12582912.0f;
    if (!(z >= -28.0f)) return 0.0f;
    float shifted = __fmaf_rn(z, 1.44269504f, ROUND), n = __fsub_rn(shifted, ROUND);
    float r = __fmaf_rn(n, -0.6933594f, z);
    r = __fmaf_rn(n, 2.1219444e-4f, r);
    float p = 1.9875691e-4f;
    p = __fmaf_rn(p, r, 1.3982e-3f);
    p = __fmaf_rn(p, r, 8.333452e-3f);
    p = __fmaf_rn(p, r, 4.1665796e-2f);
    p = __fmaf_rn(p, r, 0.16666666f);
    p = __fmaf_rn(p, r, 0.5f);
    p = __fadd_rn(__fmaf_rn(__fmul_rn(p, r), r, r), 1.0f);
    return __fmul_rn(p, __int_as_float((__float_as_int(shifted) - __float_as_int(ROUND) + 127) << 23));
}

__device__ inline Mass weight(float e) { return static_cast<Mass>(__fmul_rn(e, 1099511627776.0f)); }

// Its bits, from 0 at the least e that weighs anything to 40 * 2^23 at 1, in the order of e; below, it is above all these.
__device__ inline uint32_t code(float e) { return __float_as_uint(e) - 0x2b800000u; }

struct Place {
    int index;
    Mass rest;
};

// Where masses(0), masses(1), ... of `length` reach beyond `at`, which is less than their sum: the first index up to and with
// which they add up to more, and what of `at` those before it leave. Each warp adds up a piece of the range; the piece with
// the place is the next range. The same in every thread; begins and ends in step.
template <typename Masses>
__device__ inline Place find(Masses masses, int length, Mass at) {
    __shared__ Mass sums[WARPS];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, first = 0, end = length;
    while (end - first > 1) {
        int piece = (end - first + WARPS - 1) / WARPS, start = first + warp * piece;
        Mass sum = 0;
#pragma unroll 4
        for (int i = start + lane; i < min(start + piece, end); i += WARP) sum += masses(i);
        for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
        if (lane == 0) sums[warp] = sum;
        __syncthreads();
        Mass own = sums[lane], upto = own;
        for (int offset = 1; offset < WARP; offset *= 2) {
            Mass before = __shfl_up_sync(ALL_LANES, upto, offset);
            if (lane >= offset) upto += before;
        }
        int chosen = __ffs(__ballot_sync(ALL_LANES, upto > at)) - 1;
        at -= __shfl_sync(ALL_LANES, upto - own, chosen);
        first += chosen * piece;
        end = min(first + piece, end);
        __syncthreads();
    }
    return {first, at};
}

// Draws a token of a row, whose logits become e.
__device__ inline uint32_t drawn(float* row, int vocabulary, const Peak& peak, const Draw& draw) {
    __shared__ Mass bins[BINS];
    __shared__ Mass all;
    if (threadIdx.x == 0) all = 0;
    __syncthreads();
    Mass total = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
        float e = exponential(__fmul_rn(__fsub_rn(row[i], peak.value), draw.sharpness));
        row[i] = e;
        total += weight(e);
    }
    for (int offset = WARP / 2; offset > 0; offset /= 2) total += __shfl_xor_sync(ALL_LANES, total, offset);
    if (threadIdx.x % WARP == 0) atomicAdd(&all, total);
    __syncthreads();
    total = all;
    // No logit is finite.
    if (total == 0) return peak.token;
    Mass least = min(__double2ull_ru(__dmul_rn(draw.top_p, __ull2double_rn(total))), total), kept = total;
    // Kept is what has a code above `low`, and what has this one and a number up to `last`.
    uint32_t low = 0;
    int last = vocabulary;
    if (least < total) {
        // From the likeliest down, the place that makes `least`.
        Mass at = least - 1;
        uint32_t span = 1u << 30;
        for (int shift = 19;; shift = shift == 19 ? 9 : 0) {
            for (int bin = threadIdx.x; bin < BINS; bin += THREADS) bins[bin] = 0;
            __syncthreads();
            for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
                float e = row[i];
                uint32_t above = code(e) - low;
                if (above < span) atomicAdd(&bins[above >> shift], weight(e));
            }
            __syncthreads();
            Place place = find([&](int i) { return bins[BINS - 1 - i]; }, BINS, at);
            low += static_cast<uint32_t>(BINS - 1 - place.index) << shift;
            at = place.rest;
            span = 1u << shift;
            if (shift == 0) break;
        }
        Mass each = weight(__uint_as_float(low + 0x2b800000u)), before = at / each;
        last = find([&](int i) { return static_cast<Mass>(code(row[i]) == low); }, vocabulary, before).index;
        kept = least - 1 - at + (before + 1) * each;
    }
    auto masses = [&](int i) {
        float e = row[i];
        return code(e) > low || (code(e) == low && i <= last) ? weight(e) : 0;
    };
    return find(masses, vocabulary, __umul64hi(draw.number, kept)).index;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) sample_choose(Choose c) {
    await_earlier();
    int64_t row = blockIdx.x;
    Peak peak = no_peak();
    for (int part = threadIdx.x; part < c.parts; part += THREADS) peak = higher(peak, c.peaks[row * c.parts + part]);
    peak = block_peak<WARPS>(peak);
    Draw draw = c.draws[row];
    bool greedy = draw.sharpness == 0.0f;
    uint32_t token = greedy ? peak.token : drawn(c.logits + row * c.vocabulary, c.vocabulary, peak, draw);
    if (threadIdx.x == 0) c.out[row] = token;
}

struct Gather {
    const float* logits;
    const uint32_t* tokens;
    float* out;
    int vocabulary, count;
};

extern "C" __global__ void __launch_bounds__(128) sample_gather(Gather g) {
    int j = blockIdx.x * 128 + threadIdx.x;
    if (j >= g.count) return;
    g.out[static_cast<int64_t>(blockIdx.y) * g.count + j] =
        g.logits[static_cast<int64_t>(blockIdx.y) * g.vocabulary + g.tokens[j]];
}
