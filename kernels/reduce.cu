// Sums in a fixed order: over parts of a product, over rows, over the members of groups. Elementwise helpers of backward.
#include "common.cuh"

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
// `out_batch` values further for each batch, or with `apart` out[batch], which may be null. Grid: (columns of m n, batches).
struct ReducePartials {
    const float* partial;
    float* out[3];
    int64_t split, part, out_row, out_batch;
    int m, n, splits, apart;
};

template <int LANES>
__device__ inline void reduce(const ReducePartials& r) {
    int64_t at = blockIdx.x * static_cast<int64_t>(COLUMNS) + threadIdx.x % COLUMNS;
    bool there = at < static_cast<int64_t>(r.m) * r.n;
    const float* partial = r.partial + blockIdx.y * r.part + at;
    float* out = r.apart ? r.out[blockIdx.y] : r.out[0] + blockIdx.y * r.out_batch;
    if (out == nullptr) return;
    float sum = 0;
    if (there)
#pragma unroll 4
        for (int s = threadIdx.x / COLUMNS; s < r.splits; s += LANES) sum += partial[s * r.split];
    sum = sum_of_lanes<LANES>(sum);
    if (there && threadIdx.x < COLUMNS) out[at / r.n * r.out_row + at % r.n] += sum;
}

extern "C" __global__ void __launch_bounds__(128) reduce_partials(ReducePartials r) { reduce<4>(r); }
extern "C" __global__ void __launch_bounds__(1024) reduce_many_partials(ReducePartials r) { reduce<32>(r); }

// partial[b][j] = sum over the rows of block b of x[i][j]; rows_per_block rows each. Grid: (blocks, columns).
struct ColumnSums {
    const float* x;
    float* partial;
    int rows, columns, rows_per_block, padding;
};

extern "C" __global__ void __launch_bounds__(256) column_sums(ColumnSums c) {
    constexpr int LANES = 8;
    int column = blockIdx.y * COLUMNS + threadIdx.x % COLUMNS;
    int first = blockIdx.x * c.rows_per_block, last = min(first + c.rows_per_block, c.rows);
    float sum = 0;
    if (column < c.columns)
#pragma unroll 4
        for (int row = first + threadIdx.x / COLUMNS; row < last; row += LANES)
            sum += c.x[static_cast<int64_t>(row) * c.columns + column];
    sum = sum_of_lanes<LANES>(sum);
    if (column < c.columns && threadIdx.x < COLUMNS) c.partial[static_cast<int64_t>(blockIdx.x) * c.columns + column] = sum;
}

// out[g][j] += sum over the members p of group g of x[p][j]. A block per group.
struct GroupSums {
    const float* x;
    float* out;
    const uint32_t* offsets;
    const uint32_t* members;
    int columns, padding;
};

extern "C" __global__ void __launch_bounds__(128) group_sums(GroupSums g) {
    uint32_t first = g.offsets[blockIdx.x], last = g.offsets[blockIdx.x + 1];
    for (int column = threadIdx.x; column < g.columns; column += 128) {
        float sum = 0;
        for (uint32_t at = first; at < last; ++at) sum += g.x[static_cast<int64_t>(g.members[at]) * g.columns + column];
        g.out[static_cast<int64_t>(blockIdx.x) * g.columns + column] += sum;
    }
}

// dx = 0 where ReLU's output y is 0.
struct ReluBackward {
    const float* y;
    float* dx;
    int64_t length;
};

extern "C" __global__ void __launch_bounds__(256) relu_backward(ReluBackward r) {
    int64_t i = blockIdx.x * 256ll + threadIdx.x;
    if (i < r.length && !(r.y[i] > 0.0f)) r.dx[i] = 0.0f;
}
