// What the decoder's kernels share: types of activations, weights as they are stored, pages of keys and values.
//
// Activations are f32 (for comparison), bf16 or f16 (T); the residual stream, all sums and the logits are f32.
#pragma once

#include "early.cuh"

// Values of T in a load of 16 bytes.
template <typename T>
constexpr int PER_LOAD = 16 / sizeof(T);

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ inline T from_float(float x) {
    if constexpr (sizeof(T) == 4) return x;
    else return static_cast<T>(x);
}

// The values of 16 bytes.
template <typename T>
__device__ inline void unpack_load(float (&out)[PER_LOAD<T>], uint4 raw) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (sizeof(T) == 4) {
            out[w] = __uint_as_float(words[w]);
        } else {
            float2 pair = unpack(words[w], T());
            out[2 * w] = pair.x;
            out[2 * w + 1] = pair.y;
        }
    }
}

// N values that other kernels wrote, from an address on a boundary of 16 bytes.
template <typename T, int N>
__device__ inline void load_values(float (&out)[N], const T* from) {
    static_assert(N % PER_LOAD<T> == 0);
#pragma unroll
    for (int i = 0; i < N / PER_LOAD<T>; ++i) {
        float some[PER_LOAD<T>];
        unpack_load<T>(some, load_written(reinterpret_cast<const uint4*>(from) + i));
#pragma unroll
        for (int e = 0; e < PER_LOAD<T>; ++e) out[i * PER_LOAD<T> + e] = some[e];
    }
}

// 16 or 8 bytes (uint4, uint2) of weights, which this launch reads once: they need no place in the first-level cache.
template <typename Raw>
__device__ inline Raw load_once(const void* from) {
    Raw raw;
    if constexpr (sizeof(Raw) == 16)
        asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
            : "l"(from));
    else
        asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
            : "=r"(raw.x), "=r"(raw.y)
            : "l"(from));
    return raw;
}

// Tokens of a page of keys and values.
constexpr int PAGE = 64;

// Keys and values of up to PAGE tokens of one sequence, for all layers: (layers, 2, kv_heads, PAGE, d) from `at` on, keys
// before values. A head has d values, a power of two; those beyond its own are zero. The page holds positions `first` to
// first + count - 1: sequences that share a prefix share its pages, the last of which need not be full.
struct Page {
    const char* at;
    int first, count;
};
