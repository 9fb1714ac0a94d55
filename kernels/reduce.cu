// Sums in a fixed order: over parts of a product, over the members of groups.
#include "warp_row.cuh"

// A block has 32 columns, and LANES threads for each: neighbouring threads read neighbouring columns.
constexpr int COLUMNS = 32;

// Sum over the block's lanes of each column's `mine`, in the order of the lanes; valid in lane 0.
template <int LANES>
__device__ inline float sum_of_lanes(float mine) {
    __shared__ float sums[LANES][COLUMNS];
    sums[threadIdx.x / COLUMNS][threadIdx.x % COLUMNS] = mine;
    __syncthreads();
    float sum = 0;
    if (threadIdx.x < COLUMNS)
        for (int lane = 0; lane < LANES; ++lane) sum += sums[lane][threadIdx.x];
    return sum;
}

// out(batch)[i * out_row + j] = sum over s of partial[s * split + batch * part + i * n + j]. out(batch) is out[0] and
// `out_batch` values further for each batch, or with `apart` out[batch], which may be null. With `sums`, m more columns
// follow those of m n, for sums(batch), `sums_batch` values further for each batch. Bit 3 of `adds` says that `sums` is added
// to, the bits below it that out[0] to out[2] are.
struct Reduction {
    const float* partial;
    float* out[3];
    float* sums;
    int64_t split, part, out_row, out_batch, sums_batch;
    int m, n, splits, apart, batches, adds;
};

constexpr int REDUCTIONS = 8;

// Grid: the blocks of each, its columns for each of its batch, one after the other.
struct Reductions {
    Reduction of[REDUCTIONS];
    // The block with which each begins.
    int first[REDUCTIONS];
    int count, padding;
};

template <int LANES>
__device__ inline void reduce(const Reductions& all) {
    int which = 0;
    while (which + 1 < all.count && static_cast<int>(blockIdx.x) >= all.first[which + 1]) ++which;
    const Reduction& r = all.of[which];
    int64_t products = static_cast<int64_t>(r.m) * r.n, columns = r.sums ? products + r.m : products;
    int blocks = (columns + COLUMNS - 1) / COLUMNS, block = blockIdx.x - all.first[which], batch = block / blocks;
    int64_t at = block % blocks * static_cast<int64_t>(COLUMNS) + threadIdx.x % COLUMNS;
    bool there = at < columns;
    const float* partial = r.partial + batch * r.part + at;
    float* out = r.apart ? r.out[batch] : r.out[0] + batch * r.out_batch;
    if (out == nullptr) return;
    float sum = 0;
    if (there)
#pragma unroll 4
        for (int s = threadIdx.x / COLUMNS; s < r.splits; s += LANES) sum += partial[s * r.split];
    sum = sum_of_lanes<LANES>(sum);
    if (!there || threadIdx.x >= COLUMNS) return;
    bool product = at < products;
    float* to = product ? out + at / r.n * r.out_row + at % r.n : r.sums + batch * r.sums_batch + at - products;
    int bit = product ? (r.apart ? batch : 0) : 3;
    *to = r.adds >> bit & 1 ? *to + sum : sum;
}

extern "C" __global__ void __launch_bounds__(128) reduce_partials(const __grid_constant__ Reductions all) {
    reduce<4>(all);
}
extern "C" __global__ void __launch_bounds__(1024) reduce_many_partials(const __grid_constant__ Reductions all) {
    reduce<32>(all);
}

// out[g][j] = sum over the members p of group g of x[p][j], with `adds` added to what is there. A block of four warps per group and 128 columns, each warp with
// every fourth member. Grid: (groups, chunks of the columns).
struct GroupSums {
    const float* x;
    float* out;
    const uint32_t* offsets;
    const uint32_t* members;
    int columns, adds;
};

extern "C" __global__ void __launch_bounds__(128) group_sums(GroupSums g) {
    constexpr int WARPS = 4, VALUES = 4, CHUNK = VALUES * WARP;
    __shared__ alignas(16) float sums[WARPS][CHUNK];
    uint32_t first = g.offsets[blockIdx.x], last = g.offsets[blockIdx.x + 1];
    int warp = threadIdx.x / WARP, start = blockIdx.y * CHUNK, column = start + threadIdx.x;
    bool fours = by_fours(g.columns);
    float sum[VALUES] = {}, x[VALUES];
    for (uint32_t at = first + warp; at < last; at += WARPS) {
        load_row(x, g.x + static_cast<int64_t>(g.members[at]) * g.columns + start, g.columns - start, fours);
        add_scaled(sum, 1.0f, x);
    }
    share_row(sums[warp], sum, fours);
    __syncthreads();
    if (column >= g.columns) return;
    float total = 0;
    for (int w = 0; w < WARPS; ++w) total += sums[w][threadIdx.x];
    float* to = g.out + static_cast<int64_t>(blockIdx.x) * g.columns + column;
    *to = g.adds ? *to + total : total;
}
