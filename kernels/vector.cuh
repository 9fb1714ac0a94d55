// Four neighbours of a row at once, as f32: 16 bytes of f32 or 8 of bf16 a lane, whole sectors a warp.
#pragma once

#include "common.cuh"

constexpr int FOUR = 4;

struct Four {
    float at[FOUR];
};

__device__ inline Four load_four(const float* from) {
    float4 x = *reinterpret_cast<const float4*>(from);
    return {{x.x, x.y, x.z, x.w}};
}

__device__ inline Four load_four(const __nv_bfloat16* from) {
    uint2 x = *reinterpret_cast<const uint2*>(from);
    return {{__uint_as_float(x.x << 16), __uint_as_float(x.x & 0xffff0000u), __uint_as_float(x.y << 16),
             __uint_as_float(x.y & 0xffff0000u)}};
}

__device__ inline Four load_four(const __half* from) {
    uint2 x = *reinterpret_cast<const uint2*>(from);
    float2 low = unpack(x.x, __half()), high = unpack(x.y, __half());
    return {{low.x, low.y, high.x, high.y}};
}

__device__ inline void store_four(float* to, const Four& x) {
    *reinterpret_cast<float4*>(to) = make_float4(x.at[0], x.at[1], x.at[2], x.at[3]);
}

__device__ inline void store_four(__nv_bfloat16* to, const Four& x) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack_bf16(x.at[0], x.at[1]), pack_bf16(x.at[2], x.at[3]));
}

__device__ inline void store_four(__half* to, const Four& x) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack(x.at[0], x.at[1], __half()), pack(x.at[2], x.at[3], __half()));
}

// Two neighbours.
__device__ inline void store_two(float* to, float low, float high) {
    *reinterpret_cast<float2*>(to) = make_float2(low, high);
}

__device__ inline void store_two(__nv_bfloat16* to, float low, float high) {
    *reinterpret_cast<uint32_t*>(to) = pack_bf16(low, high);
}

__device__ inline void store_two(__half* to, float low, float high) {
    *reinterpret_cast<uint32_t*>(to) = pack(low, high, __half());
}

__device__ inline Four operator+(const Four& a, const Four& b) {
    return {{a.at[0] + b.at[0], a.at[1] + b.at[1], a.at[2] + b.at[2], a.at[3] + b.at[3]}};
}
