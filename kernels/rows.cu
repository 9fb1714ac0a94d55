// Rows by number, rows as another type, and numbers of rows.
//
// rows_select: out[i] = x[numbers[i]] of rows of `chunks` 16 bytes each, of any type. Grid: rows of out; block 128.
// rows_narrow, rows_wide: out = x as bf16, or as f32; `fours` times four values. Grid: a thread for four, blocks of 256.
// rows_scaled: out = gamma x + beta by column, of x in f16. Grid: a thread for each value, blocks of 256.
// rows_expand: runs of consecutive numbers, laid end to end. Grid: a warp for each run, eight to a block.
// Deterministic. Reference: src/tensor/on_device.rs, src/tensor/normalized.rs, src/tensor/indices.rs.
#include "common.cuh"
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

struct Scale {
    const __half* x;
    const float* gamma;
    const float* beta;
    float* out;
    int64_t count;
    int d, padding;
};

extern "C" __global__ void __launch_bounds__(256) rows_scaled(const __grid_constant__ Instances<Scale, 8> all) {
    each_instance(all, [&](const Scale& s, int block) {
        int64_t i = block * int64_t{256} + threadIdx.x;
        if (i < s.count) s.out[i] = fmaf(__half2float(s.x[i]), s.gamma[i % s.d], s.beta[i % s.d]);
    });
}

// Run i is firsts[i], firsts[i] + 1, ... in out[offsets[i]] to out[offsets[i + 1] - 1].
struct Expand {
    const uint32_t* firsts;
    const uint32_t* offsets;
    uint32_t* out;
    int count, padding;
};

extern "C" __global__ void __launch_bounds__(256) rows_expand(const __grid_constant__ Instances<Expand, 8> all) {
    each_instance(all, [&](const Expand& e, int block) {
        int run = block * 8 + threadIdx.x / WARP;
        if (run >= e.count) return;
        uint32_t first = e.firsts[run], start = e.offsets[run], end = e.offsets[run + 1];
        for (uint32_t at = start + threadIdx.x % WARP; at < end; at += WARP) e.out[at] = first + (at - start);
    });
}
