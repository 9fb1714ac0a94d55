// Softmax-weighted sums of up to eight modalities. x[j], dx[j], out and grad are (n, d), any d; logits, softmax and
// dlogits (n, k). Grid: a warp per row, four to a block; no shared memory. Deterministic. Reference:
// src/ops/mix/mod.rs.
#include "common.cuh"

constexpr int MODALITIES = 8;

struct MixForward {
    const float* x[MODALITIES];
    const float* logits;
    float* softmax;
    float* out;
    int n, d, k, padding;
};

extern "C" __global__ void __launch_bounds__(128) mix_forward(const __grid_constant__ MixForward m) {
    int row = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= m.n) return;
    int64_t start = static_cast<int64_t>(row) * m.d, first = static_cast<int64_t>(row) * m.k;
    float weights[MODALITIES], max = -INFINITY, sum = 0;
#pragma unroll
    for (int j = 0; j < MODALITIES; ++j) {
        weights[j] = j < m.k ? m.logits[first + j] : -INFINITY;
        max = fmaxf(max, weights[j]);
    }
#pragma unroll
    for (int j = 0; j < MODALITIES; ++j) {
        weights[j] = j < m.k ? expf(weights[j] - max) : 0.0f;
        sum += weights[j];
    }
#pragma unroll
    for (int j = 0; j < MODALITIES; ++j) {
        weights[j] /= sum;
        if (lane == j && j < m.k) m.softmax[first + j] = weights[j];
    }
    for (int column = lane; column < m.d; column += WARP) {
        float mixed = 0;
#pragma unroll
        for (int j = 0; j < MODALITIES; ++j)
            if (j < m.k) mixed = fmaf(weights[j], m.x[j][start + column], mixed);
        m.out[start + column] = mixed;
    }
}

// dlogits[j] = softmax[j] (<grad, x[j]> - their softmax-weighted mean), dx[j] = softmax[j] grad; any of them may be
// null. Bit j of `adds` says that dx[j] is added to, bit 8 that dlogits is. Two of them may be the same, of which the
// later adds.
struct MixBackward {
    const float* x[MODALITIES];
    float* dx[MODALITIES];
    const float* softmax;
    const float* grad;
    float* dlogits;
    int n, d, k, adds;
};

extern "C" __global__ void __launch_bounds__(128) mix_backward(const __grid_constant__ MixBackward m) {
    int row = blockIdx.x * 4 + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= m.n) return;
    int64_t start = static_cast<int64_t>(row) * m.d, first = static_cast<int64_t>(row) * m.k;
    const float* grad = m.grad + start;
    // One modality after the other: pointers to all eight at once are more than registers hold.
    if (m.dlogits) {
        float own = 0, mean = 0;
#pragma unroll 1
        for (int j = 0; j < m.k; ++j) {
            const float* x = m.x[j] + start;
            float dot = 0;
            for (int column = lane; column < m.d; column += WARP) dot = fmaf(grad[column], x[column], dot);
            dot = warp_sum(dot);
            mean = fmaf(m.softmax[first + j], dot, mean);
            if (lane == j) own = dot;
        }
        if (lane < m.k) {
            float gradient = m.softmax[first + lane] * (own - mean);
            float* to = m.dlogits + first + lane;
            *to = m.adds >> MODALITIES & 1 ? *to + gradient : gradient;
        }
        // What is added to the logits' gradient, where one tensor is both, comes after it.
        __syncwarp();
    }
#pragma unroll 1
    for (int j = 0; j < m.k; ++j) {
        if (m.dx[j] == nullptr) continue;
        float* to = m.dx[j] + start;
        float weight = m.softmax[first + j];
        bool adds = m.adds >> j & 1;
        for (int column = lane; column < m.d; column += WARP)
            to[column] = fmaf(weight, grad[column], adds ? to[column] : 0.0f);
    }
}
