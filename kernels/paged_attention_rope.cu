// Bias and rotary position embedding of queries and keys; keys and values go to the cache.
//
// Of a head's dimensions i and i + size / 2 of the token at position p: (x, y) -> (x cos - y sin, y cos + x sin) at angle
// p * frequency[i], as Hugging Face checkpoints are permuted for it. The angles come as (cos, sin)
// (rows, size / 2), computed by the host, so that every device rotates by the same.
// qkv (rows, (heads + 2 kv_heads) * size) f32, bf16 or f16; bias, one for each of a row's values, f32 or null; queries (rows, heads, d) of the same type, where d is the next
// power of two and values beyond size are zero. The keys of row r go to slots[r], the place of its token in its page in
// layer 0, plus `layer` bytes; the values `values` bytes further; from one head to the next are PAGE * d values.
// Grid: (rows, heads + 2 kv_heads); block d / 2. Deterministic. Reference: src/ops/paged_attention/cpu.rs.
#include "decoder.cuh"

struct Rope {
    const void* qkv;
    const float* bias;
    const float2* angles;
    char* const* slots;         // of each row
    void* queries;
    int64_t layer, values;
    int heads, kv_heads, size, d;
};

template <typename T>
__device__ inline void rope(const Rope& r) {
    int64_t row = blockIdx.x;
    int head = blockIdx.y, i = threadIdx.x, half = r.size / 2;
    bool query = head < r.heads, value = head >= r.heads + r.kv_heads;
    T* to;
    if (query) {
        to = static_cast<T*>(r.queries) + (row * r.heads + head) * r.d;
    } else {
        int kv_head = (head - r.heads) % r.kv_heads;
        to = reinterpret_cast<T*>(r.slots[row] + r.layer + (value ? r.values : 0)) + kv_head * PAGE * r.d;
    }
    if (i >= half) {
        // The rest of the threads clear what pads the head, two values each.
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
    if (!value) {
        float2 angle = r.angles[row * half + i];
        float turned = x * angle.x - y * angle.y;
        y = y * angle.x + x * angle.y;
        x = turned;
    }
    to[i] = from_float<T>(x);
    to[i + half] = from_float<T>(y);
}

extern "C" __global__ void __launch_bounds__(128) paged_attention_rope_f32(Rope r) { rope<float>(r); }
extern "C" __global__ void __launch_bounds__(128) paged_attention_rope_bf16(Rope r) { rope<__nv_bfloat16>(r); }
extern "C" __global__ void __launch_bounds__(128) paged_attention_rope_f16(Rope r) { rope<__half>(r); }
