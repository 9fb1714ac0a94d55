// Bias and rotary position embedding of queries and keys, and where keys and values go (paged_attention_rope.cu, the steps of
// paged_attention_decode.cu).
//
// Of a head's dimensions i and i + size / 2 of the token at position p: (x, y) -> (x cos - y sin, y cos + x sin) at angle
// p * frequency[i], as Hugging Face checkpoints are permuted for it. The angles come as (cos, sin)
// (rows, size / 2), computed by the host, so that every device rotates by the same.
// qkv (rows, (heads + 2 kv_heads) * size) f32, bf16 or f16; bias, one for each of a row's values, f32 or null; a head has d
// values in queries and pages, the next power of two, and those beyond size are zero. The keys of row r go to slots[r], the place
// of its token in its page in layer 0, plus `layer` bytes; the values `values` bytes further; from one head to the next are
// PAGE * d values.
#pragma once

#include "decoder.cuh"

struct Rope {
    const void* qkv;
    const float* bias;
    const float2* angles;
    char* const* slots;         // of each row
    void* queries;              // (rows, heads, d)
    int64_t layer, values;
    int heads, kv_heads, size, d;
};

// Where a row's head of keys or values goes.
template <typename T>
__device__ inline T* slot_of(const Rope& r, int64_t row, int head) {
    bool value = head >= r.heads + r.kv_heads;
    int kv_head = (head - r.heads) % r.kv_heads;
    return reinterpret_cast<T*>(r.slots[row] + r.layer + (value ? r.values : 0)) + kv_head * PAGE * r.d;
}

// Puts a pair of values of a head to their places in `to` (d): thread i of d / 2 the values i and i + size / 2, and those behind
// them two zeros each. One order of operations, so that all kernels give the same bits.
template <typename T>
__device__ inline void put_turned(const Rope& r, int64_t row, int head, int i, T* to) {
    int half = r.size / 2;
    if (i >= half) {
        to[2 * i] = to[2 * i + 1] = from_float<T>(0.0f);
        return;
    }
    const T* from = static_cast<const T*>(r.qkv) + (row * (r.heads + 2 * r.kv_heads) + head) * r.size;
    float x = to_float(from[i]), y = to_float(from[i + half]);
    if (r.bias) {
        const float* bias = r.bias + head * r.size;
        x += bias[i];
        y += bias[i + half];
    }
    if (head < r.heads + r.kv_heads) {
        float2 angle = r.angles[row * half + i];
        float turned = fmaf(x, angle.x, -(y * angle.y));
        y = fmaf(y, angle.x, x * angle.y);
        x = turned;
    }
    to[i] = from_float<T>(x);
    to[i + half] = from_float<T>(y);
}
