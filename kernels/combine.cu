// Linear combinations of up to eight arrays, forward and backward alike: out[i] = sum over j of coefficients[i][j] *
// x[j], with bit i of `adds` added to what is there. Each array has `length` values. Two of `out` may be the same, of
// which the second adds. Grid: a thread per value, 256 to a block; no shared memory. Deterministic. Reference:
// src/ops/combine/mod.rs.
#include "common.cuh"

constexpr int ARRAYS = 8;

struct Combine {
    const float* x[ARRAYS];
    float* out[ARRAYS];
    float coefficients[ARRAYS][ARRAYS];
    int64_t length;
    int inputs, outputs, adds, padding;
};

extern "C" __global__ void __launch_bounds__(256) combine(const __grid_constant__ Combine c) {
    int64_t at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= c.length) return;
    float x[ARRAYS];
#pragma unroll
    for (int j = 0; j < ARRAYS; ++j) x[j] = j < c.inputs ? c.x[j][at] : 0.0f;
#pragma unroll
    for (int i = 0; i < ARRAYS; ++i) {
        if (i >= c.outputs) return;
        float sum = c.adds >> i & 1 ? c.out[i][at] : 0.0f;
#pragma unroll
        for (int j = 0; j < ARRAYS; ++j)
            if (j < c.inputs) sum = fmaf(c.coefficients[i][j], x[j], sum);
        c.out[i][at] = sum;
    }
}
