// Windows of images as rows, and their maxima: what convolutions and max pooling with gradients are made of. f32.
//
// Images (n, height, width, channels), windows of size x size pixels, `stride` apart, `border` pixels of nothing around the image:
// out_height x out_width of them. Rows of windows (n * out_height * out_width, size * size * channels), the channel fastest. A block
// of 128 threads per window, backward per pixel of the images, a thread for each 128th of its values; no shared memory.
// Deterministic: a pixel sums over the windows that it is in, in their order. Reference: src/ops/convolution/windows.rs,
// src/ops/pool/differentiable/mod.rs.
#include "common.cuh"

constexpr int THREADS = 128;

struct Windows {
    const float* from;
    float* to;
    uint32_t* rows;  // of maxima: the pixel of each, among those of all images
    int height, width, channels, out_height, out_width, size, stride, border, adds, padding;
};

// Of a block: its window's image, and where the window begins in it.
struct Window {
    int image, top, left;

    __device__ explicit Window(const Windows& w) {
        int within = blockIdx.x % (w.out_height * w.out_width);
        image = blockIdx.x / (w.out_height * w.out_width);
        top = within / w.out_width * w.stride - w.border;
        left = within % w.out_width * w.stride - w.border;
    }
};

// The windows that hold place `at` of one of an image's sides, of which there are `count`: from `first` to before `end`.
struct Over {
    int first, end;

    __device__ Over(const Windows& w, int at, int count) {
        int place = at + w.border;
        first = place < w.size ? 0 : (place - w.size) / w.stride + 1;
        end = min(place / w.stride + 1, count);
    }
};

// Calls `visit` with each window that this block's pixel is in, and the pixel's place there.
template <typename Visit>
__device__ inline void each_window(const Windows& w, Visit visit) {
    int y = blockIdx.x / w.width % w.height, x = blockIdx.x % w.width;
    int64_t first = static_cast<int64_t>(blockIdx.x / (w.height * w.width)) * w.out_height * w.out_width;
    Over down(w, y, w.out_height), across(w, x, w.out_width);
    for (int i = down.first; i < down.end; ++i)
        for (int j = across.first; j < across.end; ++j)
            visit(first + i * w.out_width + j,
                  (y + w.border - i * w.stride) * w.size + x + w.border - j * w.stride);
}

// to: a row for each window; zeros where a window reaches beyond the image.
extern "C" __global__ void __launch_bounds__(THREADS) windows_unfold(Windows w) {
    Window window(w);
    int columns = w.size * w.size * w.channels;
    const float* image = w.from + static_cast<int64_t>(window.image) * w.height * w.width * w.channels;
    float* to = w.to + static_cast<int64_t>(blockIdx.x) * columns;
    for (int column = threadIdx.x; column < columns; column += THREADS) {
        int tap = column / w.channels, y = window.top + tap / w.size, x = window.left + tap % w.size;
        bool there = y >= 0 && y < w.height && x >= 0 && x < w.width;
        to[column] = there ? image[static_cast<int64_t>(y * w.width + x) * w.channels + column % w.channels] : 0.0f;
    }
}

// to: the images, each pixel the sum of its values in all rows; with `adds` added to what is there.
extern "C" __global__ void __launch_bounds__(THREADS) windows_fold(Windows w) {
    float* to = w.to + static_cast<int64_t>(blockIdx.x) * w.channels;
    for (int channel = threadIdx.x; channel < w.channels; channel += THREADS) {
        float sum = 0.0f;
        each_window(w, [&](int64_t window, int tap) {
            sum += w.from[(window * w.size * w.size + tap) * w.channels + channel];
        });
        to[channel] = w.adds ? to[channel] + sum : sum;
    }
}

// to: the largest value of each channel in each window, of equal ones the first; a NaN is larger than any number.
extern "C" __global__ void __launch_bounds__(THREADS) windows_max(Windows w) {
    Window window(w);
    int top = max(window.top, 0), left = max(window.left, 0), first = window.image * w.height * w.width;
    int bottom = min(window.top + w.size, w.height), right = min(window.left + w.size, w.width);
    for (int channel = threadIdx.x; channel < w.channels; channel += THREADS) {
        float most = -INFINITY;
        int at = first + top * w.width + left;
        for (int y = top; y < bottom; ++y)
            for (int x = left; x < right; ++x) {
                int pixel = first + y * w.width + x;
                float value = w.from[static_cast<int64_t>(pixel) * w.channels + channel];
                if (value > most || isnan(value)) {
                    most = value;
                    at = pixel;
                }
            }
        int64_t out = static_cast<int64_t>(blockIdx.x) * w.channels + channel;
        w.to[out] = most;
        w.rows[out] = at;
    }
}

// to: the images' gradients, those of each window at its maximum; with `adds` added to what is there.
extern "C" __global__ void __launch_bounds__(THREADS) windows_max_backward(Windows w) {
    float* to = w.to + static_cast<int64_t>(blockIdx.x) * w.channels;
    for (int channel = threadIdx.x; channel < w.channels; channel += THREADS) {
        float sum = 0.0f;
        each_window(w, [&](int64_t window, int) {
            int64_t at = window * w.channels + channel;
            if (w.rows[at] == blockIdx.x) sum += w.from[at];
        });
        to[channel] = w.adds ? to[channel] + sum : sum;
    }
}
