// AdamW of up to 84 parameters in one launch, as many as an argument of 4 KB holds. Reference: src/ops/adamw/mod.rs.
//
// Grid: (blocks over the longest parameter, parameters). The table of parameters comes with the launch: gradients lie
// elsewhere in each step, and a table in memory would have to be copied there.
#include "common.cuh"

struct Parameter {
    float* value;
    const float* grad;
    float* first;
    float* second;
    __half* copy;  // of the value, or null
    int64_t length;
};

struct AdamW {
    Parameter parameters[84];
    float beta1, beta2, rate, root, eps, keep;
};

extern "C" __global__ void __launch_bounds__(256) adamw(AdamW a) {
    Parameter p = a.parameters[blockIdx.y];
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < p.length; i += gridDim.x * 256ll) {
        float g = p.grad[i];
        float m = a.beta1 * p.first[i] + (1.0f - a.beta1) * g;
        float v = a.beta2 * p.second[i] + (1.0f - a.beta2) * g * g;
        p.first[i] = m;
        p.second[i] = v;
        float value = p.value[i] * a.keep - a.rate * m / (sqrtf(v) / a.root + a.eps);
        p.value[i] = value;
        if (p.copy) p.copy[i] = __float2half_rn(value);
    }
}
