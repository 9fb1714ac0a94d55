// Causal attention of many queries over cached keys and values, on tensor cores (Dao 2023, "FlashAttention-2").
//
// out = softmax(q k^T * scale, over the positions up to the query's) v, never forming the logits: a block takes 64 queries of
// one head, four warps with 16 each, and walks over the pages of their sequence with a running maximum and sum.
// queries (rows, heads, D) bf16 or f16, padded with zeros beyond size; pages as decoder.cuh describes them, those of sequence s
// from pages[s * page_stride] on; out (rows, heads * size). Grid: (heads, tiles); block 128; static shared memory
// 2 * 64 * D * 2 bytes; D is 64 or 128. Sequences of different lengths and prefixes go into one launch. Deterministic; a row
// has the same bits whatever stands beside it. Reference: src/ops/paged_attention/cpu.rs.
#include "decoder.cuh"

// Queries of one sequence.
struct Tile {
    int sequence, first, rows;  // rows of the batch
    int position;               // of the first
};

struct Prefill {
    const void* queries;
    const Tile* tiles;
    const Page* pages;
    void* out;
    int64_t layer, values;  // bytes from a page's beginning to its keys of this layer; from keys to values
    int page_stride, heads, kv_heads, size;
    float scale;
    int padding;
};

constexpr int QUERIES = 64, CHUNK = 8;

// Elements before chunk `chunk` of row `row`: the eight rows of an ldmatrix tile lie in different banks.
template <int D>
__device__ inline int place(int row, int chunk) {
    return row * D + (chunk ^ (row % 8)) * CHUNK;
}

// Starts copying rows of D values, of which `rows` are there, `stride` values apart; zeros for the others.
template <int D, typename T>
__device__ inline void copy_rows(T* to, const T* from, int64_t stride, int rows) {
#pragma unroll
    for (int e = threadIdx.x; e < 64 * D / CHUNK; e += 128) {
        int row = e / (D / CHUNK), chunk = e % (D / CHUNK);
        bool there = row < rows;
        copy_async(to + place<D>(row, chunk), there ? from + row * stride + chunk * CHUNK : from, there);
    }
    copy_commit();
}

template <typename T, int D>
__device__ inline void prefill(const Prefill& p) {
    __shared__ __align__(128) T keys[PAGE * D], values[PAGE * D];
    constexpr int TILES = D / 8;
    int head = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    Tile tile = p.tiles[blockIdx.y];
    const Page* pages = p.pages + static_cast<int64_t>(tile.sequence) * p.page_stride;
    int64_t kv_head = head / (p.heads / p.kv_heads) * static_cast<int64_t>(PAGE * D) * sizeof(T);
    int last = tile.position + tile.rows - 1;
    auto copy = [&](T* to, const Page& page, int64_t offset) {
        const T* from = reinterpret_cast<const T*>(page.at + p.layer + offset + kv_head);
        copy_rows<D>(to, from, D, min(page.count, last + 1 - page.first));
    };
    const T* queries = static_cast<const T*>(p.queries) + (static_cast<int64_t>(tile.first) * p.heads + head) * D;
    Page page = pages[0];
    copy_rows<D>(values, queries, static_cast<int64_t>(p.heads) * D, tile.rows);
    copy(keys, page, 0);
    copy_wait<1>();
    __syncthreads();
    uint32_t q[D / 16][4];
#pragma unroll
    for (int i = 0; i < D / 16; ++i) load_tiles(q[i], values + place<D>(warp * 16 + lane % 16, 2 * i + lane / 16));
    // Lane 4 r + c holds rows r and r + 8 of its warp's 16, and of each tile columns 2 c and 2 c + 1.
    int position = tile.position + warp * 16 + lane / 4;
    float out[TILES][4] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    float scale = p.scale * 1.44269504f;
    for (int at = 0;; ++at) {
        copy_wait<0>();
        // The keys are there for all, and nobody reads the values any more (or the queries).
        __syncthreads();
        copy(values, page, p.values);
        float logits[PAGE / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; ++i)
#pragma unroll
            for (int j = 0; j < PAGE / 16; ++j) {
                uint32_t k[4];
                load_tiles(k, keys + place<D>(j * 16 + lane / 16 * 8 + lane % 8, 2 * i + lane / 8 % 2));
                mma(logits[2 * j], q[i], k[0], k[1], T());
                mma(logits[2 * j + 1], q[i], k[2], k[3], T());
            }
        uint32_t weights[PAGE / 16][4];
        // Positions that a row must not see: those after its own, and what a page does not hold.
        int allowed[2] = {min(position - page.first, page.count - 1), min(position + 8 - page.first, page.count - 1)};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = max[half];
#pragma unroll
            for (int j = 0; j < PAGE / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& logit = logits[j][2 * half + e];
                    logit = j * 8 + lane % 4 * 2 + e <= allowed[half] ? logit * scale : -INFINITY;
                    highest = fmaxf(highest, logit);
                }
            highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, 2));
            // Every row sees position 0, so that from the first page on there is a maximum.
            float keep = exp2f(max[half] - highest);
            max[half] = highest;
            sum[half] *= keep;
#pragma unroll
            for (int j = 0; j < PAGE / 8; ++j) {
                float low = exp2f(logits[j][2 * half] - highest), high = exp2f(logits[j][2 * half + 1] - highest);
                sum[half] += low + high;
                weights[j / 2][j % 2 * 2 + half] = pack(low, high, T());
            }
#pragma unroll
            for (int t = 0; t < TILES; ++t) out[t][2 * half] *= keep, out[t][2 * half + 1] *= keep;
        }
        copy_wait<0>();
        // The values are there for all, and nobody reads the keys any more.
        __syncthreads();
        bool more = page.first + page.count <= last;
        if (more) {
            page = pages[at + 1];
            copy(keys, page, 0);
        }
#pragma unroll
        for (int j = 0; j < PAGE / 16; ++j)
#pragma unroll
            for (int t = 0; t < TILES; t += 2) {
                uint32_t v[4];
                load_tiles_transposed(v, values + place<D>(j * 16 + lane % 16, t + lane / 16));
                mma(out[t], weights[j], v[0], v[1], T());
                mma(out[t + 1], weights[j], v[2], v[3], T());
            }
        if (!more) break;
    }
    __syncthreads();
    // Each warp's 16 rows pass through shared memory, so that whole chunks are stored.
    uint32_t* pairs = reinterpret_cast<uint32_t*>(keys);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float share = 1.0f / quad_sum(sum[half]);
#pragma unroll
        for (int t = 0; t < TILES; ++t)
            pairs[place<D>(warp * 16 + lane / 4 + 8 * half, t) / 2 + lane % 4] =
                pack(out[t][2 * half] * share, out[t][2 * half + 1] * share, T());
    }
    __syncwarp();
    for (int e = lane; e < 16 * TILES; e += WARP) {
        int row = warp * 16 + e / TILES, chunk = e % TILES;
        if (row >= tile.rows || chunk * CHUNK >= p.size) continue;
        T* to = static_cast<T*>(p.out) + (static_cast<int64_t>(tile.first + row) * p.heads + head) * p.size + chunk * CHUNK;
        const T* from = keys + place<D>(row, chunk);
        if (p.size % CHUNK == 0) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
        } else {
            for (int i = 0; i < CHUNK && chunk * CHUNK + i < p.size; ++i) to[i] = from[i];
        }
    }
}

#define PREFILL(T, name)                                                                                               \
    extern "C" __global__ void __launch_bounds__(128, 3) paged_attention_prefill_##name##_64(Prefill p) { prefill<T, 64>(p); }  \
    extern "C" __global__ void __launch_bounds__(128, 2) paged_attention_prefill_##name##_128(Prefill p) { prefill<T, 128>(p); }

PREFILL(__nv_bfloat16, bf16)
PREFILL(__half, f16)
