// Mean or maximum of each column over each sequence, whose rows are offsets[i] to offsets[i + 1]; maxima where `argmax`
// is not null. A block of four warps per sequence and 32 columns; warp w has every fourth row, and what they found is
// put together in a fixed order. Grid: (sequences, chunks of d). Deterministic. Reference:
// src/ops/sequence_pool/mod.rs.
#include "common.cuh"

constexpr int WARPS = 4;

struct SequencePool {
    const float* from;  // forward: rows (sum of lengths, d); backward: gradient (n, d)
    const uint32_t* offsets;
    uint32_t* argmax;  // (n, d): row of each maximum, or null
    float* to;         // forward: (n, d); backward: gradient of the rows
    int d, adds;
};

extern "C" __global__ void __launch_bounds__(WARPS* WARP) sequence_pool_forward(SequencePool p) {
    __shared__ float values[WARPS][WARP];
    __shared__ uint32_t rows[WARPS][WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, column = blockIdx.y * WARP + lane;
    uint32_t first = p.offsets[blockIdx.x], last = p.offsets[blockIdx.x + 1], at = first;
    float found = p.argmax ? -INFINITY : 0.0f;
    if (column < p.d) {
        for (uint32_t row = first + warp; row < last; row += WARPS) {
            float x = p.from[static_cast<int64_t>(row) * p.d + column];
            if (p.argmax == nullptr) {
                found += x;
            } else if (x > found) {
                found = x;
                at = row;
            }
        }
    }
    values[warp][lane] = found;
    rows[warp][lane] = at;
    __syncthreads();
    if (warp > 0 || column >= p.d) return;
    for (int w = 1; w < WARPS; ++w) {
        float other = values[w][lane];
        uint32_t row = rows[w][lane];
        if (p.argmax == nullptr) {
            found += other;
        } else if (other > found || (other == found && row < at)) {
            // Of equal ones, the first row's.
            found = other;
            at = row;
        }
    }
    int64_t out = static_cast<int64_t>(blockIdx.x) * p.d + column;
    p.to[out] = p.argmax ? found : found * (1.0f / (last - first));
    if (p.argmax) p.argmax[out] = at;
}

// With `adds` added to what is there.
extern "C" __global__ void __launch_bounds__(WARPS* WARP) sequence_pool_backward(SequencePool p) {
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, column = blockIdx.y * WARP + lane;
    if (column >= p.d) return;
    uint32_t first = p.offsets[blockIdx.x], last = p.offsets[blockIdx.x + 1];
    int64_t out = static_cast<int64_t>(blockIdx.x) * p.d + column;
    uint32_t of_max = p.argmax ? p.argmax[out] : 0;
    float grad = p.argmax ? p.from[out] : p.from[out] * (1.0f / (last - first));
    for (uint32_t row = first + warp; row < last; row += WARPS) {
        float* to = p.to + static_cast<int64_t>(row) * p.d + column;
        float x = p.argmax && row != of_max ? 0.0f : grad;
        *to = p.adds ? *to + x : x;
    }
}
