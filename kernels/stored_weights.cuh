// Weights as they are stored, for linear_few.cu, linear_stored.cu and embedding_stored.cu.
//
// A matrix (rows, k) is row-major in f32, bf16 or f16, or in codes: w = scale * (code - zero), one bf16 scale for each group
// of 64 or 128 weights of a row. int8: a byte per weight, zero 128. int4: zero 8; 64 weights lie in 32 bytes, of which byte i
// holds weight i in its low and weight i + 32 in its high half. As src/tensor/quantized.rs.
#pragma once

#include "decoder.cuh"

struct Weights {
    const char* codes;
    const __nv_bfloat16* scales;  // (rows, k / group)
    int rows, k, group, padding;
};

// Numbers 8388608 + code - zero of four codes, one per byte: exact, and cheaper than conversions.
__device__ inline void unpack_codes(float* out, uint32_t codes, float zero) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
        out[i] = __uint_as_float(__byte_perm(codes, 0x4b000000, 0x7440 + i)) - (8388608.0f + zero);
}

// How a row is read: EACH weights at a time (Raw), in pieces of PIECE that belong to neighbours of x. Of codes a lane takes 8 bytes,
// so that the lanes' neighbours of x lie side by side in whole sectors.
template <typename T>
struct Plain {
    using Raw = uint4;
    static constexpr int EACH = PER_LOAD<T>, PIECE = EACH;
    static constexpr bool SCALED = false;
    __device__ static int64_t bytes(int64_t weights) { return weights * sizeof(T); }
    __device__ static int place(int k, int) { return k; }
    __device__ static void unpack(float (&out)[PIECE], uint4 raw, int) { unpack_load<T>(out, raw); }
};

struct Int8 {
    using Raw = uint2;
    static constexpr int EACH = 8, PIECE = EACH;
    static constexpr bool SCALED = true;
    __device__ static int64_t bytes(int64_t weights) { return weights; }
    __device__ static int place(int k, int) { return k; }
    __device__ static void unpack(float (&out)[PIECE], uint2 raw, int) {
        unpack_codes(out, raw.x, 128.0f);
        unpack_codes(out + 4, raw.y, 128.0f);
    }
};

struct Int4 {
    using Raw = uint2;
    static constexpr int EACH = 16, PIECE = 8;
    static constexpr bool SCALED = true;
    __device__ static int64_t bytes(int64_t weights) { return weights / 2; }
    // Bytes 8 q to 8 q + 7 of a block of 64 weights are read at k % 64 = 16 q; piece 1 is their high halves.
    __device__ static int place(int k, int piece) { return k / 64 * 64 + k % 64 / 2 + piece * 32; }
    __device__ static void unpack(float (&out)[PIECE], uint2 raw, int piece) {
        if (piece == 1) raw.x >>= 4, raw.y >>= 4;
        unpack_codes(out, raw.x & 0x0f0f0f0f, 8.0f);
        unpack_codes(out + 4, raw.y & 0x0f0f0f0f, 8.0f);
    }
};
