// Weights in the blocks of GGUF files, as the file has them; src/tensor/blocks.rs describes the layout. Eight types, of which
// each is a struct that says how many weights and bytes a block has, where it is aligned, and what a group of 32 weights is.
#pragma once

#include "decoder.cuh"

constexpr int GROUP = 32;

// Bytes of a block by words of the type's alignment: blocks follow each other without gaps.
template <int COUNT, int ALIGNED>
__device__ inline void load_words(uint32_t (&to)[COUNT], const uint8_t* from) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        if constexpr (ALIGNED == 4) {
            to[i] = __ldg(reinterpret_cast<const uint32_t*>(from) + i);
        } else {
            const auto* halves = reinterpret_cast<const uint16_t*>(from) + 2 * i;
            to[i] = __ldg(halves) | static_cast<uint32_t>(__ldg(halves + 1)) << 16;
        }
    }
}

__device__ inline float load_half(const uint8_t* from) {
    return __half2float(__ushort_as_half(__ldg(reinterpret_cast<const uint16_t*>(from))));
}

__device__ inline uint32_t byte_of(const uint32_t* words, int i) { return words[i / 4] >> (i % 4 * 8) & 255; }

// Blocks of 32 weights: BITS of a code, whether a least value follows the scale.
template <int BITS, bool LEAST>
struct Simple {
    static constexpr int WEIGHTS = 32, CODES = 2 + (LEAST ? 2 : 0) + (BITS == 5 ? 4 : 0);
    static constexpr int BYTES = CODES + (BITS == 8 ? 32 : 16), ALIGNED = BYTES % 4 == 0 ? 4 : 2;
    static constexpr int ZERO = LEAST ? 0 : BITS == 8 ? 0 : 1 << (BITS - 1);

    __device__ static void unpack(float (&out)[GROUP], const uint8_t* block, int) {
        float scale = load_half(block), least = LEAST ? load_half(block + 2) : 0.0f;
        uint32_t words[BITS == 8 ? 8 : 4], fifth[1] = {};
        load_words<BITS == 8 ? 8 : 4, ALIGNED>(words, block + CODES);
        if constexpr (BITS == 5) load_words<1, ALIGNED>(fifth, block + CODES - 4);
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
            int code;
            if constexpr (BITS == 8) code = static_cast<int8_t>(byte_of(words, i));
            else code = byte_of(words, i % 16) >> (i / 16 * 4) & 15;
            if constexpr (BITS == 5) code |= (fifth[0] >> i & 1) << 4;
            out[i] = scale * static_cast<float>(code - ZERO) + least;
        }
    }
};

// Blocks of 256 weights whose scales and least values have 6 bits: BITS of a code.
template <int BITS>
struct SuperBlock {
    static constexpr int WEIGHTS = 256, CODES = BITS == 5 ? 48 : 16, BYTES = CODES + 128, ALIGNED = 4;

    __device__ static void unpack(float (&out)[GROUP], const uint8_t* block, int group) {
        uint32_t packed[3];
        load_words<3, ALIGNED>(packed, block + 4);
        // Those of the last four groups lie in the bits that the first four leave.
        int at = group % 4 * 8;
        uint32_t a = packed[0] >> at, b = packed[1] >> at, c = packed[2] >> at;
        uint32_t scale = group < 4 ? a & 63 : (c & 15) | (a >> 6 & 3) << 4;
        uint32_t least = group < 4 ? b & 63 : (c >> 4 & 15) | (b >> 6 & 3) << 4;
        float d = load_half(block) * static_cast<float>(scale), m = load_half(block + 2) * static_cast<float>(least);
        uint32_t words[8], fifth[8] = {};
        load_words<8, ALIGNED>(words, block + CODES + group / 2 * 32);
        if constexpr (BITS == 5) load_words<8, ALIGNED>(fifth, block + 16);
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
            uint32_t code = byte_of(words, i) >> (group % 2 * 4) & 15;
            if constexpr (BITS == 5) code |= (byte_of(fifth, i) >> group & 1) << 4;
            out[i] = d * static_cast<float>(code) - m;
        }
    }
};

// Blocks of 256 weights of 6 bits, with a scale of 8 bits for each 16.
struct SixBits {
    static constexpr int WEIGHTS = 256, BYTES = 210, ALIGNED = 2;

    __device__ static void unpack(float (&out)[GROUP], const uint8_t* block, int group) {
        int part = group / 4, quarter = group % 4;
        uint32_t low[8], high[8], scales[1];
        load_words<8, ALIGNED>(low, block + part * 64 + quarter % 2 * 32);
        load_words<8, ALIGNED>(high, block + 128 + part * 32);
        load_words<1, ALIGNED>(scales, block + 192 + 2 * group / 4 * 4);
        float d = load_half(block + 208);
        int first = 2 * group % 4;
#pragma unroll
        for (int i = 0; i < GROUP; ++i) {
            int code = (byte_of(low, i) >> (quarter / 2 * 4) & 15) | (byte_of(high, i) >> (2 * quarter) & 3) << 4;
            float scale = d * static_cast<float>(static_cast<int8_t>(scales[0] >> (8 * (first + i / 16)) & 255));
            out[i] = scale * static_cast<float>(code - 32);
        }
    }
};

// A group of a row, by its number in the row.
template <typename Kind>
__device__ inline void unpack_group(float (&out)[GROUP], const uint8_t* row, int group) {
    constexpr int EACH = Kind::WEIGHTS / GROUP;
    Kind::unpack(out, row + static_cast<int64_t>(group / EACH) * Kind::BYTES, group % EACH);
}

using Q4_0 = Simple<4, false>;
using Q4_1 = Simple<4, true>;
using Q5_0 = Simple<5, false>;
using Q5_1 = Simple<5, true>;
using Q8_0 = Simple<8, false>;
using Q4_K = SuperBlock<4>;
using Q5_K = SuperBlock<5>;
using Q6_K = SixBits;
