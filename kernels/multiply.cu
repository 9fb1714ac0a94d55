// Products of values, and of rows with a value of their own. Deterministic, no shared memory. Reference:
// src/ops/multiply/mod.rs.
#include "common.cuh"

struct Multiply {
    const float* a;
    const float* b;
    float* out;
    int64_t length;  // of out
    int width, adds;
};

// out[i] = a[i] * b[i / width], with `adds` added to what is there; forward, and the gradient of x. Grid: a thread per
// value, 256 to a block.
extern "C" __global__ void __launch_bounds__(256) multiply(Multiply m) {
    int64_t at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= m.length) return;
    float b = m.b[m.width == 1 ? at : at / m.width];
    m.out[at] = fmaf(m.a[at], b, m.adds ? m.out[at] : 0.0f);
}

// out[i] = the dot product of rows i of a and b (length, width), with `adds` added to what is there: the gradient of
// what rows are multiplied by. Grid: a warp per row, four to a block.
extern "C" __global__ void __launch_bounds__(128) multiply_rows(Multiply m) {
    int64_t row = blockIdx.x * 4ll + threadIdx.x / WARP;
    int lane = threadIdx.x % WARP;
    if (row >= m.length) return;
    const float* a = m.a + row * m.width;
    const float* b = m.b + row * m.width;
    float sum = 0;
    for (int column = lane; column < m.width; column += WARP) sum = fmaf(a[column], b[column], sum);
    sum = warp_sum(sum);
    if (lane == 0) m.out[row] = m.adds ? m.out[row] + sum : sum;
}
