// Activation functions of differentiable linear layers, behind products that do not have them in their epilogue, and
// their backward. Arrays of f32 of any shape, `length` values. Grid: a thread per value, 256 to a block; no shared
// memory. Deterministic. Reference: src/ops/linear/differentiable/activation.rs.
#include "activation.cuh"
#include "common.cuh"

// out = activation(x), which may be x itself.
struct LinearActivation {
    const float* x;
    float* out;
    int64_t length;
    int finish, padding;
};

extern "C" __global__ void __launch_bounds__(256) linear_activation(LinearActivation a) {
    int64_t at = blockIdx.x * 256ll + threadIdx.x;
    if (at < a.length) a.out[at] = activate(a.x[at], a.finish);
}

// dx = dout * the derivative. `kept` is the output, or the input of a GELU.
struct LinearActivationBackward {
    const float* dout;
    const float* kept;
    float* dx;
    int64_t length;
    int finish, padding;
};

extern "C" __global__ void __launch_bounds__(256) linear_activation_backward(LinearActivationBackward a) {
    int64_t at = blockIdx.x * 256ll + threadIdx.x;
    if (at < a.length) a.dx[at] = a.dout[at] * activation_slope(a.kept[at], a.finish);
}
