// Convolutions of images, as products whose A is never in memory: row (image, y, x) of A is the window of the image whose
// corner is (y * down - border, x * across - border), zeros beyond the image's border.
//
// image (images, height, width, channels) row-major, channels a multiple of 8 for bf16; W (n, rows * columns * channels) for
// windows of rows * columns pixels, the channel fastest; C and residual (images * out_height * out_width, n). Patches that do
// not overlap are windows of one column: an image's row of pixels is as well a row of width / size pixels of size * channels
// values. Batch normalization is folded into W and the bias when weights are loaded. Grid, block, shared memory, determinism
// and epilogue as those of linear.cu. Reference: src/ops/linear/packed.
#include "linear.cuh"

template <typename T>
struct ConvolutionArgs {
    const T* image;
    const T* w;
    Output out;
    int height, width, channels, out_height, out_width, rows, columns, down, across, border;
};

// Rows of A, of which this thread copies chunk threadIdx.x % 4 of every THREADS / 4th.
template <int ROWS, int THREADS>
struct Windows {
    static constexpr int MINE = ROWS * CHUNKS / THREADS;
    const ConvolutionArgs<__nv_bfloat16>& c;
    const __nv_bfloat16* image[MINE];
    int top[MINE], left[MINE];

    __device__ Windows(const ConvolutionArgs<__nv_bfloat16>& c, int first) : c(c) {
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            int row = first + threadIdx.x / CHUNKS + i * (THREADS / CHUNKS), within = row % (c.out_height * c.out_width);
            image[i] = c.image + static_cast<int64_t>(row / (c.out_height * c.out_width)) * c.height * c.width * c.channels;
            // A window far above every image is zeros.
            top[i] = row < c.out.m ? within / c.out_width * c.down - c.border : -(1 << 20);
            left[i] = within % c.out_width * c.across - c.border;
        }
    }

    // Starts copying the tile of columns `step` * DEPTH on.
    __device__ void copy(__nv_bfloat16* to, int step) const {
        int column = step * DEPTH + threadIdx.x % CHUNKS * CHUNK, tap = column / c.channels, channel = column % c.channels;
        int down = tap / c.columns, across = tap % c.columns;
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            int y = top[i] + down, x = left[i] + across;
            bool there = down < c.rows && y >= 0 && y < c.height && x >= 0 && x < c.width;
            const __nv_bfloat16* from = there ? image[i] + (y * c.width + x) * c.channels + channel : c.image;
            copy_async(to + place(threadIdx.x / CHUNKS + i * (THREADS / CHUNKS), threadIdx.x % CHUNKS), from, there);
        }
    }
};

template <int SIDE>
__device__ inline void convolution(const ConvolutionArgs<__nv_bfloat16>& c) {
    TileOf tile = tile_of(c.out, SIDE, SIDE);
    int k = c.rows * c.columns * c.channels;
    Windows<SIDE, 128> a(c, tile.first_row);
    MatrixRows<SIDE, 128> w(c.w, k, tile.first_column, c.out.n, k);
    product<SIDE, SIDE, SIDE / 2, SIDE / 2>(a, w, k, c.out, tile);
}

extern "C" __global__ void __launch_bounds__(128, 2) convolution_128(ConvolutionArgs<__nv_bfloat16> c) {
    convolution<128>(c);
}
extern "C" __global__ void __launch_bounds__(128, 4) convolution_64(ConvolutionArgs<__nv_bfloat16> c) {
    convolution<64>(c);
}
extern "C" __global__ void __launch_bounds__(256, 2) convolution_f32(ConvolutionArgs<float> c) {
    int k = c.rows * c.columns * c.channels;
    auto a = [&](int row, int column) {
        int tap = column / c.channels, within = row % (c.out_height * c.out_width);
        int y = within / c.out_width * c.down - c.border + tap / c.columns;
        int x = within % c.out_width * c.across - c.border + tap % c.columns;
        if (y < 0 || y >= c.height || x < 0 || x >= c.width) return 0.0f;
        int64_t image = row / (c.out_height * c.out_width);
        return c.image[((image * c.height + y) * c.width + x) * c.channels + column % c.channels];
    };
    product_f32(a, c.w, k, k, c.out);
}
