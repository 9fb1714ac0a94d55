// out = x with values zeroed at random and the rest scaled, with `adds` added to what is there; forward and backward alike.
// Reference: src/ops/dropout/mod.rs.
//
// Value i is decided by number i % 4 of block i / 4 of Philox4x32-10, so that CPU and GPU drop the same values. With places,
// row r of `width` values is row places[r] of a larger array, and its values are decided as they are there.
// A thread per four values.
#include "common.cuh"

struct Dropout {
    const float* x;
    float* out;
    const uint32_t* places;  // null: all rows are here
    int64_t length, width;
    uint32_t key[2];
    uint32_t stream[2];
    uint32_t threshold;
    float scale;
    int adds, padding;
};

__device__ __forceinline__ void philox(const Dropout& d, int64_t block, uint32_t (&c)[4]) {
    c[0] = static_cast<uint32_t>(block);
    c[1] = static_cast<uint32_t>(block >> 32);
    c[2] = d.stream[0];
    c[3] = d.stream[1];
    uint32_t key[2] = {d.key[0], d.key[1]};
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
        uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(b),
                            static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(a)};
#pragma unroll
        for (int i = 0; i < 4; ++i) c[i] = next[i];
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
}

extern "C" __global__ void __launch_bounds__(256) dropout(Dropout d) {
    int64_t first = (blockIdx.x * 256ll + threadIdx.x) * 4, block = -1;
    uint32_t c[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int64_t at = first + i, place = at;
        if (at >= d.length) return;
        if (d.places != nullptr) {
            int64_t row = at / d.width;
            place = d.places[row] * d.width + (at - row * d.width);
        }
        if (place / 4 != block) {
            block = place / 4;
            philox(d, block, c);
        }
        int lane = static_cast<int>(place % 4);
        uint32_t draw = lane < 2 ? (lane == 0 ? c[0] : c[1]) : (lane == 2 ? c[2] : c[3]);
        float x = draw >= d.threshold ? d.x[at] * d.scale : 0.0f;
        d.out[at] = d.adds ? d.out[at] + x : x;
    }
}
