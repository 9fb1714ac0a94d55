// out (rows, inner) = silu(gate) * up, where a row of gate_up (rows, 2 * inner) holds its gates, then its ups.
//
// f32, bf16 or f16; 16 bytes per thread, so that inner is a multiple of what they hold. Grid: all threads in a row; block
// 256. Deterministic. Reference: src/device/cpu/vector.rs.
#include "llama.cuh"

struct Swiglu {
    const void* gate_up;
    void* out;
    int64_t chunks;  // of 16 bytes, in out
    int inner, padding;
};

template <typename T>
__device__ inline void swiglu(const Swiglu& s) {
    constexpr int EACH = PER_LOAD<T>;
    int64_t chunk = blockIdx.x * 256ll + threadIdx.x;
    if (chunk >= s.chunks) return;
    int per_row = s.inner / EACH;
    const T* from = static_cast<const T*>(s.gate_up) + chunk / per_row * 2 * s.inner + chunk % per_row * EACH;
    float gate[EACH], up[EACH];
    load_values(gate, from);
    load_values(up, from + s.inner);
#pragma unroll
    for (int e = 0; e < EACH; ++e) gate[e] = gate[e] / (1.0f + expf(-gate[e])) * up[e];
    uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
        if constexpr (sizeof(T) == 4) words[w] = __float_as_uint(gate[w]);
        else words[w] = pack(gate[2 * w], gate[2 * w + 1], T());
    }
    static_cast<uint4*>(s.out)[chunk] = make_uint4(words[0], words[1], words[2], words[3]);
}

extern "C" __global__ void __launch_bounds__(256) llama_swiglu_f32(Swiglu s) { swiglu<float>(s); }
extern "C" __global__ void __launch_bounds__(256) llama_swiglu_bf16(Swiglu s) { swiglu<__nv_bfloat16>(s); }
extern "C" __global__ void __launch_bounds__(256) llama_swiglu_f16(Swiglu s) { swiglu<__half>(s); }
