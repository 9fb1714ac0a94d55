// Linear layers of many rows, as prefill has them: C = A W^T, C += A W^T, or SwiGLU of A W^T, on tensor cores.
//
// A (m, k) bf16 with W (n, k) in codes, as stored_weights.cuh describes them, or both f16; C (m, n) of A's type, or f32; k and n
// as linear.cu wants them, which multiplies bf16 by bf16. Codes become bf16 (code - zero) * scale on their way to shared
// memory: loaded while a tile is multiplied, stored behind it. int4 blocks of 64 weights are loaded once for two tiles.
// Grid: tiles of C in one row. _128: 128 x 128 tiles, four warps of 64 x 64, 48 KB dynamic shared memory; _64: 64 x 64 tiles,
// four warps of 32 x 32, 24 KB. Deterministic; both give the same bits. Reference: src/ops/linear/stored.
#include "linear.cuh"
#include "stored_weights.cuh"

struct LinearStoredArgs {
    Weights weights;
    const void* a;
    Output out;
};

// Rows of a matrix in codes, of which this thread takes 16 bytes of every 64th: half of what a tile of 32 columns has of a
// row in int8, or of what two tiles have in int4. The two threads of a row hold the scales of two groups that follow each other, so
// that a sector is loaded once for both.
template <typename W, int ROWS>
struct CodeRows {
    static constexpr int MINE = ROWS / 64, BOTH = W::EACH == 16 ? 2 : 1;
    const Weights& weights;
    int first;
    uint4 raw[MINE];
    float scales[MINE];  // of group 2 g + threadIdx.x % 2

    __device__ CodeRows(const Weights& weights, int first) : weights(weights), first(first + threadIdx.x / 2) {}

    __device__ void copy(__nv_bfloat16*, int step) {
        int k = step * DEPTH, groups = weights.k / weights.group, group = k / weights.group + threadIdx.x % 2;
        if (step % BOTH != 0) return;
        bool next = k % (2 * weights.group) == 0;
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            int64_t row = first + i * 64;
            bool there = row < weights.rows;
            const uint4* from = reinterpret_cast<const uint4*>(weights.codes + W::bytes(row * weights.k + k));
            raw[i] = there ? __ldg(from + threadIdx.x % 2) : make_uint4(0, 0, 0, 0);
            if (next) scales[i] = there && group < groups ? __bfloat162float(weights.scales[row * groups + group]) : 0.0f;
        }
    }
};

template <typename W, int ROWS>
__device__ inline void land(const CodeRows<W, ROWS>& w, __nv_bfloat16* to, int step) {
    int holder = threadIdx.x % WARP / 2 * 2 + step * DEPTH / w.weights.group % 2;
#pragma unroll
    for (int i = 0; i < w.MINE; ++i) {
        float scale = __shfl_sync(ALL_LANES, w.scales[i], holder);
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) {
            float x[8];
            uint4 raw = w.raw[i];
            W::unpack(x, piece ? make_uint2(raw.z, raw.w) : make_uint2(raw.x, raw.y), step % w.BOTH);
            uint32_t pairs[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) pairs[e] = pack_bf16(x[2 * e] * scale, x[2 * e + 1] * scale);
            __nv_bfloat16* chunk = to + place(threadIdx.x / 2 + i * 64, threadIdx.x % 2 * 2 + piece);
            *reinterpret_cast<uint4*>(chunk) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        }
    }
}

template <typename W, int SIDE>
__device__ inline void gemm_codes(const LinearStoredArgs& g) {
    TileOf tile = tile_of(g.out, SIDE, SIDE);
    const auto* a = static_cast<const __nv_bfloat16*>(g.a);
    MatrixRows<SIDE, 128> rows(a, g.weights.k, tile.first_row, g.out.m, g.weights.k);
    CodeRows<W, SIDE> weights(g.weights, tile.first_column);
    product<SIDE, SIDE, SIDE / 2, SIDE / 2>(rows, weights, g.weights.k, g.out, tile);
}

template <int SIDE>
__device__ inline void gemm_f16(const LinearStoredArgs& g) {
    TileOf tile = tile_of(g.out, SIDE, SIDE);
    int k = g.weights.k;
    MatrixRows<SIDE, 128, __half> rows(static_cast<const __half*>(g.a), k, tile.first_row, g.out.m, k);
    const auto* w = reinterpret_cast<const __half*>(g.weights.codes);
    MatrixRows<SIDE, 128, __half> weights(w, k, tile.first_column, g.out.n, k);
    product<SIDE, SIDE, SIDE / 2, SIDE / 2, __half>(rows, weights, k, g.out, tile);
}

extern "C" __global__ void __launch_bounds__(128, 2) linear_stored_f16_128(LinearStoredArgs g) { gemm_f16<128>(g); }
extern "C" __global__ void __launch_bounds__(128, 4) linear_stored_f16_64(LinearStoredArgs g) { gemm_f16<64>(g); }
extern "C" __global__ void __launch_bounds__(128, 2) linear_stored_int8_128(LinearStoredArgs g) { gemm_codes<Int8, 128>(g); }
extern "C" __global__ void __launch_bounds__(128, 4) linear_stored_int8_64(LinearStoredArgs g) { gemm_codes<Int8, 64>(g); }
extern "C" __global__ void __launch_bounds__(128, 2) linear_stored_int4_128(LinearStoredArgs g) { gemm_codes<Int4, 128>(g); }
extern "C" __global__ void __launch_bounds__(128, 4) linear_stored_int4_64(LinearStoredArgs g) { gemm_codes<Int4, 64>(g); }
