// Rows of the embedding. out (rows, width) f32 = table[tokens[row]], a matrix as stored_weights.cuh describes them.
//
// Grid: rows; block 128; 16 bytes of the table per lane, of codes 8. Deterministic. Reference: src/tensor/weight.rs.
#include "stored_weights.cuh"

struct Embed {
    Weights table;
    const uint32_t* tokens;
    float* out;
};

template <typename W>
__device__ inline void embed(const Embed& e) {
    await_earlier();
    int64_t token = e.tokens[blockIdx.x];
    float* out = e.out + static_cast<int64_t>(blockIdx.x) * e.table.k;
    for (int k = threadIdx.x * W::EACH; k < e.table.k; k += 128 * W::EACH) {
        auto raw = load_once<typename W::Raw>(e.table.codes + W::bytes(token * e.table.k + k));
        float scale = 1.0f;
        if constexpr (W::SCALED)
            scale = to_float(e.table.scales[token * (e.table.k / e.table.group) + k / e.table.group]);
#pragma unroll
        for (int piece = 0; piece < W::EACH / W::PIECE; ++piece) {
            float values[W::PIECE];
            W::unpack(values, raw, piece);
#pragma unroll
            for (int i = 0; i < W::PIECE; i += 4)
                *reinterpret_cast<float4*>(out + W::place(k, piece) + i) = make_float4(
                    values[i] * scale, values[i + 1] * scale, values[i + 2] * scale, values[i + 3] * scale);
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) embedding_stored_f32(Embed e) { embed<Plain<float>>(e); }
extern "C" __global__ void __launch_bounds__(128) embedding_stored_bf16(Embed e) { embed<Plain<__nv_bfloat16>>(e); }
extern "C" __global__ void __launch_bounds__(128) embedding_stored_f16(Embed e) { embed<Plain<__half>>(e); }
extern "C" __global__ void __launch_bounds__(128) embedding_stored_int8(Embed e) { embed<Int8>(e); }
