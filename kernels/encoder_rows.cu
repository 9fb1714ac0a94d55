// Rows by number, and rows of another type: out[i] = x[from[i]], or x[i] without `from`.
//
// x (any, width), out (rows, width) row-major; width is a multiple of 4. Grid: a thread for four values, blocks of 256.
// Deterministic. Reference: src/encoder/layers/rows.rs.
#include "encoder_vector.cuh"

struct EncoderRows {
    const void* x;
    const uint32_t* from;
    void* out;
    int rows, width;
};

template <typename In, typename Out>
__device__ inline void encoder_rows(const EncoderRows& r) {
    int64_t at = (blockIdx.x * 256ll + threadIdx.x) * FOUR, row = at / r.width, column = at % r.width;
    if (row >= r.rows) return;
    int64_t from = r.from ? r.from[row] : row;
    store_four(static_cast<Out*>(r.out) + at, load_four(static_cast<const In*>(r.x) + from * r.width + column));
}

extern "C" __global__ void __launch_bounds__(256) encoder_rows_select(EncoderRows r) { encoder_rows<float, float>(r); }
extern "C" __global__ void __launch_bounds__(256) encoder_rows_narrow(EncoderRows r) {
    encoder_rows<float, __nv_bfloat16>(r);
}
extern "C" __global__ void __launch_bounds__(256) encoder_rows_wide(EncoderRows r) {
    encoder_rows<__nv_bfloat16, float>(r);
}
