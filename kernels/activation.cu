// An activation function of each of `length` values, and its backward. Grid: a thread per value, 256 to a block; no
// shared memory. Deterministic. Reference: src/ops/activation/mod.rs.
#include "activation.cuh"
#include "common.cuh"

struct ActivationForward {
    const float* x;
    float* out;
    int64_t length;
    int function, padding;
};

extern "C" __global__ void __launch_bounds__(256) activation_forward(ActivationForward a) {
    int64_t at = blockIdx.x * 256ll + threadIdx.x;
    if (at < a.length) a.out[at] = activate(a.x[at], a.function);
}

// dx = grad * the derivative, with `adds` added to what is there. `kept` is the output, or the input of a GELU.
struct ActivationBackward {
    const float* grad;
    const float* kept;
    float* dx;
    int64_t length;
    int function, adds;
};

extern "C" __global__ void __launch_bounds__(256) activation_backward(ActivationBackward a) {
    int64_t at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= a.length) return;
    float dx = a.grad[at] * activation_slope(a.kept[at], a.function);
    a.dx[at] = a.adds ? a.dx[at] + dx : dx;
}
