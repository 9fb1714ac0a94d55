// RMSNorm of rows: out = gain * x / sqrt(mean(x^2) + eps).
//
// x (rows, width) f32: the residual stream; gain (width) f32; out (rows, width) f32, bf16 or f16. The products
// before it (linear_few.cu, linear_stored.cu) add to the residual stream themselves.
// Grid: rows; block 256; a row is read twice, the second time from the first-level cache. Width is a multiple of 4.
// Deterministic; a row has the same bits whatever stands beside it. Reference: src/device/cpu/vector/mod.rs.
#include "decoder.cuh"

struct RmsNorm {
    const float* x;
    const float* gain;
    void* out;
    int width;
    float eps;
};

constexpr int THREADS = 256;

template <typename T>
__device__ inline void rms_norm(const RmsNorm& n) {
    __shared__ float sums[THREADS / WARP];
    await_earlier();
    int64_t start = static_cast<int64_t>(blockIdx.x) * n.width;
    const float4* x = reinterpret_cast<const float4*>(n.x + start);
    const float4* gain = reinterpret_cast<const float4*>(n.gain);
    T* out = static_cast<T*>(n.out) + start;
    float sum = 0;
    for (int i = threadIdx.x; i < n.width / 4; i += THREADS) {
        float4 v = x[i];
        sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int warp = 0; warp < THREADS / WARP; ++warp) sum += sums[warp];
    float scale = rsqrtf(sum / n.width + n.eps);
    for (int i = threadIdx.x; i < n.width / 4; i += THREADS) {
        float4 v = x[i], g = gain[i];
        v = make_float4(v.x * scale * g.x, v.y * scale * g.y, v.z * scale * g.z, v.w * scale * g.w);
        if constexpr (sizeof(T) == 4)
            reinterpret_cast<float4*>(out)[i] = v;
        else
            reinterpret_cast<uint2*>(out)[i] = make_uint2(pack(v.x, v.y, T()), pack(v.z, v.w, T()));
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_f32(RmsNorm n) { rms_norm<float>(n); }
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_bf16(RmsNorm n) { rms_norm<__nv_bfloat16>(n); }
extern "C" __global__ void __launch_bounds__(THREADS) rms_norm_f16(RmsNorm n) { rms_norm<__half>(n); }
