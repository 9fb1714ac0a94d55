// Matrix product of strided f32 operands, for layers whose operands are small: C = alpha A B (+ bias) (+ C), ReLU or its
// derivative.
//
//   A(i, k) = a[i * a_row + k * a_col], m x k;  B(k, j) = b[k * b_row + j * b_col], k x n;  C(i, j) = c[i * c_row + j]
//
// A launch has up to PRODUCTS of them, of which none reads what another writes, but those that add to the same C: the same
// blocks compute these one after the other. matmul_tf32: 64 x 64 tiles of C, 128 threads, operands rounded to tf32 (11 bits) on
// tensor cores, f32 sums; matmul_bf16: the same of operands rounded to bf16 (8 bits), of which tensor cores multiply twice as many
// in a cycle; of tiles at the edges both multiply what there is, in whole fragments; matmul_f32: the same tiles, 256 threads, f32
// throughout. Blocks of a product: tiles of m, of n, batch and splits.
// With splits > 1 each part of k writes a block of its own, m x n and on, which reduce_partials (reduce.cu) adds
// up. With `row_sums` the sums of A's rows over k, in f32, which are a bias's gradient where the product is its weight's, are
// put there, or behind the block of each part; A must then be contiguous along i. Reference: src/ops/matmul/mod.rs,
// src/ops/linear/rows.rs.
#include "matmul_operands.cuh"

struct Gemm {
    const float* a;
    const float* b;
    float* c;
    const float* bias;
    // As C lies: what is not above 0 there is 0 in C.
    const float* mask;
    float* row_sums;
    int a_row, a_col, b_row, b_col, c_row, mask_row;
    // From one product of a batch to the next.
    int a_batch, b_batch, c_batch, bias_batch, row_sums_batch;
    // From one part of k to the next.
    int c_split;
    int m, n, k, splits;
    float alpha;
    int accumulate, relu, batches, row_sums_add, padding;
};

// As many as an argument of 4 KB holds.
constexpr int PRODUCTS = 28;

// The part of the work that a block does.
struct Part {
    const float* a;
    const float* b;
    float* c;
    const float* bias;
    float* row_sums;
    int64_t c_row;
    // The tile's row, and its column.
    int first_i, first_j;
    int first_k, last_k;
};

// Whether A's values lie next to each other along k. A single row's do both ways; its sum is taken along i.
__device__ inline bool along_k(const Gemm& g) { return g.a_col == 1 && !g.row_sums; }

// Of a block of product g.
__device__ inline Part part_of(const Gemm& g, int block) {
    int tiles_m = (g.m + TILE - 1) / TILE, tiles_n = (g.n + TILE - 1) / TILE, tiles = tiles_m * tiles_n;
    int z = block / tiles, split = z % g.splits;
    // Blocks that follow each other read the same of the longer operand, of which a cache holds little.
    int tile = block % tiles;
    bool along_n = tiles_n < tiles_m;
    int tile_i = along_n ? tile / tiles_n : tile % tiles_m, tile_j = along_n ? tile % tiles_n : tile / tiles_m;
    int64_t batch = z / g.splits;
    // Parts of k are whole tiles.
    int length = ((g.k + DEPTH - 1) / DEPTH + g.splits - 1) / g.splits * DEPTH;
    Part part{g.a + batch * g.a_batch,
              g.b + batch * g.b_batch,
              g.c + batch * g.c_batch,
              g.bias ? g.bias + batch * g.bias_batch : nullptr,
              g.row_sums ? g.row_sums + batch * g.row_sums_batch : nullptr,
              g.c_row,
              tile_i * TILE,
              tile_j * TILE,
              min(split * length, g.k),
              min((split + 1) * length, g.k)};
    if (g.splits > 1) {
        part.c = g.c + static_cast<int64_t>(z) * g.c_split;
        part.c_row = g.n;
        if (g.row_sums) part.row_sums = part.c + static_cast<int64_t>(g.m) * g.n;
    }
    // The blocks of one column of tiles sum A's rows.
    if (part.first_j > 0) part.row_sums = nullptr;
    return part;
}

// Four values, each `next` after the one before; those beyond the first `there` are 0.
__device__ inline float4 load_four(const float* from, int64_t next, int there) {
    if (next == 1 && there >= 4 && reinterpret_cast<uintptr_t>(from) % 16 == 0)
        return *reinterpret_cast<const float4*>(from);
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (there > 0) x.x = from[0];
    if (there > 1) x.y = from[next];
    if (there > 2) x.z = from[2 * next];
    if (there > 3) x.w = from[3 * next];
    return x;
}

__device__ inline void store_four(float* to, float4 x, int there) {
    if (there >= 4 && reinterpret_cast<uintptr_t>(to) % 16 == 0) {
        __stwb(reinterpret_cast<float4*>(to), x);
        return;
    }
    to[0] = x.x;
    if (there > 1) to[1] = x.y;
    if (there > 2) to[2] = x.z;
    if (there > 3) to[3] = x.w;
}

// Rows of a tile of C in shared memory: pairs of eight rows and four columns lie in different banks.
constexpr int C_PITCH = TILE + 8;

// Stores a tile, which the block has left in shared memory, in whole rows.
template <int THREADS>
__device__ inline void store_tile(const Gemm& g, const Part& part, const float* tile) {
    __syncthreads();
    for (int e = threadIdx.x; e < TILE * TILE / 4; e += THREADS) {
        int row = e / (TILE / 4), column = e % (TILE / 4) * 4;
        int i = part.first_i + row, j = part.first_j + column, there = g.n - j;
        if (i >= g.m || there <= 0) continue;
        float* to = part.c + i * part.c_row + j;
        float4 sum = *reinterpret_cast<const float4*>(tile + row * C_PITCH + column);
        float4 zeros = make_float4(0.0f, 0.0f, 0.0f, 0.0f), ones = make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        float4 before = g.accumulate ? load_four(to, 1, there) : zeros;
        float4 bias = part.bias ? load_four(part.bias + j, 1, there) : zeros;
        float4 mask = g.mask ? load_four(g.mask + static_cast<int64_t>(i) * g.mask_row + j, 1, there) : ones;
        auto finished = [&](float sum, float before, float bias, float mask) {
            float value = g.alpha * sum + before + bias;
            if (g.relu) value = relu(value);
            return mask > 0.0f ? value : 0.0f;
        };
        float4 value = make_float4(finished(sum.x, before.x, bias.x, mask.x), finished(sum.y, before.y, bias.y, mask.y),
                                   finished(sum.z, before.z, bias.z, mask.z), finished(sum.w, before.w, bias.w, mask.w));
        store_four(to, value, there);
    }
}

// Loads a TILE x DEEP tile of an operand, element (i, k) at base[i * row + k * col], and hands four neighbours along the
// axis that is contiguous in memory (ALONG_K: that of k) at a time to `put`, the first at (i, k). Threads follow each other
// along that axis. Where it is i, each thread always has the same four.
template <bool ALONG_K, int DEEP, int THREADS, typename Put>
__device__ inline void load_tile(const float* base, int64_t row, int64_t col, int first, int rows, int first_k,
                                 int last_k, Put put) {
    constexpr int PER_LINE = (ALONG_K ? DEEP : TILE) / 4;
#pragma unroll
    for (int e = threadIdx.x; e < TILE * DEEP / 4; e += THREADS) {
        int i = ALONG_K ? e / PER_LINE : e % PER_LINE * 4, k = ALONG_K ? e % PER_LINE * 4 : e / PER_LINE;
        // How many of the four there are.
        int there = ALONG_K ? last_k - first_k - k : rows - first - i;
        if (ALONG_K ? first + i >= rows : first_k + k >= last_k) there = 0;
        put(i, k, load_four(base + (first + i) * row + (first_k + k) * col, ALONG_K ? col : row, there));
    }
}

// Adds up what the threads that loaded the same rows of A along i have summed of them.
template <int THREADS>
__device__ inline void store_row_sums(const Gemm& g, const Part& part, float4 mine, float (*shared)[TILE]) {
    __syncthreads();
    *reinterpret_cast<float4*>(&shared[threadIdx.x / (TILE / 4)][threadIdx.x % (TILE / 4) * 4]) = mine;
    __syncthreads();
    int i = part.first_i + threadIdx.x;
    if (threadIdx.x >= TILE || i >= g.m) return;
    float sum = 0;
    for (int thread = 0; thread < THREADS / (TILE / 4); ++thread) sum += shared[thread][threadIdx.x];
    part.row_sums[i] = g.splits == 1 && g.row_sums_add ? part.row_sums[i] + sum : sum;
}

__device__ inline void add(float4& sum, float4 x) {
    sum.x += x.x;
    sum.y += x.y;
    sum.z += x.z;
    sum.w += x.w;
}

template <bool A_ALONG_K, bool B_ALONG_K>
__device__ inline void tile_f32(const Gemm& g, const Part& part, float* shared) {
    constexpr int DEEP = 16, PITCH = TILE + 5;
    // Five floats apart: neither the stores along k nor the loads along i meet in a bank.
    float(*a)[PITCH] = reinterpret_cast<float(*)[PITCH]>(shared), (*b)[PITCH] = a + DEEP;
    int row = threadIdx.x / 16, column = threadIdx.x % 16;
    float sums[4][4] = {};
    float4 row_sums = {};
    for (int k = part.first_k; k < part.last_k; k += DEEP) {
        load_tile<A_ALONG_K, DEEP, 256>(part.a, g.a_row, g.a_col, part.first_i, g.m, k, part.last_k, [&](int i, int k, float4 x) {
            if (!A_ALONG_K) add(row_sums, x);
            float* to = &a[k][i];
            constexpr int NEXT = A_ALONG_K ? PITCH : 1;
            to[0] = x.x, to[NEXT] = x.y, to[2 * NEXT] = x.z, to[3 * NEXT] = x.w;
        });
        load_tile<B_ALONG_K, DEEP, 256>(part.b, g.b_col, g.b_row, part.first_j, g.n, k, part.last_k, [&](int j, int k, float4 x) {
            float* to = &b[k][j];
            constexpr int NEXT = B_ALONG_K ? PITCH : 1;
            to[0] = x.x, to[NEXT] = x.y, to[2 * NEXT] = x.z, to[3 * NEXT] = x.w;
        });
        __syncthreads();
#pragma unroll
        for (int depth = 0; depth < DEEP; ++depth) {
            float x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[i] = a[depth][row + 16 * i];
                y[i] = b[depth][column + 16 * i];
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) shared[(row + 16 * i) * C_PITCH + column + 16 * j] = sums[i][j];
    store_tile<256>(g, part, shared);
    if (!A_ALONG_K && part.row_sums)
        store_row_sums<256>(g, part, row_sums, reinterpret_cast<float(*)[TILE]>(shared));
}

template <typename Operands, bool A_ALONG_K, bool B_ALONG_K>
__device__ inline void tile_on_tensor_cores(const Gemm& g, const Part& part, char* shared) {
    typename Operands::template Tile<A_ALONG_K> a(shared);
    typename Operands::template Tile<B_ALONG_K> b(shared + Operands::template Tile<A_ALONG_K>::BYTES);
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    // Each of the four warps computes 32 x 32 of the tile.
    int row = warp / 2 * 32, column = warp % 2 * 32;
    Extent there{g.m - part.first_i - row, g.n - part.first_j - column};
    float sums[2][4][4] = {};
    float4 row_sums = {};
    for (int k = part.first_k; k < part.last_k; k += DEPTH) {
        load_tile<A_ALONG_K, DEPTH, 128>(part.a, g.a_row, g.a_col, part.first_i, g.m, k, part.last_k, [&](int i, int k, float4 x) {
            if (!A_ALONG_K) add(row_sums, x);
            a.put(i, k, x);
        });
        load_tile<B_ALONG_K, DEPTH, 128>(part.b, g.b_col, g.b_row, part.first_j, g.n, k, part.last_k,
                                         [&](int j, int k, float4 x) { b.put(j, k, x); });
        __syncthreads();
        int deep = part.last_k - k;
        if (deep >= DEPTH)
#pragma unroll
            for (int depth = 0; depth < DEPTH; depth += Operands::STEP)
                Operands::multiply(sums, a, b, row, column, depth, there);
        else
            for (int depth = 0; depth < deep; depth += Operands::STEP)
                Operands::multiply(sums, a, b, row, column, depth, there);
        __syncthreads();
    }
    float* to = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                *reinterpret_cast<float2*>(to + (row + lane / 4 + 16 * i + half * 8) * C_PITCH + column + lane % 4 * 2 + 8 * j) =
                    make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
    store_tile<128>(g, part, to);
    if (!A_ALONG_K && part.row_sums)
        store_row_sums<128>(g, part, row_sums, reinterpret_cast<float(*)[TILE]>(shared));
}

template <typename Operands>
__device__ inline void matmul_on_tensor_cores(const Instances<Gemm, PRODUCTS>& all) {
    // Two tiles of operands, and then one of C.
    constexpr int TILES = 2 * Operands::template Tile<false>::BYTES, SUMS = 4 * TILE * C_PITCH;
    __shared__ alignas(16) char shared[TILES > SUMS ? TILES : SUMS];
    each_instance(all, [&](const Gemm& g, int block) {
        Part part = part_of(g, block);
        bool a_along_k = along_k(g), b_along_k = g.b_row == 1;
        if (a_along_k && b_along_k) tile_on_tensor_cores<Operands, true, true>(g, part, shared);
        else if (a_along_k) tile_on_tensor_cores<Operands, true, false>(g, part, shared);
        else if (b_along_k) tile_on_tensor_cores<Operands, false, true>(g, part, shared);
        else tile_on_tensor_cores<Operands, false, false>(g, part, shared);
    });
}

extern "C" __global__ void __launch_bounds__(256, 2) matmul_f32(const __grid_constant__ Instances<Gemm, PRODUCTS> all) {
    __shared__ alignas(16) float shared[TILE * C_PITCH];
    each_instance(all, [&](const Gemm& g, int block) {
        Part part = part_of(g, block);
        bool a_along_k = along_k(g), b_along_k = g.b_row == 1;
        if (a_along_k && b_along_k) tile_f32<true, true>(g, part, shared);
        else if (a_along_k) tile_f32<true, false>(g, part, shared);
        else if (b_along_k) tile_f32<false, true>(g, part, shared);
        else tile_f32<false, false>(g, part, shared);
    });
}

extern "C" __global__ void __launch_bounds__(128, 4) matmul_tf32(const __grid_constant__ Instances<Gemm, PRODUCTS> all) {
    matmul_on_tensor_cores<Tf32>(all);
}

extern "C" __global__ void __launch_bounds__(128, 4) matmul_bf16(const __grid_constant__ Instances<Gemm, PRODUCTS> all) {
    matmul_on_tensor_cores<Bf16>(all);
}
