// Linear layers of many rows in integers, as prefill has them on Ampere and Ada, whose tensor cores multiply 8-bit integers four
// times as fast as bf16: C = A W^T, C += A W^T, or SwiGLU of A W^T, of weights in int8 or int4.
//
// quantize_rows: A (m, k) bf16 becomes codes (m, k) of 8 bits with an f32 scale for each `group` columns (groups, m), by which the
// largest of a group is 127; corrections (groups, m): the weights' zero times the sum of a group's codes, negative. The same
// operations as src/device/cpu/vector/mod.rs. Grid: a warp for eight rows of a group, block 256.
// linear_integer: codes of A times those of W (n, k) as they are stored, less their zero: a group's products are added as integers,
// which is exact, and its sum times both scales in f32, in ascending order of groups. C (m, n) bf16, or f32; k a multiple of 64.
// Grid: tiles of C in one row. _128: 128 x 128 tiles, eight warps of 64 x 32, 57 KB dynamic shared memory; _64: 64 x 64 tiles,
// four warps of 32 x 32, 28 KB. mma.m16n8k32. Deterministic; both give the same bits. Reference:
// src/ops/linear/stored.
#include "linear.cuh"
#include "stored_weights.cuh"

struct QuantizeRows {
    const __nv_bfloat16* x;
    int8_t* codes;
    float* scales;
    int* corrections;
    int m, k, group, zero;
};

// EACH neighbours of a lane, 2 or 4, which are a group's in a warp.
template <int EACH>
__device__ inline void quantize_group(const QuantizeRows& q, int group, int row, float& scale, int& correction) {
    int lane = threadIdx.x % WARP;
    int64_t at = static_cast<int64_t>(row) * q.k + group * q.group + lane * EACH;
    float x[EACH];
    if constexpr (EACH == 4) {
        Four four = load_four(q.x + at);
#pragma unroll
        for (int i = 0; i < EACH; ++i) x[i] = four.at[i];
    } else {
        float2 pair = unpack(*reinterpret_cast<const uint32_t*>(q.x + at), __nv_bfloat16());
        x[0] = pair.x, x[1] = pair.y;
    }
    // Floats without a sign are in the order of their bits.
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) bits = max(bits, __float_as_uint(fabsf(x[i])));
    float largest = __uint_as_float(__reduce_max_sync(ALL_LANES, bits));
    float by = largest > 0 ? 127.0f / largest : 0.0f;
    // Adding 1.5 * 2^23 rounds to an integer, which stays in the low bits.
    constexpr float SHIFT = 12582912.0f;
    int sum = 0;
    uint32_t packed = 0;
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        int code = __float_as_int(fmaf(x[i], by, SHIFT)) - __float_as_int(SHIFT);
        int8_t narrow = static_cast<int8_t>(code);
        sum += narrow;
        packed |= static_cast<uint32_t>(static_cast<uint8_t>(narrow)) << 8 * i;
    }
    if constexpr (EACH == 4)
        *reinterpret_cast<uint32_t*>(q.codes + at) = packed;
    else
        *reinterpret_cast<uint16_t*>(q.codes + at) = static_cast<uint16_t>(packed);
    scale = largest / 127.0f;
    correction = -q.zero * __reduce_add_sync(ALL_LANES, sum);
}

extern "C" __global__ void __launch_bounds__(256) quantize_rows(QuantizeRows q) {
    constexpr int ROWS = 8;
    int lane = threadIdx.x % WARP, down = (q.m + ROWS - 1) / ROWS;
    int task = blockIdx.x * (256 / WARP) + threadIdx.x / WARP, group = task / down, first = task % down * ROWS;
    if (group >= q.k / q.group) return;
    float my_scale = 0;
    int my_correction = 0, rows = min(ROWS, q.m - first);
    for (int i = 0; i < rows; ++i) {
        float scale;
        int correction;
        if (q.group == 64)
            quantize_group<2>(q, group, first + i, scale, correction);
        else
            quantize_group<4>(q, group, first + i, scale, correction);
        if (lane == i) my_scale = scale, my_correction = correction;
    }
    if (lane < rows) {
        int64_t at = static_cast<int64_t>(group) * q.m + first + lane;
        q.scales[at] = my_scale;
        q.corrections[at] = my_correction;
    }
}

struct LinearIntegerArgs {
    Weights weights;
    const int8_t* a;
    const float* scales;
    const int* corrections;
    Output out;
};

// Columns of a tile in shared memory, a byte each: as many bytes as a tile of linear.cuh has, which moves them in 16-bit units.
constexpr int COLUMNS = 2 * DEPTH;

// Rows of codes, a byte each, by cp.async.
template <int ROWS, int THREADS>
using ByteRows = MatrixRows<ROWS, THREADS, __nv_bfloat16>;

template <int ROWS, int THREADS>
__device__ inline ByteRows<ROWS, THREADS> byte_rows(const void* codes, int first, int rows, int k) {
    return {static_cast<const __nv_bfloat16*>(codes), k / 2, first, rows, k / 2};
}

// Rows of int4, of which this thread takes half a block of 64 weights every THREADS / 2 rows: their low halves are 16 neighbours,
// their high halves the 16 that lie 32 further on.
template <int ROWS, int THREADS>
struct HalfByteRows {
    static constexpr int MINE = ROWS * 2 / THREADS;
    const Weights& weights;
    int first;
    uint4 raw[MINE];

    __device__ HalfByteRows(const Weights& weights, int first) : weights(weights), first(first + threadIdx.x / 2) {}

    __device__ void copy(__nv_bfloat16*, int step) {
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            int64_t row = first + i * (THREADS / 2);
            const char* from = weights.codes + (row * weights.k + step * COLUMNS) / 2;
            raw[i] = row < weights.rows ? __ldg(reinterpret_cast<const uint4*>(from) + threadIdx.x % 2) : uint4{};
        }
    }
};

template <int ROWS, int THREADS>
__device__ inline void land(const HalfByteRows<ROWS, THREADS>& w, __nv_bfloat16* to, int) {
    constexpr uint32_t LOW = 0x0f0f0f0f;
#pragma unroll
    for (int i = 0; i < w.MINE; ++i) {
        int row = threadIdx.x / 2 + i * (THREADS / 2), half = threadIdx.x % 2;
        uint4 raw = w.raw[i];
        uint4 low = {raw.x & LOW, raw.y & LOW, raw.z & LOW, raw.w & LOW};
        uint4 high = {raw.x >> 4 & LOW, raw.y >> 4 & LOW, raw.z >> 4 & LOW, raw.w >> 4 & LOW};
        // Every other pair of rows the high halves first, or neighbours would meet in banks.
        bool swapped = row / 2 % 2;
        *reinterpret_cast<uint4*>(to + place(row, half + (swapped ? 2 : 0))) = swapped ? high : low;
        *reinterpret_cast<uint4*>(to + place(row, half + (swapped ? 0 : 2))) = swapped ? low : high;
    }
}

// c (16 x 8) += a (16 x 32) b (32 x 8): signed by unsigned bytes.
__device__ inline void mma_bytes(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Computes a block's tile of C, as `product` of linear.cuh does.
template <int SIDE, int WM, int WN, typename RowsOfA, typename RowsOfW>
__device__ inline void product_of_codes(const RowsOfA& a, RowsOfW&& w, const LinearIntegerArgs& g, TileOf tile) {
    extern __shared__ __align__(128) char dynamic[];
    auto* stages = reinterpret_cast<__nv_bfloat16*>(dynamic);
    // Behind them the weights' scales of as many groups as a sector has, a row of them for each of W's.
    constexpr int GROUPS = 16;
    auto scales = reinterpret_cast<float(*)[GROUPS + 1]>(stages + STAGES * 2 * SIDE * DEPTH);
    constexpr int DOWN = WM / 16, ACROSS = WN / 8, THREADS = SIDE / WM * (SIDE / WN) * WARP;
    int lane = threadIdx.x % WARP;
    WarpTile mine = warp_tile<SIDE, WM, WN>();
    int each = g.weights.group / COLUMNS, groups = g.weights.k / g.weights.group;
    float sums[DOWN][ACROSS][4] = {};
    int codes[DOWN][ACROSS][4] = {};
    float row_scales[DOWN][2];
    int corrections[DOWN][2];
    auto begin = [&](int step) {
        int group = step / each;
        if (step % (each * GROUPS) == 0) {
            for (int e = threadIdx.x; e < SIDE * GROUPS; e += THREADS) {
                int row = tile.first_column + e / GROUPS, of = group + e % GROUPS;
                bool there = row < g.weights.rows && of < groups;
                int64_t at = static_cast<int64_t>(row) * groups + of;
                scales[e / GROUPS][e % GROUPS] = there ? __bfloat162float(g.weights.scales[at]) : 0.0f;
            }
            __syncthreads();
        }
        if (step % each != 0) return;
#pragma unroll
        for (int i = 0; i < DOWN; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int row = tile.first_row + mine.row + 16 * i + 8 * half + lane / 4;
                int64_t at = static_cast<int64_t>(group) * g.out.m + row;
                row_scales[i][half] = row < g.out.m ? g.scales[at] : 0.0f;
                corrections[i][half] = row < g.out.m ? g.corrections[at] : 0;
            }
    };
    auto multiply = [&](int i, int j, const uint32_t (&left)[4], uint32_t b0, uint32_t b1) {
        mma_bytes(codes[i][j], left, b0, b1);
    };
    auto end = [&](int step) {
        if (step % each != each - 1) return;
#pragma unroll
        for (int j = 0; j < ACROSS; ++j) {
            int column = mine.column + 8 * j + lane % 4 * 2, at = step / each % GROUPS;
            float by[2] = {scales[column][at], scales[column + 1][at]};
#pragma unroll
            for (int i = 0; i < DOWN; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    float sum = static_cast<float>(codes[i][j][e] + corrections[i][e / 2]);
                    sums[i][j][e] = fmaf(sum, row_scales[i][e / 2] * by[e % 2], sums[i][j][e]);
                    codes[i][j][e] = 0;
                }
        }
    };
    each_step<SIDE, SIDE, WM, WN>(a, w, g.weights.k / COLUMNS, stages, begin, multiply, end);
    write_tile<SIDE, WM, WN, __nv_bfloat16>(sums, reinterpret_cast<float*>(stages), g.out, tile);
}

template <int SIDE, int WM, int WN>
__device__ inline void of_int8(const LinearIntegerArgs& g) {
    constexpr int THREADS = SIDE / WM * (SIDE / WN) * WARP;
    TileOf tile = tile_of(g.out, SIDE, SIDE);
    auto a = byte_rows<SIDE, THREADS>(g.a, tile.first_row, g.out.m, g.weights.k);
    auto w = byte_rows<SIDE, THREADS>(g.weights.codes, tile.first_column, g.weights.rows, g.weights.k);
    product_of_codes<SIDE, WM, WN>(a, w, g, tile);
}

template <int SIDE, int WM, int WN>
__device__ inline void of_int4(const LinearIntegerArgs& g) {
    constexpr int THREADS = SIDE / WM * (SIDE / WN) * WARP;
    TileOf tile = tile_of(g.out, SIDE, SIDE);
    auto a = byte_rows<SIDE, THREADS>(g.a, tile.first_row, g.out.m, g.weights.k);
    HalfByteRows<SIDE, THREADS> w(g.weights, tile.first_column);
    product_of_codes<SIDE, WM, WN>(a, w, g, tile);
}

extern "C" __global__ void __launch_bounds__(256, 1) linear_integer_int8_128(LinearIntegerArgs g) { of_int8<128, 64, 32>(g); }
extern "C" __global__ void __launch_bounds__(128, 3) linear_integer_int8_64(LinearIntegerArgs g) { of_int8<64, 32, 32>(g); }
extern "C" __global__ void __launch_bounds__(256, 1) linear_integer_int4_128(LinearIntegerArgs g) { of_int4<128, 64, 32>(g); }
extern "C" __global__ void __launch_bounds__(128, 3) linear_integer_int4_64(LinearIntegerArgs g) { of_int4<64, 32, 32>(g); }
