// What several kernels share: sums over warps and blocks, tensor-core fragments, conversions.
//
// Every kernel takes one struct by value, whose fields stand in the same order as in the struct of its host code
// (src/device/cuda, src/ops/*/cuda.rs). All arrays are row-major. No kernel adds floats atomically: the same input gives
// the same bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// The argument of a kernel that works on up to N instances at once (src/device/cuda/launches.rs).
template <typename T, int N>
struct Instances {
    T of[N];
    // The block with which each begins: one after the other, but those that follow another of the same blocks.
    int first[N];
    // The instance that the same blocks go on with, which writes to the same places, or -1.
    int next[N];
    int count;
    // Bit i: the blocks of instances i - 1 and i, which begin with the same, take turns. They read the same.
    uint32_t alternating;
};

// The instance that this block begins with.
template <typename T, int N>
__device__ inline int first_instance(const Instances<T, N>& all) {
    int mine = 0;
    for (int i = 1; i < all.count; ++i)
        if (static_cast<int>(blockIdx.x) >= all.first[i]) mine = i;
    return mine;
}

// Calls `work` with each of this block's instances, and the block's number among those of the instance.
template <typename T, int N, typename Work>
__device__ inline void each_instance(const Instances<T, N>& all, Work work) {
    int i = first_instance(all), block = blockIdx.x - all.first[i];
    if constexpr (N <= 32)
        if (all.alternating >> i & 1) {
            i -= 1 - block % 2;
            block /= 2;
        }
    while (true) {
        work(all.of[i], block);
        i = all.next[i];
        if (i < 0) return;
        // Its shared memory is still in use.
        __syncthreads();
    }
}

// max(x, 0), where NaN stays NaN: what went wrong must show. fmaxf would give 0.
__device__ inline float relu(float x) { return x < 0.0f ? 0.0f : x; }

// The larger of both, or NaN if one of them is.
__device__ inline float larger(float x, float y) { return y > x || isnan(y) ? y : x; }

// Sum over the lanes of a warp, in every lane.
__device__ inline float warp_sum(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL_LANES, x, offset);
    return x;
}

// Maximum over the lanes of a warp, in every lane.
__device__ inline float warp_max(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    return x;
}

// Sum over the four lanes that share a row of an mma accumulator, in each of them.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// Two floats as bf16, `low` in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&pair);
}

// The same by type of the values.
__device__ inline uint32_t pack(float low, float high, __nv_bfloat16) { return pack_bf16(low, high); }
__device__ inline uint32_t pack(float low, float high, __half) {
    __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&pair);
}

// What `pack` packed.
__device__ inline float2 unpack(uint32_t pair, __nv_bfloat16) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}
__device__ inline float2 unpack(uint32_t pair, __half) { return __half22float2(*reinterpret_cast<__half2*>(&pair)); }

// Two f16 as bf16.
__device__ inline uint32_t f16_to_bf16(uint32_t pair) {
    float2 values = __half22float2(*reinterpret_cast<__half2*>(&pair));
    return pack_bf16(values.x, values.y);
}

__device__ inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 8 tiles of 16-bit values; lane i names row i % 8 of tile i / 8.
__device__ inline void load_tiles(uint32_t (&tiles)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(shared_address(row)));
}

// The same, each tile transposed.
__device__ inline void load_tiles_transposed(uint32_t (&tiles)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(shared_address(row)));
}

// c (16 x 8, f32) += a (16 x 16) b (16 x 8), bf16.
__device__ inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same, f16.
__device__ inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same by type of the operands.
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __nv_bfloat16) {
    mma_bf16(c, a, b0, b1);
}
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half) {
    mma_f16(c, a, b0, b1);
}

// x rounded to the 11 bits that tf32 keeps.
__device__ inline float round_to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}

// c (16 x 8, f32) += a (16 x 8) b (8 x 8), tf32. Of a, lane l holds (l / 4, l % 4), the row 8 below, and both of the column
// 4 to the right; of b, (l % 4, l / 4) and the row 4 below.
__device__ inline void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
                   "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// Starts copying 16 bytes to shared memory; with `there` false, zeros are written and nothing is read.
__device__ inline void copy_async(void* to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 16 : 0));
}

__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;"); }

// Waits until at most PENDING groups of this thread's copies are under way.
template <int PENDING>
__device__ inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING));
}
