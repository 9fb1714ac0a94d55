// Rows by number, and rows as another type.
//
// rows_select: out[i] = x[numbers[i]] of rows of `chunks` 16 bytes each, of any type. Grid: rows of out; block 128.
// rows_narrow, rows_wide: out = x as bf16, or as f32; `fours` times four values. Grid: a thread for four, blocks of 256.
// Deterministic. Reference: src/tensor/activations.rs.
#include "vector.cuh"

struct Select {
    const uint4* x;
    const uint32_t* numbers;
    uint4* out;
    int chunks, padding;
};

extern "C" __global__ void __launch_bounds__(128) rows_select(Select s) {
    const uint4* from = s.x + static_cast<int64_t>(s.numbers[blockIdx.x]) * s.chunks;
    uint4* to = s.out + static_cast<int64_t>(blockIdx.x) * s.chunks;
    for (int i = threadIdx.x; i < s.chunks; i += 128) to[i] = from[i];
}

struct Convert {
    const void* x;
    void* out;
    int64_t fours;
};

template <typename In, typename Out>
__device__ inline void convert(const Convert& c) {
    int64_t four = blockIdx.x * 256ll + threadIdx.x;
    if (four >= c.fours) return;
    store_four(static_cast<Out*>(c.out) + four * FOUR, load_four(static_cast<const In*>(c.x) + four * FOUR));
}

extern "C" __global__ void __launch_bounds__(256) rows_narrow(Convert c) { convert<float, __nv_bfloat16>(c); }
extern "C" __global__ void __launch_bounds__(256) rows_wide(Convert c) { convert<__nv_bfloat16, float>(c); }
