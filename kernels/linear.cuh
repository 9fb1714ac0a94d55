// What matrix products and convolutions of encoders and decoders share: C = activation(A W^T + bias + residual), where W (n, k) is
// row-major and A (m, k) is what a source of rows says it is (rows of a matrix, windows of an image). With SWIGLU, C (m, n / 2) =
// silu(first) * second of each two neighbours of A W^T, whose W has the rows of gates and of ups in turn.
//
// bf16 or f16 (T): tiles of BM x BN of C, a warp for WM x WN of it, mma.m16n8k16 with f32 sums over k in ascending order:
// an element has the same bits whatever tile computes it, so nothing depends on what else is in a batch. Operands come in tiles of
// DEPTH columns through STAGES stages of shared memory, filled by cp.async while others are multiplied. Rows of a tile
// are four 16-byte chunks; chunk c of row r lies at c ^ (r / 2 % 4), so that neither ldmatrix nor cp.async meets in a
// bank. The epilogue passes 16 rows of each warp at a time through shared memory, in f32, so that rows are read and
// written in whole sectors.
// f32: 64 x 64 tiles, 256 threads.
#pragma once

#include "activation.cuh"
#include "vector.cuh"

// Where sums go.
struct Output {
    const float* bias;     // (n) or null
    const void* residual;  // (m, n) or null; of c's type
    void* c;               // (m, n)
    int64_t residual_row, c_row;
    int m, n;
    int finish;
    int wide;  // whether c and residual are f32, else of the operands' type
};

// Four values of a bias from `column` on, a multiple of 4; zeros without one.
__device__ inline Four bias_of(const Output& out, int column) {
    bool there = out.bias && column < out.n;
    return there ? load_four(out.bias + column) : Four{};
}

template <typename T>
__device__ inline void finish(const Output& out, int row, int column, Four sum) {
    if (out.residual)
        sum = sum + load_four(static_cast<const T*>(out.residual) + row * out.residual_row + column);
    T* c = static_cast<T*>(out.c) + row * out.c_row;
    if (out.finish == SWIGLU) {
        auto gated = [](float gate, float up) { return __fdividef(gate, 1.0f + __expf(-gate)) * up; };
        store_two(c + column / 2, gated(sum.at[0], sum.at[1]), gated(sum.at[2], sum.at[3]));
        return;
    }
#pragma unroll
    for (int e = 0; e < FOUR; ++e) sum.at[e] = activate(sum.at[e], out.finish);
    store_four(c + column, sum);
}

// Writes four neighbours, of a column that is a multiple of 4.
template <typename T>
__device__ inline void finish(const Output& out, int row, int column, Four sum, Four bias) {
    if (row >= out.m || column >= out.n) return;
    if (out.wide)
        finish<float>(out, row, column, sum + bias);
    else
        finish<T>(out, row, column, sum + bias);
}

// The tile of a block. Blocks that run at the same time share rows of A and of W: eight tiles of m, then the next of n.
struct TileOf {
    int first_row, first_column;
};

__device__ inline TileOf tile_of(const Output& out, int tile_rows, int tile_columns) {
    constexpr int GROUP = 8;
    int down = (out.m + tile_rows - 1) / tile_rows, across = (out.n + tile_columns - 1) / tile_columns;
    int group = blockIdx.x / (GROUP * across), within = blockIdx.x % (GROUP * across);
    int height = min(GROUP, down - group * GROUP);
    return {(group * GROUP + within % height) * tile_rows, within / height * tile_columns};
}

constexpr int DEPTH = 32, CHUNK = 8, CHUNKS = DEPTH / CHUNK, STAGES = 3;

// Elements of a tile of shared memory before chunk `chunk` of row `row`.
__device__ inline int place(int row, int chunk) { return (row * CHUNKS + (chunk ^ (row / 2 % CHUNKS))) * CHUNK; }

// Rows of a row-major matrix, of which this thread copies chunk threadIdx.x % 4 of every THREADS / 4th.
template <int ROWS, int THREADS, typename T = __nv_bfloat16>
struct MatrixRows {
    static constexpr int MINE = ROWS * CHUNKS / THREADS;
    const T* from[MINE];
    int there, column, k;

    __device__ MatrixRows(const T* matrix, int64_t stride, int first, int rows, int k)
        : there(0), column(threadIdx.x % CHUNKS * CHUNK), k(k) {
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            int row = first + threadIdx.x / CHUNKS + i * (THREADS / CHUNKS);
            there |= (row < rows) << i;
            from[i] = row < rows ? matrix + row * stride + column : matrix;
        }
    }

    // Starts copying the tile of columns `step` * DEPTH on; zeros beyond the matrix.
    __device__ void copy(T* to, int step) const {
        bool inside = step * DEPTH + column < k;
#pragma unroll
        for (int i = 0; i < MINE; ++i) {
            bool copied = inside && (there >> i & 1);
            copy_async(to + place(threadIdx.x / CHUNKS + i * (THREADS / CHUNKS), threadIdx.x % CHUNKS),
                       copied ? from[i] + step * DEPTH : from[i], copied);
        }
    }
};

// Sources whose tiles do not come by cp.async alone store them behind the products that hide their loads: `copy` loads,
// `land` stores. This is for all others.
template <typename Rows, typename T>
__device__ inline void land(const Rows&, T*, int) {}

// Where a warp's part of a block's tile begins.
struct WarpTile {
    int row, column;
};

template <int BN, int WM, int WN>
__device__ inline WarpTile warp_tile() {
    int warp = threadIdx.x / WARP;
    return {warp / (BN / WN) * WM, warp % (BN / WN) * WN};
}

// Writes a block's sums, of which each warp has WM x WN in fragments, by way of what the stages were.
template <int BN, int WM, int WN, typename T>
__device__ inline void write_tile(const float (&sums)[WM / 16][WN / 8][4], float* slabs, const Output& out, TileOf tile) {
    constexpr int DOWN = WM / 16, ACROSS = WN / 8;
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    WarpTile mine = warp_tile<BN, WM, WN>();
    copy_wait<0>();
    __syncthreads();
    // Eight floats more than a row keep the rows of a fragment in different banks.
    constexpr int STRIDE = WN + 8, LANES = WN / 4, ROWS = WARP / LANES;
    float* slab = slabs + warp * 16 * STRIDE;
    int column = lane % LANES * 4;
    Four bias = bias_of(out, tile.first_column + mine.column + column);
#pragma unroll
    for (int i = 0; i < DOWN; ++i) {
        __syncwarp();
#pragma unroll
        for (int j = 0; j < ACROSS; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float* to = slab + (lane / 4 + 8 * half) * STRIDE + 8 * j + lane % 4 * 2;
                *reinterpret_cast<float2*>(to) = make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
            }
        __syncwarp();
#pragma unroll
        for (int pass = 0; pass < 16 / ROWS; ++pass) {
            int row = pass * ROWS + lane / LANES;
            Four sum = load_four(slab + row * STRIDE + column);
            finish<T>(out, tile.first_row + mine.row + 16 * i + row, tile.first_column + mine.column + column, sum, bias);
        }
    }
}

// Takes the tiles of A and W through the stages, `steps` of DEPTH columns, and gives a warp's operands of each 32 bytes of these:
// multiply(i, j, left, b0, b1) for each 16 x 8 values of its part. begin(step) comes before a step's, when its tiles are there, and
// end(step) behind them.
template <int BM, int BN, int WM, int WN, typename T, typename RowsOfA, typename RowsOfW, typename Begin, typename Multiply,
          typename End>
__device__ inline void each_step(const RowsOfA& a, RowsOfW& w, int steps, T* stages, Begin begin, Multiply multiply, End end) {
    constexpr int STAGE = (BM + BN) * DEPTH, DOWN = WM / 16, ACROSS = WN / 8;
    int lane = threadIdx.x % WARP;
    WarpTile mine = warp_tile<BN, WM, WN>();
    auto copy = [&](int step) {
        T* to = stages + step % STAGES * STAGE;
        if (step < steps) {
            a.copy(to, step);
            w.copy(to + BM * DEPTH, step);
        }
        // Empty groups at the end keep the count of those under way.
        copy_commit();
    };
    auto stored = [&](int step) {
        if (step < steps) land(w, stages + step % STAGES * STAGE + BM * DEPTH, step);
    };
#pragma unroll
    for (int step = 0; step < STAGES - 1; ++step) {
        copy(step);
        stored(step);
    }
    for (int step = 0; step < steps; ++step) {
        copy_wait<STAGES - 2>();
        // Behind it all have what they wait for, and none still reads the stage that is filled next.
        __syncthreads();
        copy(step + STAGES - 1);
        begin(step);
        const T* left_tile = stages + step % STAGES * STAGE;
        const T* right_tile = left_tile + BM * DEPTH;
#pragma unroll
        for (int depth = 0; depth < CHUNKS; depth += 2) {
            uint32_t left[DOWN][4], right[ACROSS / 2][4];
#pragma unroll
            for (int i = 0; i < DOWN; ++i)
                load_tiles(left[i], left_tile + place(mine.row + 16 * i + lane % 16, depth + lane / 16));
#pragma unroll
            for (int j = 0; j < ACROSS / 2; ++j) {
                int row = mine.column + 16 * j + lane / 16 * 8 + lane % 8;
                load_tiles(right[j], right_tile + place(row, depth + lane / 8 % 2));
            }
#pragma unroll
            for (int i = 0; i < DOWN; ++i)
#pragma unroll
                for (int j = 0; j < ACROSS; ++j)
                    multiply(i, j, left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
        end(step);
        stored(step + STAGES - 1);
    }
}

// Computes a block's tile of C. Block: BM / WM * BN / WN warps; dynamic shared memory: STAGES * (BM + BN) * DEPTH * 2 bytes.
template <int BM, int BN, int WM, int WN, typename T = __nv_bfloat16, typename RowsOfA, typename RowsOfW>
__device__ inline void product(const RowsOfA& a, RowsOfW&& w, int k, const Output& out, TileOf tile) {
    extern __shared__ __align__(128) char dynamic[];
    T* stages = reinterpret_cast<T*>(dynamic);
    float sums[WM / 16][WN / 8][4] = {};
    auto nothing = [](int) {};
    auto multiply = [&](int i, int j, const uint32_t (&left)[4], uint32_t b0, uint32_t b1) {
        mma(sums[i][j], left, b0, b1, T());
    };
    each_step<BM, BN, WM, WN>(a, w, (k + DEPTH - 1) / DEPTH, stages, nothing, multiply, nothing);
    write_tile<BN, WM, WN, T>(sums, reinterpret_cast<float*>(stages), out, tile);
}

// The same in f32, of A(row, column) that a function gives (zero beyond the matrix) and W (n, k) with rows of w_row values.
template <typename ElementOfA>
__device__ inline void product_f32(ElementOfA a_of, const float* w, int64_t w_row, int k, const Output& out) {
    constexpr int TILE = 64, DEEP = 16;
    __shared__ __align__(16) float a[DEEP][TILE + 4], b[DEEP][TILE + 4];
    TileOf tile = tile_of(out, TILE, TILE);
    int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float sums[4][4] = {};
    for (int first = 0; first < k; first += DEEP) {
        for (int e = threadIdx.x; e < TILE * DEEP; e += 256) {
            int i = e / DEEP, depth = e % DEEP, at = first + depth, output = tile.first_column + i;
            a[depth][i] = at < k && tile.first_row + i < out.m ? a_of(tile.first_row + i, at) : 0.0f;
            b[depth][i] = at < k && output < out.n ? w[output * w_row + at] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int depth = 0; depth < DEEP; ++depth)
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(a[depth][row + i], b[depth][column + j], sums[i][j]);
        __syncthreads();
    }
    Four bias = bias_of(out, tile.first_column + column);
#pragma unroll
    for (int i = 0; i < 4; ++i)
        finish<__nv_bfloat16>(out, tile.first_row + row + i, tile.first_column + column,
               {{sums[i][0], sums[i][1], sums[i][2], sums[i][3]}}, bias);
}
