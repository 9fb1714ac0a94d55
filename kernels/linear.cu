// Linear layers of encoders and decoders: C = activation(A W^T + bias + residual).
//
// A (m, k), W (n, k), C and residual (m, n): row-major with a stride of their own each; bias (n) f32. bf16 operands: k and
// strides are multiples of 8; n is a multiple of 4. C and residual are bf16, or f32 with `wide`. Any m.
// Grid: tiles of C in one row. linear_128: 128 x 128 tiles, four warps of 64 x 64, two blocks on a multiprocessor, 48 KB
// shared; linear_64: 64 x 64 tiles, four warps of 32 x 32, 24 KB, for products of few tiles; linear_f32: f32
// operands, 64 x 64 tiles, 256 threads. Deterministic; both bf16 kernels give the same bits.
// Reference: src/ops/linear/packed.
#include "linear.cuh"

template <typename T>
struct LinearArgs {
    const T* a;
    const T* w;
    int64_t a_row, w_row;
    Output out;
    int k, padding;
};

template <int SIDE>
__device__ inline void linear(const LinearArgs<__nv_bfloat16>& g) {
    TileOf tile = tile_of(g.out, SIDE, SIDE);
    MatrixRows<SIDE, 128> a(g.a, g.a_row, tile.first_row, g.out.m, g.k);
    MatrixRows<SIDE, 128> w(g.w, g.w_row, tile.first_column, g.out.n, g.k);
    product<SIDE, SIDE, SIDE / 2, SIDE / 2>(a, w, g.k, g.out, tile);
}

extern "C" __global__ void __launch_bounds__(128, 2) linear_128(LinearArgs<__nv_bfloat16> g) {
    linear<128>(g);
}
extern "C" __global__ void __launch_bounds__(128, 4) linear_64(LinearArgs<__nv_bfloat16> g) {
    linear<64>(g);
}
extern "C" __global__ void __launch_bounds__(256, 2) linear_f32(LinearArgs<float> g) {
    auto a = [&](int row, int column) { return g.a[row * g.a_row + column]; };
    product_f32(a, g.w, g.w_row, g.k, g.out);
}
