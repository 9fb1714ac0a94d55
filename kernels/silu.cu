// silu(x) = x / (1 + exp(-x)), a thread per value. Grid: values / 256; block 256. Deterministic. Reference: src/ops/silu/mod.rs.
#include "common.cuh"

struct Silu {
    const float* x;
    const float* grad;
    float* out;
    int64_t length, adds;
};

extern "C" __global__ void __launch_bounds__(256) silu_forward(const Silu a) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i < a.length) a.out[i] = a.x[i] / (1.0f + __expf(-a.x[i]));
}

extern "C" __global__ void __launch_bounds__(256) silu_backward(const Silu a) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= a.length) return;
    const float x = a.x[i], s = 1.0f / (1.0f + __expf(-x));
    a.out[i] = (a.adds ? a.out[i] : 0.0f) + a.grad[i] * s * (1.0f + x * (1.0f - s));
}
