// Rows by number, of `gather`, of `features`, and of `project` for f32 arithmetic and for tables that are not f16.
// Grid: a thread per value, 256 to a block; no shared memory. Deterministic. Reference: src/ops/gather/mod.rs.
#include "common.cuh"

// out (n, width) f32 = rows of a table of f16 or f32.
struct Gather {
    const void* table;
    const uint32_t* rows;
    float* out;
    int64_t length;
    int width, is_f16;
};

extern "C" __global__ void __launch_bounds__(256) gather_rows(Gather g) {
    int64_t i = blockIdx.x * 256ll + threadIdx.x;
    if (i >= g.length) return;
    int64_t at = g.rows[i / g.width] * static_cast<int64_t>(g.width) + i % g.width;
    bool f16 = g.is_f16;
    g.out[i] = f16 ? __half2float(static_cast<const __half*>(g.table)[at]) : static_cast<const float*>(g.table)[at];
}
