// Self-attention over sequences of any lengths laid end to end: out = softmax(Q K^T * scale) V, per sequence and head.
//
// Q, K, V (rows, heads * head) with a common stride, as one product writes them side by side; out (rows, heads * head) with
// its own; offsets (sequences + 1). With `causal`, a row sees itself and those before it. Heads are at most 128 values wide;
// for bf16, a multiple of 8, filled up to 16 with zeros in shared memory.
// bf16: softmax runs along with the keys (Dao et al., 2022), 64 at a time; products on tensor cores with f32 sums. Keys
// are copied while values are multiplied and the other way round. Grid: (sequences, heads, tiles of the longest sequence);
// one to four warps of 16 queries; dynamic shared memory: (16 * warps + 128) rows of 8 values more than a head filled up,
// whose odd number of chunks keeps eight rows in different banks. attention_f32: a warp per query, four to a block.
// Deterministic; a sequence has the same bits whatever else is in the batch. Reference: src/ops/attention/cpu.
#include "common.cuh"

struct AttentionArgs {
    const void* q;
    const void* k;
    const void* v;
    void* out;
    const uint32_t* offsets;
    int64_t row, out_row;
    int head, causal;
    float scale;
    int padding;
};

constexpr int KEYS = 64, CHUNK = 8;

// Starts copying rows of one head to shared memory, `to_stride` values apart; zeros from `there` rows on and beyond the head.
__device__ inline void copy_rows(__nv_bfloat16* to, int to_stride, const __nv_bfloat16* from, int64_t stride, int rows,
                                 int there, int head) {
    int chunks = to_stride / CHUNK - 1;
    for (int e = threadIdx.x; e < rows * chunks; e += blockDim.x) {
        int row = e / chunks, chunk = e % chunks;
        bool copied = row < there && chunk * CHUNK < head;
        copy_async(to + row * to_stride + chunk * CHUNK, copied ? from + row * stride + chunk * CHUNK : from, copied);
    }
}

// WIDEST: heads of at most so many values.
template <int WIDEST>
__device__ inline void attention(const AttentionArgs& g) {
    extern __shared__ __align__(16) __nv_bfloat16 shared[];
    constexpr int DEPTHS = WIDEST / 16;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, depths = (g.head + 15) / 16;
    int stride = depths * 16 + CHUNK;
    int start = g.offsets[blockIdx.x], length = g.offsets[blockIdx.x + 1] - start;
    int queries = blockDim.x / WARP * 16, first_query = blockIdx.z * queries;
    if (first_query >= length) return;
    int seen = g.causal ? min(length, first_query + queries) : length;
    auto head_of = [&](const void* x, int row) {
        return static_cast<const __nv_bfloat16*>(x) + (start + row) * g.row + blockIdx.y * g.head;
    };
    __nv_bfloat16 *q = shared, *k = q + queries * stride, *v = k + KEYS * stride;
    // Rows of a tile of keys that are multiplied: of a short one, no more than needed.
    auto rows_of = [&](int first) { return (min(KEYS, seen - first) + 15) / 16 * 16; };
    auto copy_keys = [&](__nv_bfloat16* to, const void* from, int first) {
        if (first < seen) copy_rows(to, stride, head_of(from, first), g.row, rows_of(first), seen - first, g.head);
        copy_commit();
    };
    copy_rows(q, stride, head_of(g.q, first_query), g.row, queries, length - first_query, g.head);
    copy_keys(k, g.k, 0);
    copy_keys(v, g.v, 0);

    float out[DEPTHS * 2][4] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {};
    bool works = first_query + warp * 16 < length;
    // Of the two rows of a lane's fragments, the first; the other is 8 below.
    int my_query = first_query + warp * 16 + lane / 4;
    float scale = g.scale * 1.44269504f;
    for (int first = 0; first < seen; first += KEYS) {
        int rows = rows_of(first);
        float logits[KEYS / 8][4] = {};
        copy_wait<1>();
        __syncthreads();
        if (works) {
#pragma unroll
            for (int depth = 0; depth < DEPTHS; ++depth) {
                if (depth >= depths) break;
                uint32_t left[4];
                load_tiles(left, q + (warp * 16 + lane % 16) * stride + depth * 16 + lane / 16 * CHUNK);
#pragma unroll
                for (int j = 0; j < KEYS / 16; ++j) {
                    if (j * 16 >= rows) break;
                    uint32_t right[4];
                    int row = j * 16 + lane / 16 * 8 + lane % 8;
                    load_tiles(right, k + row * stride + depth * 16 + lane / 8 % 2 * CHUNK);
                    mma_bf16(logits[2 * j], left, right[0], right[1]);
                    mma_bf16(logits[2 * j + 1], left, right[2], right[3]);
                }
            }
        }
        __syncthreads();
        copy_keys(k, g.k, first + KEYS);
        uint32_t weights[KEYS / 16][4];
        if (works) {
            float shrink[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int last = g.causal ? min(length, my_query + 8 * half + 1) : length;
                float highest = most[half];
#pragma unroll
                for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        float& logit = logits[j][2 * half + e];
                        logit = first + j * 8 + lane % 4 * 2 + e < last ? logit * scale : -INFINITY;
                        highest = fmaxf(highest, logit);
                    }
                highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, 1));
                highest = fmaxf(highest, __shfl_xor_sync(ALL_LANES, highest, 2));
                // The first key is seen by all: from the first tile on, `highest` is finite.
                shrink[half] = exp2f(most[half] - highest);
                most[half] = highest;
                float sum = 0;
#pragma unroll
                for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        float& logit = logits[j][2 * half + e];
                        logit = exp2f(logit - highest);
                        sum += logit;
                    }
                total[half] = total[half] * shrink[half] + quad_sum(sum);
            }
#pragma unroll
            for (int tile = 0; tile < DEPTHS * 2; ++tile)
#pragma unroll
                for (int e = 0; e < 4; ++e) out[tile][e] *= shrink[e / 2];
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    weights[j / 2][j % 2 * 2 + half] = pack_bf16(logits[j][2 * half], logits[j][2 * half + 1]);
        }
        copy_wait<1>();
        __syncthreads();
        if (works) {
#pragma unroll
            for (int j = 0; j < KEYS / 16; ++j) {
                if (j * 16 >= rows) break;
#pragma unroll
                for (int depth = 0; depth < DEPTHS; ++depth) {
                    if (depth >= depths) break;
                    uint32_t right[4];
                    int row = j * 16 + lane / 8 % 2 * 8 + lane % 8;
                    load_tiles_transposed(right, v + row * stride + depth * 16 + lane / 16 * CHUNK);
                    mma_bf16(out[2 * depth], weights[j], right[0], right[1]);
                    mma_bf16(out[2 * depth + 1], weights[j], right[2], right[3]);
                }
            }
        }
        __syncthreads();
        copy_keys(v, g.v, first + KEYS);
    }
    copy_wait<0>();
    if (!works) return;
    // Rows leave through the warp's own queries, which nobody reads any more, in whole sectors.
    __nv_bfloat16* mine = q + warp * 16 * stride;
    __syncwarp();
#pragma unroll
    for (int tile = 0; tile < DEPTHS * 2; ++tile) {
        if (tile >= depths * 2) break;
#pragma unroll
        for (int half = 0; half < 2; ++half)
            *reinterpret_cast<uint32_t*>(mine + (lane / 4 + 8 * half) * stride + tile * 8 + lane % 4 * 2) =
                pack_bf16(out[tile][2 * half] / total[half], out[tile][2 * half + 1] / total[half]);
    }
    __syncwarp();
    int chunks = g.head / CHUNK;
    for (int e = lane; e < 16 * chunks; e += WARP) {
        int row = e / chunks, chunk = e % chunks, query = first_query + warp * 16 + row;
        if (query >= length) break;
        __nv_bfloat16* to = static_cast<__nv_bfloat16*>(g.out) + (start + query) * g.out_row + blockIdx.y * g.head;
        *reinterpret_cast<uint4*>(to + chunk * CHUNK) =
            *reinterpret_cast<const uint4*>(mine + row * stride + chunk * CHUNK);
    }
}

extern "C" __global__ void __launch_bounds__(128, 2) attention_64(AttentionArgs g) { attention<64>(g); }
extern "C" __global__ void __launch_bounds__(128, 1) attention_128(AttentionArgs g) {
    attention<128>(g);
}

extern "C" __global__ void __launch_bounds__(128) attention_f32(AttentionArgs g) {
    constexpr int MINE = 128 / WARP;
    int lane = threadIdx.x % WARP, start = g.offsets[blockIdx.x], length = g.offsets[blockIdx.x + 1] - start;
    int query = blockIdx.z * 4 + threadIdx.x / WARP;
    if (query >= length) return;
    auto head_of = [&](const void* x, int row) {
        return static_cast<const float*>(x) + (start + row) * g.row + blockIdx.y * g.head;
    };
    float q[MINE], out[MINE] = {}, most = -INFINITY, total = 0;
#pragma unroll
    for (int i = 0; i < MINE; ++i) {
        int column = i * WARP + lane;
        q[i] = column < g.head ? head_of(g.q, query)[column] * g.scale : 0.0f;
    }
    for (int key = 0; key < (g.causal ? query + 1 : length); ++key) {
        const float *k = head_of(g.k, key), *v = head_of(g.v, key);
        float logit = 0;
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            int column = i * WARP + lane;
            if (column < g.head) logit += q[i] * k[column];
        }
        logit = warp_sum(logit);
        float highest = fmaxf(most, logit), shrink = expf(most - highest), weight = expf(logit - highest);
        most = highest;
        total = total * shrink + weight;
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            int column = i * WARP + lane;
            if (column < g.head) out[i] = out[i] * shrink + weight * v[column];
        }
    }
    float* to = static_cast<float*>(g.out) + (start + query) * g.out_row + blockIdx.y * g.head;
#pragma unroll
    for (int i = 0; i < MINE; ++i) {
        int column = i * WARP + lane;
        if (column < g.head) to[column] = out[i] / total;
    }
}
