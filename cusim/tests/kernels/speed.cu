// Kernels whose speed the benchmark measures.
#include <cuda_bf16.h>
#include <mma.h>
#include <cstdint>

// A loop of dependent multiply-adds, four chains per thread.
extern "C" __global__ void fma_loop(float* out, int n, float a, float b) {
    float x = threadIdx.x, y = x + 1, z = x + 2, w = x + 3;
    for (int i = 0; i < n; ++i) {
        x = fmaf(x, a, b);
        y = fmaf(y, a, b);
        z = fmaf(z, a, b);
        w = fmaf(w, a, b);
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = x + y + z + w;
}

// C = A B, row-major f32, from 64 x 64 tiles in shared memory; a thread computes 4 x 4. Sizes are multiples of 64 (k of 16).
// launch: grid (n/64, m/64), block 256
extern "C" __global__ void __launch_bounds__(256)
gemm_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
    __shared__ float as[16][64];
    __shared__ float bs[16][64];
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    int row0 = blockIdx.y * 64, col0 = blockIdx.x * 64;
    float acc[4][4] = {};
    for (int k0 = 0; k0 < k; k0 += 16) {
        for (int i = threadIdx.x; i < 1024; i += 256) {
            as[i % 16][i / 16] = a[(row0 + i / 16) * k + k0 + i % 16];
            bs[i / 64][i % 64] = b[(k0 + i / 64) * n + col0 + i % 64];
        }
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < 16; ++kk) {
            float4 x = *reinterpret_cast<float4*>(&as[kk][ty * 4]);
            float4 y = *reinterpret_cast<float4*>(&bs[kk][tx * 4]);
            float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) acc[i][j] = fmaf(xs[i], ys[j], acc[i][j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) c[(row0 + ty * 4 + i) * n + col0 + tx * 4 + j] = acc[i][j];
}

__device__ __forceinline__ void copy16(uint32_t dst, const void* src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src));
}

// C = A B, bf16 operands row-major, f32 result; 64 x 64 tiles, k by 32, double-buffered cp.async, ldmatrix, mma.
// launch: grid (n/64, m/64), block 128 (four warps, each 32 x 32)
extern "C" __global__ void __launch_bounds__(128)
gemm_bf16(const __nv_bfloat16* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
    __shared__ __align__(16) __nv_bfloat16 as[2][64][40];
    __shared__ __align__(16) __nv_bfloat16 bs[2][32][72];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int row0 = blockIdx.y * 64, col0 = blockIdx.x * 64;
    int wr = warp / 2 * 32, wc = warp % 2 * 32;
    float acc[2][4][4] = {};
    auto stage = [&](int buf, int k0) {
        for (int i = threadIdx.x; i < 256; i += 128) {
            copy16((uint32_t)__cvta_generic_to_shared(&as[buf][i / 4][i % 4 * 8]), &a[(size_t)(row0 + i / 4) * k + k0 + i % 4 * 8]);
            copy16((uint32_t)__cvta_generic_to_shared(&bs[buf][i / 8][i % 8 * 8]), &b[(size_t)(k0 + i / 8) * n + col0 + i % 8 * 8]);
        }
        asm volatile("cp.async.commit_group;");
    };
    stage(0, 0);
    for (int k0 = 0, buf = 0; k0 < k; k0 += 32, buf ^= 1) {
        if (k0 + 32 < k) {
            stage(buf ^ 1, k0 + 32);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        __syncthreads();
        for (int kk = 0; kk < 32; kk += 16) {
            uint32_t af[2][4], bf[4][2];
            for (int i = 0; i < 2; ++i) {
                uint32_t p = (uint32_t)__cvta_generic_to_shared(&as[buf][wr + i * 16 + lane % 16][kk + lane / 16 * 8]);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                             : "=r"(af[i][0]), "=r"(af[i][1]), "=r"(af[i][2]), "=r"(af[i][3]) : "r"(p));
            }
            for (int j = 0; j < 4; j += 2) {
                uint32_t p = (uint32_t)__cvta_generic_to_shared(&bs[buf][kk + lane % 16][wc + j * 8 + lane / 16 * 8]);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                             : "=r"(bf[j][0]), "=r"(bf[j][1]), "=r"(bf[j + 1][0]), "=r"(bf[j + 1][1]) : "r"(p));
            }
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 4; ++j)
                    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                                 : "+f"(acc[i][j][0]), "+f"(acc[i][j][1]), "+f"(acc[i][j][2]), "+f"(acc[i][j][3])
                                 : "r"(af[i][0]), "r"(af[i][1]), "r"(af[i][2]), "r"(af[i][3]), "r"(bf[j][0]), "r"(bf[j][1]));
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j)
            for (int h = 0; h < 2; ++h) {
                int row = row0 + wr + i * 16 + lane / 4 + h * 8, col = col0 + wc + j * 8 + lane % 4 * 2;
                *reinterpret_cast<float2*>(&c[(size_t)row * n + col]) = make_float2(acc[i][j][h * 2], acc[i][j][h * 2 + 1]);
            }
}

// Attention of one query over a ragged sequence: out = sum softmax(q . f_l) f_l, one warp per query, d = 128.
// launch: grid ceil(queries/4), block 128
extern "C" __global__ void attention(const float* __restrict__ q, const float* __restrict__ f, const int* __restrict__ offsets, float* __restrict__ out, int queries) {
    int lane = threadIdx.x % 32, query = blockIdx.x * 4 + threadIdx.x / 32;
    if (query >= queries) return;
    float4 u = reinterpret_cast<const float4*>(q + (size_t)query * 128)[lane];
    float4 acc = make_float4(0, 0, 0, 0);
    float best = -INFINITY, total = 0;
    for (int l = offsets[query]; l < offsets[query + 1]; ++l) {
        float4 x = reinterpret_cast<const float4*>(f + (size_t)l * 128)[lane];
        float s = u.x * x.x + u.y * x.y + u.z * x.z + u.w * x.w;
        for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
        float top = fmaxf(best, s), keep = __expf(best - top), w = __expf(s - top);
        total = total * keep + w;
        acc.x = acc.x * keep + w * x.x;
        acc.y = acc.y * keep + w * x.y;
        acc.z = acc.z * keep + w * x.z;
        acc.w = acc.w * keep + w * x.w;
        best = top;
    }
    float r = 1.f / total;
    reinterpret_cast<float4*>(out + (size_t)query * 128)[lane] = make_float4(acc.x * r, acc.y * r, acc.z * r, acc.w * r);
}

// A thread for each element of the product, straight from device memory.
extern "C" __global__ void gemm_naive(const float* a, const float* b, float* c, int m, int n, int k) {
    int row = blockIdx.y * 16 + threadIdx.x / 16, column = blockIdx.x * 16 + threadIdx.x % 16;
    if (row >= m || column >= n) return;
    float sum = 0.f;
    for (int i = 0; i < k; ++i) sum += a[row * k + i] * b[i * n + column];
    c[row * n + column] = sum;
}

// A warp for each tile of the product, with fragments as the compiler knows them.
extern "C" __global__ void gemm_wmma(const half* a, const half* b, float* c, int m, int n, int k) {
    using namespace nvcuda;
    int tile = blockIdx.x * 4 + threadIdx.x / 32, columns = n / 16;
    int row = tile / columns * 16, column = tile % columns * 16;
    if (row >= m) return;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> left;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> right;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    wmma::fill_fragment(sum, 0.f);
    for (int i = 0; i < k; i += 16) {
        wmma::load_matrix_sync(left, a + row * k + i, k);
        wmma::load_matrix_sync(right, b + i * n + column, n);
        wmma::mma_sync(sum, left, right, sum);
    }
    wmma::store_matrix_sync(c + row * n + column, sum, n, wmma::mem_row_major);
}

// Every block adds to the same places.
extern "C" __global__ void histogram(const int* x, int* counts, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&counts[x[i] & 255], 1);
}
