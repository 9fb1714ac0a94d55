// Bias and rotary position embedding of queries and keys; keys and values go to the cache.
//
// What paged_attention_rope.cuh describes, for all heads of all rows. Grid: (rows, heads + 2 kv_heads); block d / 2.
// Deterministic. Reference: src/ops/paged_attention/cpu.rs.
#include "paged_attention_rope.cuh"

template <typename T>
__device__ inline void rope(const Rope& r) {
    int64_t row = blockIdx.x;
    int head = blockIdx.y;
    T* to = head < r.heads ? static_cast<T*>(r.queries) + (row * r.heads + head) * r.d : slot_of<T>(r, row, head);
    put_turned(r, row, head, threadIdx.x, to);
}

extern "C" __global__ void __launch_bounds__(128) paged_attention_rope_f32(Rope r) { rope<float>(r); }
extern "C" __global__ void __launch_bounds__(128) paged_attention_rope_bf16(Rope r) { rope<__nv_bfloat16>(r); }
extern "C" __global__ void __launch_bounds__(128) paged_attention_rope_f16(Rope r) { rope<__half>(r); }
