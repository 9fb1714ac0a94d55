// The same 32 bits everywhere, where a graph is recorded: its memsets may refuse to take other sizes (src/device/cuda/fill.rs).
//
// Grid: a thread per 16 bytes; what is filled begins and ends at a multiple of 16 bytes.
#include "common.cuh"

struct Fill {
    uint4* out;
    int64_t length;  // in 16 bytes
    uint32_t value;
    int padding;
};

extern "C" __global__ void __launch_bounds__(256) fill(Fill a) {
    int64_t i = blockIdx.x * 256ll + threadIdx.x;
    if (i < a.length) a.out[i] = make_uint4(a.value, a.value, a.value, a.value);
}
