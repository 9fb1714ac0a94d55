// Maximum and mean over each sequence, beside its global vector. Reference: src/ops/multi_pool.rs.
//
// A block per sequence; a thread per column, as many rounds as there are columns.
#include "common.cuh"

struct MultiPoolForward {
    const float* sequence;  // (sum of lengths, d)
    const float* global;    // (n, d)
    const uint32_t* offsets;
    float* out;        // (n, 3 d): max || mean || global
    uint32_t* argmax;  // (n, d)
    int d, padding;
};

extern "C" __global__ void __launch_bounds__(128) multi_pool_forward(MultiPoolForward p) {
    uint32_t first = p.offsets[blockIdx.x], last = p.offsets[blockIdx.x + 1];
    int64_t item = blockIdx.x;
    float* out = p.out + item * 3 * p.d;
    for (int column = threadIdx.x; column < p.d; column += 128) {
        float max = -INFINITY, sum = 0;
        uint32_t argmax = first;
        for (uint32_t row = first; row < last; ++row) {
            float x = p.sequence[static_cast<int64_t>(row) * p.d + column];
            if (x > max) {
                max = x;
                argmax = row;
            }
            sum += x;
        }
        out[column] = max;
        out[p.d + column] = sum * (1.0f / (last - first));
        out[2 * p.d + column] = p.global[item * p.d + column];
        p.argmax[item * p.d + column] = argmax;
    }
}

// Adds to dsequence and dglobal, of which either may be null.
struct MultiPoolBackward {
    const float* grad;  // (n, 3 d)
    const uint32_t* offsets;
    const uint32_t* argmax;
    float* dsequence;
    float* dglobal;
    int d, padding;
};

extern "C" __global__ void __launch_bounds__(128) multi_pool_backward(MultiPoolBackward p) {
    uint32_t first = p.offsets[blockIdx.x], last = p.offsets[blockIdx.x + 1];
    int64_t item = blockIdx.x;
    const float* grad = p.grad + item * 3 * p.d;
    for (int column = threadIdx.x; column < p.d; column += 128) {
        if (p.dglobal) p.dglobal[item * p.d + column] += grad[2 * p.d + column];
        if (!p.dsequence) continue;
        float of_max = grad[column], of_mean = grad[p.d + column] * (1.0f / (last - first));
        uint32_t argmax = p.argmax[item * p.d + column];
        for (uint32_t row = first; row < last; ++row)
            p.dsequence[static_cast<int64_t>(row) * p.d + column] += of_mean + (row == argmax ? of_max : 0.0f);
    }
}
