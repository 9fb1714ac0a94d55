// Causal attention of single queries over cached keys and values, bound by reading these: decoding, and any query in f32.
//
// A block takes SPLIT pages of one sequence and one key head, whose group of query heads it serves together, so that each key
// and value is read once per group: logits of all keys into shared memory, softmax over them, values added up. What the
// blocks of a query leave, paged_attention_combine adds in the order of positions. Splits lie at fixed positions of a sequence:
// a row has the same bits whatever stands beside it and however long the launch's grid is. Deterministic.
// queries (rows, heads, d), pages as decoder.cuh describes them, those of sequences[row] from pages[... * page_stride] on;
// partial (rows, heads, splits, d) f32, peaks (rows, heads, splits, 2): maximum and sum. Grid: (splits, kv_heads * groups,
// rows); block 128; G query heads at a time, of which a group may need several. 16 bytes of a head per lane: d is 64 or
// D_MAX, so that the keys that a block reads at once divide a page. Reference: src/ops/paged_attention/cpu.rs.
#include "decoder.cuh"

struct Decode {
    const void* queries;
    const uint32_t* positions;  // of each row
    const uint32_t* sequences;  // of each row
    const Page* pages;
    float* partial;
    float* peaks;
    void* out;  // of paged_attention_combine
    int64_t layer, values;
    int page_stride, heads, kv_heads, size, d, splits;
    float scale;
    int padding;
};

constexpr int SPLIT = 2, KEYS = SPLIT * PAGE, WARPS = 4, D_MAX = 128;

template <typename T, int G>
__device__ inline void decode(const Decode& a) {
    constexpr int EACH = PER_LOAD<T>;
    __shared__ float logits[G][KEYS];
    __shared__ float sums[WARPS][G][D_MAX + WARP];
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, split = blockIdx.x;
    int64_t row = blockIdx.z;
    int group = a.heads / a.kv_heads, per_kv_head = (group + G - 1) / G;
    int kv_head = blockIdx.y / per_kv_head, within = blockIdx.y % per_kv_head * G;
    int count = min(G, group - within), first_head = kv_head * group + within;
    int position = a.positions[row];
    const Page* pages = a.pages + static_cast<int64_t>(a.sequences[row]) * a.page_stride + split * SPLIT;
    // Pages begin at ascending positions; the table ends with pages that begin beyond any.
    if (pages[0].first > position) return;
    // This head's keys of a page, or its values, and how many of them the row sees. Pages are read where they are needed: an
    // array of them that a key's number indexes would lie in local memory.
    auto of_page = [&](int p, int64_t offset, int& there) {
        Page page = pages[p];
        there = min(page.count, position + 1 - page.first);
        return reinterpret_cast<const T*>(page.at + a.layer + offset) + static_cast<int64_t>(kv_head) * PAGE * a.d;
    };
    // `lanes` lanes share a key; a warp reads `at_once` of them at a time.
    int lanes = a.d / EACH, at_once = WARP / lanes, mine = lane % lanes * EACH, first_slot = warp * at_once + lane / lanes;
    {
        float q[G][EACH];
#pragma unroll
        for (int g = 0; g < G; ++g) {
            int head = first_head + min(g, count - 1);
            load_values(q[g], static_cast<const T*>(a.queries) + (row * a.heads + head) * a.d + mine);
        }
#pragma unroll
        for (int p = 0; p < SPLIT; ++p) {
            int there;
            const T* keys = of_page(p, 0, there) + mine;
#pragma unroll 4
            for (int slot = first_slot; slot < PAGE; slot += WARPS * at_once) {
                bool seen = slot < there;
                float k[EACH];
                unpack_load<T>(k, seen ? load_once<uint4>(keys + slot * a.d) : make_uint4(0, 0, 0, 0));
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
        if (lane == 0 && g < count) {
            float* peak = a.peaks + ((row * a.heads + first_head + g) * a.splits + split) * 2;
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
        int there;
        const T* values = of_page(p, a.values, there) + mine;
#pragma unroll 4
        for (int slot = first_slot; slot < PAGE; slot += WARPS * at_once) {
            float v[EACH];
            unpack_load<T>(v, slot < there ? load_once<uint4>(values + slot * a.d) : make_uint4(0, 0, 0, 0));
#pragma unroll
            for (int g = 0; g < G; ++g)
#pragma unroll
                for (int e = 0; e < EACH; ++e) out[g][e] = fmaf(logits[g][p * PAGE + slot], v[e], out[g][e]);
        }
    }
#pragma unroll
    for (int g = 0; g < G; ++g)
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
            float sum = out[g][e];
            for (int offset = lanes; offset < WARP; offset *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
            if (lane < lanes) sums[warp][g][place(e, lane)] = sum;
        }
    __syncthreads();
    for (int i = threadIdx.x; i < count * a.d; i += WARPS * WARP) {
        int g = i / a.d, column = i % a.d;
        float sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += sums[w][g][place(column % EACH, column / EACH)];
        a.partial[((row * a.heads + first_head + g) * a.splits + split) * a.d + column] = sum;
    }
}

// Blocks of a multiprocessor: as many as shared memory lets be, or some fewer, so that nothing is spilled for more.
#define DECODE(T, name)                                                                                                \
    extern "C" __global__ void __launch_bounds__(128, 12) paged_attention_decode_##name##_1(Decode a) { decode<T, 1>(a); }        \
    extern "C" __global__ void __launch_bounds__(128, 6) paged_attention_decode_##name##_4(Decode a) { decode<T, 4>(a); }         \
    extern "C" __global__ void __launch_bounds__(128, 4) paged_attention_decode_##name##_8(Decode a) { decode<T, 8>(a); }

DECODE(float, f32)
DECODE(__nv_bfloat16, bf16)
DECODE(__half, f16)

// out (rows, heads * size) = the parts of each query and head, weighted. Grid: (heads, rows); block d / 2, two columns each.
template <typename T>
__device__ inline void combine(const Decode& c) {
    int64_t row = blockIdx.y, head = row * c.heads + blockIdx.x;
    const Page* pages = c.pages + static_cast<int64_t>(c.sequences[row]) * c.page_stride;
    int position = c.positions[row], column = 2 * threadIdx.x;
    const float* peaks = c.peaks + head * c.splits * 2;
    const float* partial = c.partial + head * c.splits * c.d + column;
    float max = -INFINITY, sum = 0, low = 0, high = 0;
    for (int s = 0; s < c.splits && pages[s * SPLIT].first <= position; ++s) max = fmaxf(max, peaks[2 * s]);
    for (int s = 0; s < c.splits && pages[s * SPLIT].first <= position; ++s) {
        float weight = expf(peaks[2 * s] - max);
        float2 part = *reinterpret_cast<const float2*>(partial + s * c.d);
        sum = fmaf(weight, peaks[2 * s + 1], sum);
        low = fmaf(weight, part.x, low);
        high = fmaf(weight, part.y, high);
    }
    // The size is even: both are there or neither.
    if (column >= c.size) return;
    T* out = static_cast<T*>(c.out) + head * c.size + column;
    out[0] = from_float<T>(low / sum);
    out[1] = from_float<T>(high / sum);
}

extern "C" __global__ void __launch_bounds__(128) paged_attention_combine_f32(Decode c) { combine<float>(c); }
extern "C" __global__ void __launch_bounds__(128) paged_attention_combine_bf16(Decode c) { combine<__nv_bfloat16>(c); }
extern "C" __global__ void __launch_bounds__(128) paged_attention_combine_f16(Decode c) { combine<__half>(c); }
