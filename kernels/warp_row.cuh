// Rows of f32 that a warp holds in registers, N values to a lane (at most 32 N of a row). Where rows are multiples of 16
// bytes, as with d = 100, a lane has four neighbours at a time, so that one load of the warp takes 512 bytes and the
// sectors at a row's ends are all that it moves beyond the row; else lanes follow each other value by value.
#pragma once

#include "common.cuh"

// Values of a row of d <= 256 to a lane.
constexpr int LANE_VALUES = 8;

// Whether rows of this many values, end to end, can be loaded by fours.
__device__ inline bool by_fours(int d) { return d % 4 == 0; }

// The column of a lane's value v.
__device__ inline int lane_column(int v, bool fours) {
    int lane = threadIdx.x % WARP;
    return fours ? v / 4 * 4 * WARP + lane * 4 + v % 4 : v * WARP + lane;
}

// Columns from `count` on are 0.
template <int N>
__device__ inline void load_row(float (&values)[N], const float* row, int count, bool fours) {
#pragma unroll
    for (int v = 0; v < N; v += 4) {
        if (fours) {
            int column = lane_column(v, true);
            float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (column < count) x = *reinterpret_cast<const float4*>(row + column);
            values[v] = x.x, values[v + 1] = x.y, values[v + 2] = x.z, values[v + 3] = x.w;
        } else {
#pragma unroll
            for (int e = v; e < v + 4; ++e) {
                int column = lane_column(e, false);
                values[e] = column < count ? row[column] : 0.0f;
            }
        }
    }
}

// Of f16.
template <int N>
__device__ inline void load_row(float (&values)[N], const __half* row, int count, bool fours) {
#pragma unroll
    for (int v = 0; v < N; v += 4) {
        if (fours) {
            int column = lane_column(v, true);
            uint2 x = make_uint2(0, 0);
            if (column < count) x = *reinterpret_cast<const uint2*>(row + column);
            float2 low = unpack(x.x, __half()), high = unpack(x.y, __half());
            values[v] = low.x, values[v + 1] = low.y, values[v + 2] = high.x, values[v + 3] = high.y;
        } else {
#pragma unroll
            for (int e = v; e < v + 4; ++e) {
                int column = lane_column(e, false);
                values[e] = column < count ? __half2float(row[column]) : 0.0f;
            }
        }
    }
}

// To device memory. (By name, as the compiler takes some assignments of float4 apart into four stores.)
template <int N>
__device__ inline void store_row(float* row, const float (&values)[N], int count, bool fours) {
#pragma unroll
    for (int v = 0; v < N; v += 4) {
        if (fours) {
            int column = lane_column(v, true);
            float4 x = make_float4(values[v], values[v + 1], values[v + 2], values[v + 3]);
            if (column < count) __stwb(reinterpret_cast<float4*>(row + column), x);
        } else {
#pragma unroll
            for (int e = v; e < v + 4; ++e) {
                int column = lane_column(e, false);
                if (column < count) row[column] = values[e];
            }
        }
    }
}

// The same as bf16 or f16.
template <typename T, int N>
__device__ inline void store_row(T* row, const float (&values)[N], int count, bool fours) {
#pragma unroll
    for (int v = 0; v < N; v += 4) {
        if (fours) {
            int column = lane_column(v, true);
            uint2 x = make_uint2(pack(values[v], values[v + 1], T()), pack(values[v + 2], values[v + 3], T()));
            if (column < count) __stwb(reinterpret_cast<uint2*>(row + column), x);
        } else {
#pragma unroll
            for (int e = v; e < v + 4; ++e) {
                int column = lane_column(e, false);
                if (column < count) row[column] = T(values[e]);
            }
        }
    }
}

// All values to shared memory, aligned to 16 bytes, each at its column.
template <int N>
__device__ inline void share_row(float* row, const float (&values)[N], bool fours) {
#pragma unroll
    for (int v = 0; v < N; v += 4) {
        if (fours) {
            *reinterpret_cast<float4*>(row + lane_column(v, true)) =
                make_float4(values[v], values[v + 1], values[v + 2], values[v + 3]);
        } else {
#pragma unroll
            for (int e = v; e < v + 4; ++e) row[lane_column(e, false)] = values[e];
        }
    }
}

// Dot product of two rows, in every lane.
template <int N>
__device__ inline float dot(const float (&x)[N], const float (&y)[N]) {
    float sum = 0;
#pragma unroll
    for (int v = 0; v < N; ++v) sum = fmaf(x[v], y[v], sum);
    return warp_sum(sum);
}

// x *= y.
template <int N>
__device__ inline void multiply(float (&x)[N], const float (&y)[N]) {
#pragma unroll
    for (int v = 0; v < N; ++v) x[v] *= y[v];
}

// sum += a x.
template <int N>
__device__ inline void add_scaled(float (&sum)[N], float a, const float (&x)[N]) {
#pragma unroll
    for (int v = 0; v < N; ++v) sum[v] = fmaf(a, x[v], sum[v]);
}
