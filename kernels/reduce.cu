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
    int split, part, out_row, out_batch, sums_batch, m, n, splits, apart, batches, adds, padding;
};

// As many as an argument of 4 KB holds.
constexpr int REDUCTIONS = 42;

// Blocks: those of the columns, for each of a batch.
template <int LANES>
__device__ inline void reduce(const Reduction& r, int block) {
    int products = r.m * r.n, columns = r.sums ? products + r.m : products;
    int blocks = (columns + COLUMNS - 1) / COLUMNS, at = block % blocks * COLUMNS + threadIdx.x % COLUMNS;
    int64_t batch = block / blocks;
    bool there = at < columns;
    const float* partial = r.partial + batch * r.part + at;
    float* out = r.apart ? r.out[batch] : r.out[0] + batch * r.out_batch;
    if (out == nullptr) return;
    float sum = 0;
    if (there)
#pragma unroll 4
        for (int s = threadIdx.x / COLUMNS; s < r.splits; s += LANES) sum += partial[static_cast<int64_t>(s) * r.split];
    sum = sum_of_lanes<LANES>(sum);
    if (!there || threadIdx.x >= COLUMNS) return;
    bool product = at < products;
    float* to = product ? out + static_cast<int64_t>(at / r.n) * r.out_row + at % r.n : r.sums + batch * r.sums_batch + at - products;
    int bit = product ? (r.apart ? batch : 0) : 3;
    *to = r.adds >> bit & 1 ? *to + sum : sum;
}

extern "C" __global__ void __launch_bounds__(128)
    reduce_partials(const __grid_constant__ Instances<Reduction, REDUCTIONS> all) {
    each_instance(all, [](const Reduction& r, int block) { reduce<4>(r, block); });
}
extern "C" __global__ void __launch_bounds__(1024)
    reduce_many_partials(const __grid_constant__ Instances<Reduction, REDUCTIONS> all) {
    each_instance(all, [](const Reduction& r, int block) { reduce<32>(r, block); });
}

// out[g][j] = sum over the members p of group g of x[p][j], with `adds` added to what is there. A block of four warps per
// group and 128 columns, each warp with every fourth member; the blocks of a group follow each other.
struct GroupSums {
    const float* x;
    float* out;
    const uint32_t* offsets;
    const uint32_t* members;
    int columns, adds;
};

extern "C" __global__ void __launch_bounds__(128) group_sums(const __grid_constant__ Instances<GroupSums, 16> all) {
    constexpr int WARPS = 4, VALUES = 4, CHUNK = VALUES * WARP;
    __shared__ alignas(16) float sums[WARPS][CHUNK];
    each_instance(all, [&](const GroupSums& g, int block) {
        int chunks = (g.columns + CHUNK - 1) / CHUNK, group = block / chunks, start = block % chunks * CHUNK;
        uint32_t first = g.offsets[group], last = g.offsets[group + 1];
        int warp = threadIdx.x / WARP, column = start + threadIdx.x;
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
        float* to = g.out + static_cast<int64_t>(group) * g.columns + column;
        *to = g.adds ? *to + total : total;
    });
}
