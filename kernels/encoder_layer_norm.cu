// Layer normalization of wide rows, for inference: out = (x - mean) * rstd * gamma + beta.
//
// x (any, width) f32, out (rows, width) f32 or bf16, row-major; gamma, beta (width) f32. Row i of out is that of row from[i]
// of x, or of row i without `from`. Width is a multiple of 4, at most 2048; sums are f32, of squares of distances.
// Grid: blocks of 32 rows; eight warps, four rows each in turn, a row in the registers of its warp; gamma and beta in
// dynamic shared memory, 8 * width bytes. Deterministic. Reference: src/device/cpu/layer_norm.rs.
#include "encoder_vector.cuh"

struct EncoderLayerNorm {
    const float* x;
    const uint32_t* from;
    const float* gamma;
    const float* beta;
    void* out;
    int rows, width;
    float eps;
    int padding;
};

constexpr int BLOCK_ROWS = 32, BLOCK_WARPS = 8, VECTORS = 16;

template <typename T>
__device__ inline void encoder_layer_norm(const EncoderLayerNorm& n) {
    extern __shared__ __align__(16) float parameters[];
    float *gamma = parameters, *beta = parameters + n.width;
    for (int column = threadIdx.x; column < n.width; column += BLOCK_WARPS * WARP) {
        gamma[column] = n.gamma[column];
        beta[column] = n.beta[column];
    }
    __syncthreads();
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int last = min((blockIdx.x + 1) * BLOCK_ROWS, n.rows);
    for (int row = blockIdx.x * BLOCK_ROWS + warp; row < last; row += BLOCK_WARPS) {
        const float* x = n.x + static_cast<int64_t>(n.from ? n.from[row] : row) * n.width;
        T* out = static_cast<T*>(n.out) + static_cast<int64_t>(row) * n.width;
        Four values[VECTORS];
        float sum = 0;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            int column = (v * WARP + lane) * FOUR;
            if (column >= n.width) break;
            values[v] = load_four(x + column);
#pragma unroll
            for (int e = 0; e < FOUR; ++e) sum += values[v].at[e];
        }
        float mean = warp_sum(sum) / n.width, squares = 0;
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            if ((v * WARP + lane) * FOUR >= n.width) break;
#pragma unroll
            for (int e = 0; e < FOUR; ++e) squares += (values[v].at[e] - mean) * (values[v].at[e] - mean);
        }
        float rstd = rsqrtf(warp_sum(squares) / n.width + n.eps);
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) {
            int column = (v * WARP + lane) * FOUR;
            if (column >= n.width) break;
            Four scale = load_four(gamma + column), shift = load_four(beta + column);
#pragma unroll
            for (int e = 0; e < FOUR; ++e)
                values[v].at[e] = (values[v].at[e] - mean) * rstd * scale.at[e] + shift.at[e];
            store_four(out + column, values[v]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) encoder_layer_norm_bf16(EncoderLayerNorm n) {
    encoder_layer_norm<__nv_bfloat16>(n);
}
extern "C" __global__ void __launch_bounds__(256) encoder_layer_norm_f32(EncoderLayerNorm n) {
    encoder_layer_norm<float>(n);
}
