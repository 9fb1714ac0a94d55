// Maximum and mean over each sequence, beside its global vector. Reference: src/ops/multi_pool/mod.rs.
//
// A block of four warps per sequence and CHUNK columns; warp w has every fourth row, and what they found is put together in
// a fixed order. Blocks: the chunks of d of each sequence.
#include "warp_row.cuh"

constexpr int WARPS = 4, VALUES = 4, CHUNK = VALUES * WARP;

struct MultiPoolForward {
    const void* sequence;  // (sum of lengths, d): f32, or f16 before the scale gamma and shift beta of its columns
    const float* gamma;
    const float* beta;
    const float* global;    // (n, d)
    const uint32_t* offsets;
    float* out;        // (n, 3 d): max || mean || global
    uint32_t* argmax;  // (n, d)
    int d, padding;
};

template <typename T>
__device__ inline void multi_pool_forward(const MultiPoolForward& p, int block) {
    // Rows are numbers in the place of floats, so that they move like those.
    __shared__ alignas(16) float maxima[WARPS][CHUNK], sums[WARPS][CHUNK], rows[WARPS][CHUNK];
    int chunks = (p.d + CHUNK - 1) / CHUNK, sequence = block / chunks;
    uint32_t first = p.offsets[sequence], last = p.offsets[sequence + 1];
    int warp = threadIdx.x / WARP, start = block % chunks * CHUNK;
    bool fours = by_fours(p.d);
    float max[VALUES] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum[VALUES] = {}, x[VALUES];
    float gamma[VALUES], beta[VALUES];
    if constexpr (sizeof(T) == sizeof(__half)) {
        load_row(gamma, p.gamma + start, p.d - start, fours);
        load_row(beta, p.beta + start, p.d - start, fours);
    }
    uint32_t argmax[VALUES] = {first, first, first, first};
    for (uint32_t row = first + warp; row < last; row += WARPS) {
        load_row(x, static_cast<const T*>(p.sequence) + static_cast<int64_t>(row) * p.d + start, p.d - start, fours);
#pragma unroll
        for (int v = 0; v < VALUES; ++v) {
            if constexpr (sizeof(T) == sizeof(__half)) x[v] = fmaf(x[v], gamma[v], beta[v]);
            if (x[v] > max[v]) {
                max[v] = x[v];
                argmax[v] = row;
            }
            sum[v] += x[v];
        }
    }
    share_row(maxima[warp], max, fours);
    share_row(sums[warp], sum, fours);
#pragma unroll
    for (int v = 0; v < VALUES; ++v) x[v] = __uint_as_float(argmax[v]);
    share_row(rows[warp], x, fours);
    __syncthreads();
    int mine = threadIdx.x, column = start + mine;
    if (column >= p.d) return;
    // Of equal ones, the first row's.
    float most = maxima[0][mine], total = sums[0][mine];
    uint32_t at = __float_as_uint(rows[0][mine]);
    for (int w = 1; w < WARPS; ++w) {
        uint32_t row = __float_as_uint(rows[w][mine]);
        if (maxima[w][mine] > most || (maxima[w][mine] == most && row < at)) {
            most = maxima[w][mine];
            at = row;
        }
        total += sums[w][mine];
    }
    int64_t item = sequence;
    float* out = p.out + item * 3 * p.d;
    out[column] = most;
    out[p.d + column] = total * (1.0f / (last - first));
    out[2 * p.d + column] = p.global[item * p.d + column];
    p.argmax[item * p.d + column] = at;
}

extern "C" __global__ void __launch_bounds__(128)
    multi_pool_forward_f32(const __grid_constant__ Instances<MultiPoolForward, 8> all) {
    each_instance(all, [](const MultiPoolForward& p, int block) { multi_pool_forward<float>(p, block); });
}
extern "C" __global__ void __launch_bounds__(128)
    multi_pool_forward_f16(const __grid_constant__ Instances<MultiPoolForward, 8> all) {
    each_instance(all, [](const MultiPoolForward& p, int block) { multi_pool_forward<__half>(p, block); });
}

// Writes dsequence and dglobal, of which either may be null; adds to them where bits 0 and 1 of `adds` say so.
struct MultiPoolBackward {
    const float* grad;  // (n, 3 d)
    const uint32_t* offsets;
    const uint32_t* argmax;
    float* dsequence;
    float* dglobal;
    int d, adds;
};

extern "C" __global__ void __launch_bounds__(128)
    multi_pool_backward(const __grid_constant__ Instances<MultiPoolBackward, 8> all) {
    each_instance(all, [](const MultiPoolBackward& p, int block) {
        int chunks = (p.d + CHUNK - 1) / CHUNK, sequence = block / chunks;
        uint32_t first = p.offsets[sequence], last = p.offsets[sequence + 1];
        int64_t item = sequence;
        int warp = threadIdx.x / WARP, start = block % chunks * CHUNK, count = p.d - start;
        bool fours = by_fours(p.d);
        const float* grad = p.grad + item * 3 * p.d + start;
        float x[VALUES], of_max[VALUES], of_mean[VALUES] = {};
        if (p.dglobal && warp == 0) {
            float* to = p.dglobal + item * p.d + start;
            float of_global[VALUES];
            load_row(of_global, grad + 2 * p.d, count, fours);
            load_row(x, to, p.adds & 2 ? count : 0, fours);
            add_scaled(x, 1.0f, of_global);
            store_row(to, x, count, fours);
        }
        if (!p.dsequence) return;
        load_row(of_max, grad, count, fours);
        load_row(x, grad + p.d, count, fours);
        add_scaled(of_mean, 1.0f / (last - first), x);
        float argmax[VALUES];
        load_row(argmax, reinterpret_cast<const float*>(p.argmax) + item * p.d + start, count, fours);
        for (uint32_t row = first + warp; row < last; row += WARPS) {
            float* to = p.dsequence + static_cast<int64_t>(row) * p.d + start;
            load_row(x, to, p.adds & 1 ? count : 0, fours);
#pragma unroll
            for (int v = 0; v < VALUES; ++v) x[v] += of_mean[v] + (row == __float_as_uint(argmax[v]) ? of_max[v] : 0.0f);
            store_row(to, x, count, fours);
        }
    });
}
