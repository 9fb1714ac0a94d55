// Sums in a fixed order: over parts of a product, over rows, over the members of groups. Elementwise helpers of backward.
#include "common.cuh"

// out[batch][i * out_row + j] += sum over s of partial[batch][s][i][j]. One thread per element.
struct ReducePartials {
    const float* partial;
    float* out;
    int64_t out_row, out_batch;
    int m, n, splits, padding;
};

extern "C" __global__ void __launch_bounds__(256) reduce_partials(ReducePartials r) {
    int64_t block = static_cast<int64_t>(r.m) * r.n, at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= block) return;
    const float* part = r.partial + blockIdx.y * r.splits * block + at;
    float sum = 0;
    for (int s = 0; s < r.splits; ++s) sum += part[s * block];
    r.out[blockIdx.y * r.out_batch + at / r.n * r.out_row + at % r.n] += sum;
}

// partial[b][j] = sum over the rows of block b of x[i][j]; rows_per_block rows each. One thread per column.
struct ColumnSums {
    const float* x;
    float* partial;
    int rows, columns, rows_per_block, padding;
};

extern "C" __global__ void __launch_bounds__(256) column_sums(ColumnSums c) {
    int column = blockIdx.y * 256 + threadIdx.x;
    if (column >= c.columns) return;
    int first = blockIdx.x * c.rows_per_block, last = min(first + c.rows_per_block, c.rows);
    float sum = 0;
    for (int row = first; row < last; ++row) sum += c.x[static_cast<int64_t>(row) * c.columns + column];
    c.partial[static_cast<int64_t>(blockIdx.x) * c.columns + column] = sum;
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

// out += x
struct Add {
    const float* x;
    float* out;
    int64_t length;
};

extern "C" __global__ void __launch_bounds__(256) add(Add a) {
    int64_t i = blockIdx.x * 256ll + threadIdx.x;
    if (i < a.length) a.out[i] += a.x[i];
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
