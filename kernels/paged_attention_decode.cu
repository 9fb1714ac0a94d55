// Causal attention of single queries over cached keys and values, bound by reading these: decoding, and any query in f32.
//
// A block takes SPLIT pages of one sequence and one key head, whose group of query heads it serves together, so that each key
// and value is read once per group: logits of all keys into shared memory, softmax over them, values added up. What the
// blocks of a query leave, the last of them to end puts together, in the order of positions: which it is, a count in memory says,
// and no block waits for another. Splits lie at fixed positions of a sequence: a row has the same bits whatever stands beside it
// and however long the launch's grid is. Deterministic.
// queries (rows, heads, d), pages as decoder.cuh describes them, those of sequences[row] from pages[... * page_stride] on; out
// (rows, heads * size); partial (rows, heads, splits, d) f32, peaks (rows, heads, splits, 2): maximum and sum; ended (rows,
// kv_heads * groups): zeros, which are zeros again behind it. Grid: (splits, kv_heads * groups, rows); block 128; G query heads
// at a time, of which a group may need several. 16 bytes of a head per lane: d is 64 or D_MAX, so that the keys that a block reads
// at once divide a page.
// paged_attention_step_*: the same for one new row of each sequence, with what paged_attention_rope.cu does before it: each block
// turns the queries that it needs out of qkv, and the one whose pages have a place for the row its key and value, which it puts
// there. Rows of one sequence see each other's keys only across launches: for several use paged_attention_rope.
// Reference: src/ops/paged_attention/cpu.rs.
#include "paged_attention_rope.cuh"

struct Decode {
    Rope rope;                  // a step turns its queries itself; others find them turned
    const uint32_t* positions;  // of each row
    const uint32_t* sequences;  // of each row
    const Page* pages;
    float* partial;
    float* peaks;
    uint32_t* ended;
    void* out;
    int page_stride, splits;
    float scale;
    int padding;
};

constexpr int SPLIT = 2, KEYS = SPLIT * PAGE, WARPS = 4, D_MAX = 128;

// The query heads of a block, of one row.
struct Group {
    int64_t row;
    int kv_head, within, count, first_head, position;
    const Page* pages;  // of the row's sequence
};

// What a block leaves of its keys and values: partial and peaks.
template <typename T, int G, bool STEP>
__device__ inline void of_split(const Decode& a, const Group& b) {
    constexpr int EACH = PER_LOAD<T>;
    __shared__ float logits[G][KEYS];
    // What each warp found; of a step, until then, the turned queries of G heads, the key and the value.
    __shared__ union {
        float sums[WARPS][G][D_MAX + WARP];
        uint4 fresh[G + 2][D_MAX / EACH];
    } shared;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, split = blockIdx.x, d = a.rope.d;
    const Page* pages = b.pages + split * SPLIT;
    // The row's own place in a page, or none.
    auto own_slot = [&](int p) {
        int slot = b.position - pages[p].first;
        return STEP && slot >= 0 && slot < pages[p].count ? slot : -1;
    };
    if constexpr (STEP) {
        bool owns = false;
#pragma unroll
        for (int p = 0; p < SPLIT; ++p) owns |= own_slot(p) >= 0;
        int heads = owns ? b.count + 2 : b.count;
        for (int i = threadIdx.x; i < heads * d / 2; i += WARPS * WARP) {
            int h = i / (d / 2), pair = i % (d / 2);
            int head = h < b.count ? b.first_head + h : a.rope.heads + (h - b.count) * a.rope.kv_heads + b.kv_head;
            int place = h < b.count ? h : G + h - b.count;
            put_turned(a.rope, b.row, head, pair, reinterpret_cast<T*>(shared.fresh[place]));
            // Of the blocks that share a key, one puts it there.
            if (h >= b.count && b.within == 0) put_turned(a.rope, b.row, head, pair, slot_of<T>(a.rope, b.row, head));
        }
        __syncthreads();
    }
    // This head's keys of a page, or its values, and how many of them the row sees. Pages are read where they are needed: an
    // array of them that a key's number indexes would lie in local memory.
    auto of_page = [&](int p, int64_t offset, int& there) {
        Page page = pages[p];
        there = min(page.count, b.position + 1 - page.first);
        return reinterpret_cast<const T*>(page.at + a.rope.layer + offset) + static_cast<int64_t>(b.kv_head) * PAGE * d;
    };
    // 16 bytes of a key (0) or value (1): of a step's own not from the page, where it may not have arrived.
    auto load = [&](const T* from, int slot, int there, int own, int part) {
        if (STEP && slot == own) return shared.fresh[G + part][lane % (d / EACH)];
        return slot < there ? load_written_once(from + slot * d) : make_uint4(0, 0, 0, 0);
    };
    // `lanes` lanes share a key; a warp reads `at_once` of them at a time.
    int lanes = d / EACH, at_once = WARP / lanes, mine = lane % lanes * EACH, first_slot = warp * at_once + lane / lanes;
    {
        float q[G][EACH];
#pragma unroll
        for (int g = 0; g < G; ++g) {
            int of_group = min(g, b.count - 1);
            if constexpr (STEP)
                unpack_load<T>(q[g], shared.fresh[of_group][lane % lanes]);
            else
                load_values(q[g], static_cast<const T*>(a.rope.queries) + (b.row * a.rope.heads + b.first_head + of_group) * d + mine);
        }
#pragma unroll
        for (int p = 0; p < SPLIT; ++p) {
            int there, own = own_slot(p);
            const T* keys = of_page(p, 0, there) + mine;
#pragma unroll 4
            for (int slot = first_slot; slot < PAGE; slot += WARPS * at_once) {
                bool seen = slot < there;
                float k[EACH];
                unpack_load<T>(k, load(keys, slot, there, own, 0));
#pragma unroll
                for (int g = 0; g < G; ++g) {
                    float dot = 0;
#pragma unroll
                    for (int e = 0; e < EACH; ++e) dot = fmaf(q[g][e], k[e], dot);
                    for (int offset = lanes / 2; offset > 0; offset /= 2)
                        dot += __shfl_xor_sync(ALL_LANES, dot, offset);
                    if (mine == 0) logits[g][p * PAGE + slot] = seen ? dot * a.scale : -INFINITY;
                }
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int g = warp; g < G; g += WARPS) {
        float max = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < KEYS / WARP; ++i) max = fmaxf(max, logits[g][i * WARP + lane]);
        max = warp_max(max);
#pragma unroll
        for (int i = 0; i < KEYS / WARP; ++i) {
            float& weight = logits[g][i * WARP + lane];
            weight = expf(weight - max);
            sum += weight;
        }
        sum = warp_sum(sum);
        if (lane == 0 && g < b.count) {
            float* peak = a.peaks + ((b.row * a.rope.heads + b.first_head + g) * a.splits + split) * 2;
            peak[0] = max;
            peak[1] = sum;
        }
    }
    __syncthreads();
    // Value e of all lanes, then the next: with this stride neither writing nor reading meets in a bank.
    auto place = [&](int e, int lane_of_row) { return e * (lanes + WARP / EACH) + lane_of_row; };
    float out[G][EACH] = {};
#pragma unroll
    for (int p = 0; p < SPLIT; ++p) {
        int there, own = own_slot(p);
        const T* values = of_page(p, a.rope.values, there) + mine;
#pragma unroll 4
        for (int slot = first_slot; slot < PAGE; slot += WARPS * at_once) {
            float v[EACH];
            unpack_load<T>(v, load(values, slot, there, own, 1));
#pragma unroll
            for (int g = 0; g < G; ++g)
#pragma unroll
                for (int e = 0; e < EACH; ++e) out[g][e] = fmaf(logits[g][p * PAGE + slot], v[e], out[g][e]);
        }
    }
    if (STEP) __syncthreads();
#pragma unroll
    for (int g = 0; g < G; ++g)
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
            float sum = out[g][e];
            for (int offset = lanes; offset < WARP; offset *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
            if (lane < lanes) shared.sums[warp][g][place(e, lane)] = sum;
        }
    __syncthreads();
    for (int i = threadIdx.x; i < b.count * d; i += WARPS * WARP) {
        int g = i / d, column = i % d;
        float sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += shared.sums[w][g][place(column % EACH, column / EACH)];
        a.partial[((b.row * a.rope.heads + b.first_head + g) * a.splits + split) * d + column] = sum;
    }
}

// out = the parts of each query, weighted: two columns of a head by each thread in turn. Other blocks wrote them in this launch.
template <typename T>
__device__ inline void combine(const Decode& a, const Group& b) {
    int half = a.rope.d / 2, splits = 0;
    while (splits < a.splits && b.pages[splits * SPLIT].first <= b.position) ++splits;
    for (int i = threadIdx.x; i < b.count * half; i += WARPS * WARP) {
        int64_t head = b.row * a.rope.heads + b.first_head + i / half;
        int column = i % half * 2;
        const auto* peaks = reinterpret_cast<const float2*>(a.peaks) + head * a.splits;
        const auto* partial = reinterpret_cast<const float2*>(a.partial + head * a.splits * a.rope.d + column);
        float max = -INFINITY, sum = 0, low = 0, high = 0;
        for (int s = 0; s < splits; ++s) max = fmaxf(max, __ldcg(peaks + s).x);
        for (int s = 0; s < splits; ++s) {
            float2 peak = __ldcg(peaks + s), part = __ldcg(partial + s * half);
            float weight = expf(peak.x - max);
            sum = fmaf(weight, peak.y, sum);
            low = fmaf(weight, part.x, low);
            high = fmaf(weight, part.y, high);
        }
        // The size is even: both are there or neither.
        if (column >= a.rope.size) continue;
        T* out = static_cast<T*>(a.out) + head * a.rope.size + column;
        out[0] = from_float<T>(low / sum);
        out[1] = from_float<T>(high / sum);
    }
}

template <typename T, int G, bool STEP>
__device__ inline void decode(const Decode& a) {
    await_earlier();
    int group = a.rope.heads / a.rope.kv_heads, per_kv_head = (group + G - 1) / G;
    Group b;
    b.row = blockIdx.z;
    b.kv_head = blockIdx.y / per_kv_head, b.within = blockIdx.y % per_kv_head * G;
    b.count = min(G, group - b.within), b.first_head = b.kv_head * group + b.within;
    b.position = a.positions[b.row];
    b.pages = a.pages + static_cast<int64_t>(a.sequences[b.row]) * a.page_stride;
    // Pages begin at ascending positions; the table ends with pages that begin beyond any.
    if (b.pages[blockIdx.x * SPLIT].first <= b.position) of_split<T, G, STEP>(a, b);
    __threadfence();
    __syncthreads();
    bool last = false;
    if (threadIdx.x == 0) {
        uint32_t* ended = a.ended + b.row * gridDim.y + blockIdx.y;
        last = atomicAdd(ended, 1) + 1 == gridDim.x;
        if (last) *ended = 0;
        __threadfence();
    }
    if (__syncthreads_or(last)) combine<T>(a, b);
}

// Blocks of a multiprocessor: as many as shared memory lets be, or some fewer, so that nothing is spilled for more.
#define OF_GROUPS(T, STEP, name)                                                                                       \
    extern "C" __global__ void __launch_bounds__(128, 12) paged_attention_##name##_1(Decode a) { decode<T, 1, STEP>(a); } \
    extern "C" __global__ void __launch_bounds__(128, 6) paged_attention_##name##_4(Decode a) { decode<T, 4, STEP>(a); }  \
    extern "C" __global__ void __launch_bounds__(128, 4) paged_attention_##name##_8(Decode a) { decode<T, 8, STEP>(a); }

// Several rows of a sequence are attended one by one in f32 alone; of other types tensor cores take them.
OF_GROUPS(float, false, decode_f32)
OF_GROUPS(float, true, step_f32)
OF_GROUPS(__nv_bfloat16, true, step_bf16)
OF_GROUPS(__half, true, step_f16)
