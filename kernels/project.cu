// Frozen feature rows, gathered by number, to d values: linear layer and layer normalization, and the gradient of its
// weight. Reference: src/ops/project/mod.rs.
//
// Rows are f16 as the feature store has them, `width` values of 16-bit each, width a multiple of 8. Forward multiplies f16
// by f16; backward multiplies bf16 by bf16, since gradients may be smaller than f16 can hold. Both sum in f32. d <= 256;
// columns beyond d, up to the next multiple of 8 or 16, are zero in shared memory and left out of the products.
// Shared memory holds rows of whole 16-byte chunks; chunk c of row r lies at c ^ (r % 8), so that the eight rows of an
// ldmatrix tile lie in different banks.
#include "common.cuh"

// out = x rounded to f16.
struct ToF16 {
    const float* x;
    __half* out;
    int64_t length;
};

extern "C" __global__ void __launch_bounds__(256) to_f16(const __grid_constant__ Instances<ToF16, 8> all) {
    each_instance(all, [](const ToF16& t, int block) {
        int64_t i = block * 256ll + threadIdx.x;
        if (i < t.length) t.out[i] = __float2half_rn(t.x[i]);
    });
}

struct ProjectForward {
    const __half* table;
    const uint32_t* rows;
    const __half* weight;  // (d, width)
    const float* bias;
    const float* gamma;
    const float* beta;
    float* xhat;
    float* out;
    // In the place of both: the rows before gamma and beta, where readers apply these.
    __half* normalized;
    float* rstd;
    int n, width, d;
    float eps;
};

// Of which none writes what another does.
using Projections = Instances<ProjectForward, 8>;

constexpr int ROWS = 128, DEPTH = 64, CHUNK = 8, CHUNKS = DEPTH / CHUNK;

__device__ inline int swizzled(int row, int chunk, int chunks) { return (row * chunks + (chunk ^ (row % 8))) * CHUNK; }

// Starts copying COUNT gathered rows from number `first` on, CHUNKS chunks of each from `first_column` on; zeros where the
// features end.
template <int COUNT, int CHUNKS>
__device__ inline void copy_features(__half* to, const __half* table, const uint32_t* rows, int first, int n,
                                     int first_column, int width) {
    for (int e = threadIdx.x; e < COUNT * CHUNKS; e += 256) {
        int row = e / CHUNKS, chunk = e % CHUNKS, column = first_column + chunk * CHUNK;
        bool there = first + row < n && column < width;
        const __half* from = there ? table + rows[first + row] * static_cast<int64_t>(width) + column : table;
        copy_async(to + swizzled(row, chunk, CHUNKS), from, there);
    }
}

__device__ inline void store_four(float* to, float4 x) { *reinterpret_cast<float4*>(to) = x; }
__device__ inline void store_four(__half* to, float4 x) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack(x.x, x.y, __half()), pack(x.z, x.w, __half()));
}
__device__ inline void store_one(float* to, float x) { *to = x; }
__device__ inline void store_one(__half* to, float x) { *to = __float2half_rn(x); }

// Copies 8 rows of a warp's results from shared memory, where they lie end to end as they shall in global memory.
template <typename T>
__device__ inline void store_rows(T* to, const float* from, int64_t row, int n, int d) {
    int lane = threadIdx.x % WARP;
    int count = row < n ? min(static_cast<int64_t>(8), n - row) * d : 0;
    to += row * d;
    if (d % 4 == 0) {
        for (int i = 4 * lane; i < count; i += 4 * WARP) store_four(to + i, *reinterpret_cast<const float4*>(from + i));
    } else {
        for (int i = lane; i < count; i += WARP) store_one(to + i, from[i]);
    }
}

// 128 TALL rows by all of d. Eight warps, 16 TALL rows each, so that each part of the weight serves TALL tiles once it is in
// registers, and all rows of the block once it is in shared memory; two stages of 64 columns of the features, copied while
// the other is multiplied. COLUMNS is d rounded up to 112, 128 or 256; blocks: tiles of n. Dynamic shared memory:
// 2 * (128 TALL + COLUMNS) * 128 bytes, which the results pass through on their way out.
template <int COLUMNS, int TALL>
__device__ inline void project_forward(const Projections& all) {
    int which = first_instance(all);
    const ProjectForward& p = all.of[which];
    extern __shared__ __align__(128) __half stages[];
    constexpr int BLOCK = ROWS * TALL, STAGE = (BLOCK + COLUMNS) * DEPTH, TILES = COLUMNS / 8;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, first = (blockIdx.x - all.first[which]) * BLOCK;
    int tiles = (p.d + 7) / 8, steps = (p.width + DEPTH - 1) / DEPTH;
    auto copy = [&](int step) {
        __half* x = stages + step % 2 * STAGE;
        __half* w = x + BLOCK * DEPTH;
        copy_features<BLOCK, CHUNKS>(x, p.table, p.rows, first, p.n, step * DEPTH, p.width);
        for (int e = threadIdx.x; e < (tiles + 1) / 2 * 16 * CHUNKS; e += 256) {
            int row = e / CHUNKS, chunk = e % CHUNKS, column = step * DEPTH + chunk * CHUNK;
            bool there = row < p.d && column < p.width;
            copy_async(w + swizzled(row, chunk, CHUNKS), there ? p.weight + row * p.width + column : p.weight, there);
        }
        copy_commit();
    };
    float sums[TALL][TILES][4] = {};
    copy(0);
    for (int step = 0; step < steps; ++step) {
        if (step + 1 < steps) {
            copy(step + 1);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        const __half* x = stages + step % 2 * STAGE;
        const __half* w = x + BLOCK * DEPTH;
#pragma unroll
        for (int depth = 0; depth < CHUNKS; depth += 2) {
            uint32_t left[TALL][4];
#pragma unroll
            for (int m = 0; m < TALL; ++m)
                load_tiles(left[m], x + swizzled((warp * TALL + m) * 16 + lane % 16, depth + lane / 16, CHUNKS));
#pragma unroll
            for (int tile = 0; tile < TILES; tile += 2) {
                if (tile >= tiles) break;
                uint32_t right[4];
                load_tiles(right, w + swizzled(tile * 8 + lane / 16 * 8 + lane % 8, depth + lane / 8 % 2, CHUNKS));
#pragma unroll
                for (int m = 0; m < TALL; ++m) {
                    mma_f16(sums[m][tile], left[m], right[0], right[1]);
                    if (tile + 1 < tiles) mma_f16(sums[m][tile + 1], left[m], right[2], right[3]);
                }
            }
        }
        __syncthreads();
    }
    // Each row's values lie with the four lanes of a quad: lane 4 r + q holds columns 8 t + 2 q and the next of rows r and
    // r + 8. Normalized in place, then stored by way of the warp's own part of shared memory.
    float* mine = reinterpret_cast<float*>(stages) + warp * 8 * p.d;
#pragma unroll
    for (int m = 0; m < TALL; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int64_t row = first + (warp * TALL + m) * 16 + 8 * half;
            float sum = 0;
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    int column = tile * 8 + lane % 4 * 2 + e;
                    float& value = sums[m][tile][2 * half + e];
                    value = column < p.d ? value + p.bias[column] : 0.0f;
                    sum += value;
                }
            float mean = quad_sum(sum) / p.d, squares = 0;
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float distance = tile * 8 + lane % 4 * 2 + e < p.d ? sums[m][tile][2 * half + e] - mean : 0.0f;
                    squares += distance * distance;
                }
            float rstd = rsqrtf(quad_sum(squares) / p.d + p.eps);
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    int column = tile * 8 + lane % 4 * 2 + e;
                    float& value = sums[m][tile][2 * half + e];
                    value = (value - mean) * rstd;
                    if (column < p.d) mine[lane / 4 * p.d + column] = value;
                }
            __syncwarp();
            if (p.normalized) {
                store_rows(p.normalized, mine, row, p.n, p.d);
            } else {
                store_rows(p.xhat, mine, row, p.n, p.d);
                __syncwarp();
#pragma unroll
                for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        int column = tile * 8 + lane % 4 * 2 + e;
                        if (column < p.d)
                            mine[lane / 4 * p.d + column] =
                                sums[m][tile][2 * half + e] * p.gamma[column] + p.beta[column];
                    }
                __syncwarp();
                store_rows(p.out, mine, row, p.n, p.d);
            }
            __syncwarp();
            if (lane % 4 == 0 && row + lane / 4 < p.n) p.rstd[row + lane / 4] = rstd;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 1) project_forward_128(const __grid_constant__ Projections all) {
    project_forward<128, 1>(all);
}
extern "C" __global__ void __launch_bounds__(256, 1) project_forward_112_tall(const __grid_constant__ Projections all) {
    project_forward<112, 2>(all);
}
extern "C" __global__ void __launch_bounds__(256, 1) project_forward_256(const __grid_constant__ Projections all) {
    project_forward<256, 1>(all);
}

// partial[split] (d, width) = sum over the rows of a split of dy[row]^T x[row]. dy is bf16 with rows of `stride` values.
struct ProjectBackward {
    const __half* table;
    const uint32_t* rows;
    const __nv_bfloat16* dy;
    float* partial;
    int n, width, d, stride, splits, padding;
};

// The same.
using ProjectionsBackward = Instances<ProjectBackward, 8>;

constexpr int BACKWARD_ROWS = 32;

// All of d by WIDE columns of the features. Eight warps, WIDE / 8 columns each; two stages of 32 rows. DS is d rounded up
// to 128 or 256; blocks: tiles of width for each of the splits. Dynamic shared memory: 2 * 32 * (WIDE + DS) * 2 bytes.
template <int DS, int WIDE>
__device__ inline void project_backward(const ProjectionsBackward& all) {
    int which = first_instance(all), block = blockIdx.x - all.first[which];
    const ProjectBackward& p = all.of[which];
    int across = (p.width + WIDE - 1) / WIDE, split = block / across;
    extern __shared__ __align__(128) __half stages[];
    constexpr int STAGE = BACKWARD_ROWS * (WIDE + DS), MINE = WIDE / 8;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, first_column = block % across * WIDE;
    int tiles = (p.d + 15) / 16;
    int steps = (p.n + BACKWARD_ROWS - 1) / BACKWARD_ROWS, per_split = (steps + p.splits - 1) / p.splits;
    int first = split * per_split, last = min(first + per_split, steps);
    auto copy = [&](int step) {
        __half* x = stages + step % 2 * STAGE;
        __half* dy = x + BACKWARD_ROWS * WIDE;
        int first_row = step * BACKWARD_ROWS;
        copy_features<BACKWARD_ROWS, WIDE / CHUNK>(x, p.table, p.rows, first_row, p.n, first_column, p.width);
        for (int e = threadIdx.x; e < BACKWARD_ROWS * tiles * 2; e += 256) {
            int k = e / (tiles * 2), chunk = e % (tiles * 2), row = step * BACKWARD_ROWS + k;
            bool there = row < p.n && chunk * CHUNK < p.stride;
            const __nv_bfloat16* from = there ? p.dy + row * static_cast<int64_t>(p.stride) + chunk * CHUNK : p.dy;
            copy_async(dy + swizzled(k, chunk, DS / CHUNK), from, there);
        }
        copy_commit();
    };
    float sums[DS / 16][MINE / 8][4] = {};
    if (first < last) copy(first);
    for (int step = first; step < last; ++step) {
        if (step + 1 < last) {
            copy(step + 1);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        const __half* x = stages + step % 2 * STAGE;
        const __half* dy = x + BACKWARD_ROWS * WIDE;
#pragma unroll
        for (int k = 0; k < BACKWARD_ROWS; k += 16) {
            uint32_t right[MINE / 16][4];
#pragma unroll
            for (int j = 0; j < MINE / 16; ++j) {
                int row = k + lane / 8 % 2 * 8 + lane % 8, chunk = warp * (MINE / 8) + 2 * j + lane / 16;
                load_tiles_transposed(right[j], x + swizzled(row, chunk, WIDE / CHUNK));
#pragma unroll
                for (int e = 0; e < 4; ++e) right[j][e] = f16_to_bf16(right[j][e]);
            }
#pragma unroll
            for (int tile = 0; tile < DS / 16; ++tile) {
                if (tile >= tiles) break;
                uint32_t left[4];
                int row = k + lane / 16 * 8 + lane % 8, chunk = 2 * tile + lane / 8 % 2;
                load_tiles_transposed(left, dy + swizzled(row, chunk, DS / CHUNK));
#pragma unroll
                for (int j = 0; j < MINE / 16; ++j) {
                    mma_bf16(sums[tile][2 * j], left, right[j][0], right[j][1]);
                    mma_bf16(sums[tile][2 * j + 1], left, right[j][2], right[j][3]);
                }
            }
        }
        __syncthreads();
    }
    float* partial = p.partial + static_cast<int64_t>(split) * p.d * p.width;
#pragma unroll
    for (int tile = 0; tile < DS / 16; ++tile)
#pragma unroll
        for (int j = 0; j < MINE / 8; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                int row = tile * 16 + lane / 4 + 8 * half;
                int column = first_column + warp * MINE + j * 8 + lane % 4 * 2;
                // The width is a multiple of 8: both of a pair are there or neither.
                if (row < p.d && column < p.width)
                    *reinterpret_cast<float2*>(partial + static_cast<int64_t>(row) * p.width + column) =
                        make_float2(sums[tile][j][2 * half], sums[tile][j][2 * half + 1]);
            }
}

extern "C" __global__ void __launch_bounds__(256, 1) project_backward_128(const __grid_constant__ ProjectionsBackward all) {
    project_backward<128, 256>(all);
}
extern "C" __global__ void __launch_bounds__(256, 1) project_backward_256(const __grid_constant__ ProjectionsBackward all) {
    project_backward<256, 128>(all);
}
