// Maxima of windows of images, means of sequences. Deterministic. Reference: src/ops/pool/mod.rs.
#include "vector.cuh"

// out (images, out_height, out_width, channels) = maximum over windows of size x size, `stride` apart, of x (images,
// height, width, channels), beyond whose border `border` rows and columns count as nothing. Channels are a multiple of 4.
// Grid: a thread for four channels, blocks of 256.
struct MaxPool {
    const void* x;
    void* out;
    int images, height, width, channels, out_height, out_width, size, stride, border, padding;
};

template <typename T>
__device__ inline void max_pool(const MaxPool& p) {
    int64_t at = (blockIdx.x * 256ll + threadIdx.x) * FOUR, pixel = at / p.channels;
    int column = pixel % p.out_width, row = pixel / p.out_width % p.out_height;
    int64_t image = pixel / p.out_width / p.out_height;
    if (image >= p.images) return;
    const T* x = static_cast<const T*>(p.x) + image * p.height * p.width * p.channels + at % p.channels;
    int top = row * p.stride - p.border, left = column * p.stride - p.border;
    Four most;
#pragma unroll
    for (int e = 0; e < FOUR; ++e) most.at[e] = -INFINITY;
    for (int down = max(top, 0); down < min(top + p.size, p.height); ++down)
        for (int across = max(left, 0); across < min(left + p.size, p.width); ++across) {
            Four other = load_four(x + (static_cast<int64_t>(down) * p.width + across) * p.channels);
#pragma unroll
            for (int e = 0; e < FOUR; ++e) most.at[e] = larger(most.at[e], other.at[e]);
        }
    store_four(static_cast<T*>(p.out) + at, most);
}

extern "C" __global__ void __launch_bounds__(256) max_pool_bf16(MaxPool p) { max_pool<__nv_bfloat16>(p); }
extern "C" __global__ void __launch_bounds__(256) max_pool_f32(MaxPool p) { max_pool<float>(p); }

// out (n, width) = mean over rows offsets[i]..offsets[i + 1] of x, of an empty sequence zeros. f32; width is a multiple of 4.
// Grid: (n, width / 512 rounded up), blocks of 128, a thread for four columns.
struct Mean {
    const float* x;
    const uint32_t* offsets;
    float* out;
    int width, padding;
};

extern "C" __global__ void __launch_bounds__(128) mean_pool(Mean m) {
    int column = (blockIdx.y * 128 + threadIdx.x) * FOUR;
    if (column >= m.width) return;
    uint32_t first = m.offsets[blockIdx.x], last = m.offsets[blockIdx.x + 1];
    Four sum = {};
    for (uint32_t row = first; row < last; ++row)
        sum = sum + load_four(m.x + static_cast<int64_t>(row) * m.width + column);
    float count = max(last - first, 1);
#pragma unroll
    for (int e = 0; e < FOUR; ++e) sum.at[e] /= count;
    store_four(m.out + static_cast<int64_t>(blockIdx.x) * m.width + column, sum);
}
