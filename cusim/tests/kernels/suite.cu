// Kernels as programs have them, for the tests that run with all checks, and whose mutants must be caught.
#include <cuda_fp16.h>
#include <mma.h>

// Sum of each block's 256 values: shared memory, then shuffles.   launch: block 256
extern "C" __global__ void reduce(const float* __restrict__ x, float* __restrict__ sums, int n) {
    __shared__ float part[8];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = i < n ? x[i] : 0.f;
    for (int o = 16; o; o >>= 1) v += __shfl_down_sync(~0u, v, o);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = threadIdx.x < 8 ? part[threadIdx.x] : 0.f;
        for (int o = 4; o; o >>= 1) v += __shfl_down_sync(~0u, v, o);
        if (threadIdx.x == 0) sums[blockIdx.x] = v;
    }
}

// The same in a tree in shared memory, the last warp on its own.   launch: block 256
extern "C" __global__ void reduce_tree(const float* __restrict__ x, float* __restrict__ sums, int n) {
    __shared__ float tree[256];
    int i = blockIdx.x * blockDim.x + threadIdx.x, t = threadIdx.x;
    tree[t] = i < n ? x[i] : 0.f;
    __syncthreads();
    for (int o = 128; o >= 32; o >>= 1) {
        if (t < o) tree[t] += tree[t + o];
        __syncthreads();
    }
    if (t < 32) {
        for (int o = 16; o; o >>= 1) {
            float v = tree[t] + (t < o ? tree[t + o] : 0.f);
            __syncwarp();
            tree[t] = v;
            __syncwarp();
        }
    }
    if (t == 31) sums[blockIdx.x] = tree[0];
}

// y = (x - mean) * rstd over rows of n <= 256.   launch: grid rows, block 256
extern "C" __global__ void layernorm(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float sums[2][8];
    int t = threadIdx.x;
    float v = t < n ? x[(size_t)blockIdx.x * n + t] : 0.f;
    float s = v, q = v * v;
    for (int o = 16; o; o >>= 1) {
        s += __shfl_xor_sync(~0u, s, o);
        q += __shfl_xor_sync(~0u, q, o);
    }
    if (t % 32 == 0) {
        sums[0][t / 32] = s;
        sums[1][t / 32] = q;
    }
    __syncthreads();
    s = q = 0.f;
    for (int w = 0; w < 8; ++w) {
        s += sums[0][w];
        q += sums[1][w];
    }
    float mean = s / n, rstd = rsqrtf(q / n - mean * mean + 1e-5f);
    if (t < n) y[(size_t)blockIdx.x * n + t] = (v - mean) * rstd;
}

// Softmax over rows of n, a warp per row.   launch: grid ceil(rows/4), block 128
extern "C" __global__ void softmax(const float* __restrict__ x, float* __restrict__ y, int rows, int n) {
    int lane = threadIdx.x % 32, row = blockIdx.x * 4 + threadIdx.x / 32;
    if (row >= rows) return;
    float top = -INFINITY, sum = 0.f;
    for (int i = lane; i < n; i += 32) top = fmaxf(top, x[row * n + i]);
    for (int o = 16; o; o >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, o));
    for (int i = lane; i < n; i += 32) sum += expf(x[row * n + i] - top);
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    for (int i = lane; i < n; i += 32) y[row * n + i] = expf(x[row * n + i] - top) / sum;
}

// 32 x 32 tiles through shared memory.   launch: grid (ceil(w/32), ceil(h/32)), block (32, 8)
extern "C" __global__ void transpose(const float* __restrict__ x, float* __restrict__ y, int w, int h) {
    __shared__ float tile[32][33];
    int c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32 + threadIdx.y;
    for (int i = 0; i < 32; i += 8)
        if (c < w && r + i < h) tile[threadIdx.y + i][threadIdx.x] = x[(r + i) * w + c];
    __syncthreads();
    c = blockIdx.y * 32 + threadIdx.x;
    r = blockIdx.x * 32 + threadIdx.y;
    for (int i = 0; i < 32; i += 8)
        if (c < h && r + i < w) y[(r + i) * h + c] = tile[threadIdx.x][threadIdx.y + i];
}

// Counts of 64 kinds, in shared memory first.   launch: block 128
extern "C" __global__ void histogram(const int* __restrict__ x, int* __restrict__ counts, int n) {
    __shared__ int local[64];
    if (threadIdx.x < 64) local[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[x[i] & 63], 1);
    __syncthreads();
    if (threadIdx.x < 64) atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

// Inclusive sums of 256 values per block.   launch: block 256
extern "C" __global__ void scan(const int* __restrict__ x, int* __restrict__ y, int n) {
    __shared__ int ends[8];
    int i = blockIdx.x * 256 + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int v = i < n ? x[i] : 0;
    for (int o = 1; o < 32; o <<= 1) {
        int below = __shfl_up_sync(~0u, v, o);
        if (lane >= o) v += below;
    }
    if (lane == 31) ends[warp] = v;
    __syncthreads();
    for (int w = 0; w < warp; ++w) v += ends[w];
    if (i < n) y[i] = v;
}

// One sum over all blocks: the last block to finish adds up the others' parts.   launch: grid <= 64, block 64
extern "C" __global__ void last_block_sum(const int* __restrict__ x, int* parts, int* done, int* out, int n) {
    __shared__ int sum;
    __shared__ bool last;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i < n) atomicAdd(&sum, x[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(done, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        int total = 0;
        for (int b = 0; b < gridDim.x; ++b) total += parts[b];
        *out = total;
    }
}

// C = A B in f16, 16 x 16 tiles, a warp per tile.   launch: grid (n/16, m/16), block 32
extern "C" __global__ void wmma_gemm(const half* a, const half* b, float* c, int n, int k) {
    using namespace nvcuda::wmma;
    fragment<matrix_a, 16, 16, 16, half, row_major> fa;
    fragment<matrix_b, 16, 16, 16, half, row_major> fb;
    fragment<accumulator, 16, 16, 16, float> acc;
    fill_fragment(acc, 0.f);
    for (int i = 0; i < k; i += 16) {
        load_matrix_sync(fa, a + blockIdx.y * 16 * k + i, k);
        load_matrix_sync(fb, b + i * n + blockIdx.x * 16, n);
        mma_sync(acc, fa, fb, acc);
    }
    store_matrix_sync(c + blockIdx.y * 16 * n + blockIdx.x * 16, acc, n, mem_row_major);
}

// Neighbouring halves of one word written by different threads, then read reversed.   launch: block 256
extern "C" __global__ void half_words(const float* __restrict__ x, half* __restrict__ y) {
    __shared__ half words[256];
    words[threadIdx.x] = __float2half(x[threadIdx.x]);
    __syncthreads();
    y[threadIdx.x] = words[255 - threadIdx.x];
}

// The first warps fill a buffer again and again, the others empty it; named barriers hand it back and forth.
// launch: grid 1, block 128
extern "C" __global__ void producer_consumer(const int* x, int* y, int rounds) {
    __shared__ int buffer[64];
    int i = threadIdx.x % 64;
    if (threadIdx.x < 64) {
        for (int r = 0; r < rounds; ++r) {
            if (r > 0) asm volatile("bar.sync 2, 128;" ::: "memory");
            buffer[63 - i] = x[r * 64 + i];
            asm volatile("bar.arrive 1, 128;" ::: "memory");
        }
    } else {
        for (int r = 0; r < rounds; ++r) {
            asm volatile("bar.sync 1, 128;" ::: "memory");
            y[r * 64 + i] = buffer[i];
            if (r + 1 < rounds) asm volatile("bar.arrive 2, 128;" ::: "memory");
        }
    }
}
