// The same 32 bits everywhere, where a graph is recorded: its memsets may refuse to take other sizes (src/device/cuda/fill.rs).
//
// Grid: a thread per 16 bytes, of which the last may be fewer; what is filled begins at a multiple of 16 bytes.
#include "common.cuh"

struct Fill {
    uint4* out;
    int64_t bytes;
    uint32_t value;
    int padding;
};

extern "C" __global__ void __launch_bounds__(256) fill(Fill a) {
    int64_t i = blockIdx.x * 256ll + threadIdx.x;
    int64_t left = a.bytes - 16 * i;
    if (left >= 16) {
        a.out[i] = make_uint4(a.value, a.value, a.value, a.value);
    } else {
        uint8_t* out = reinterpret_cast<uint8_t*>(a.out + i);
        for (int b = 0; b < left; b++) out[b] = a.value >> 8 * (b % 4);
    }
}
