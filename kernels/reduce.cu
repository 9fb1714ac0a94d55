// Sums in a fixed order: over parts of a product, over the members of groups.
#include "rows.cuh"

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

// out(batch)[i * out_row + j] += sum over s of partial[s * split + batch * part + i * n + j]. out(batch) is out[0] and
// `out_batch` values further for each batch, or with `apart` out[batch], which may be null. With `sums`, m more columns
// follow those of m n, and are added to sums(batch), `sums_batch` values further for each batch. Grid: (columns, batches).
struct ReducePartials {
    const float* partial;
    float* out[3];
    float* sums;
    int64_t split, part, out_row, out_batch, sums_batch;
    int m, n, splits, apart;
};

template <int LANES>
__device__ inline void reduce(const ReducePartials& r) {
    int64_t at = blockIdx.x * static_cast<int64_t>(COLUMNS) + threadIdx.x % COLUMNS;
    int64_t products = static_cast<int64_t>(r.m) * r.n;
    bool there = at < (r.sums ? products + r.m : products);
    const float* partial = r.partial + blockIdx.y * r.part + at;
    // An array in a parameter that is indexed would be copied to local memory.
    float* apart = blockIdx.y == 0 ? r.out[0] : blockIdx.y == 1 ? r.out[1] : r.out[2];
    float* out = r.apart ? apart : r.out[0] + blockIdx.y * r.out_batch;
    if (out == nullptr) return;
    float sum = 0;
    if (there)
#pragma unroll 4
        for (int s = threadIdx.x / COLUMNS; s < r.splits; s += LANES) sum += partial[s * r.split];
    sum = sum_of_lanes<LANES>(sum);
    if (!there || threadIdx.x >= COLUMNS) return;
    if (at < products) out[at / r.n * r.out_row + at % r.n] += sum;
    else r.sums[blockIdx.y * r.sums_batch + at - products] += sum;
}

extern "C" __global__ void __launch_bounds__(128) reduce_partials(ReducePartials r) { reduce<4>(r); }
extern "C" __global__ void __launch_bounds__(1024) reduce_many_partials(ReducePartials r) { reduce<32>(r); }

// out[g][j] += sum over the members p of group g of x[p][j]. A block of four warps per group and 128 columns, each warp with
// every fourth member. Grid: (groups, chunks of the columns).
struct GroupSums {
    const float* x;
    float* out;
    const uint32_t* offsets;
    const uint32_t* members;
    int columns, padding;
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
    g.out[static_cast<int64_t>(blockIdx.x) * g.columns + column] += total;
}
