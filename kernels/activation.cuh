// Activation functions and their derivatives. Reference: src/device/cpu/vector/activations.rs, src/ops/activation/mod.rs.
#pragma once

#include "common.cuh"

// As in src/ops/linear/tiled.rs.
enum Finish { PLAIN = 0, QUICK_GELU = 1, GELU = 2, RELU = 3, SWIGLU = 4, TANH = 5, SIGMOID = 6, TANH_GELU = 7 };

__device__ inline float activate(float x, int finish) {
    switch (finish) {
        case QUICK_GELU: return __fdividef(x, 1.0f + __expf(-1.702f * x));
        case GELU: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
        case TANH_GELU: return __fdividef(x, 1.0f + __expf(-1.5957691f * (x + 0.044715f * x * x * x)));
        case RELU: return relu(x);
        case TANH: return tanhf(x);
        case SIGMOID: return __fdividef(1.0f, 1.0f + __expf(-x));
        default: return x;
    }
}

// The derivative, from the function's value; that of the GELUs from its argument.
__device__ inline float activation_slope(float kept, int finish) {
    switch (finish) {
        case QUICK_GELU: {
            float sigma = 1.0f / (1.0f + expf(-1.702f * kept));
            return sigma * (1.0f + 1.702f * kept * (1.0f - sigma));
        }
        case GELU: return 0.5f * (1.0f + erff(kept * 0.70710678f)) + kept * 0.39894228f * expf(-0.5f * kept * kept);
        case TANH_GELU: {
            float square = 0.044715f * kept * kept;
            float sigma = 1.0f / (1.0f + expf(-1.5957691f * kept * (1.0f + square)));
            return sigma * (1.0f + kept * (1.0f - sigma) * 1.5957691f * (1.0f + 3.0f * square));
        }
        case RELU: return kept > 0.0f ? 1.0f : 0.0f;
        case TANH: return 1.0f - kept * kept;
        case SIGMOID: return kept * (1.0f - kept);
        default: return 1.0f;
    }
}
