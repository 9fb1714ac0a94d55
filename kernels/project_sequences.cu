// The gradient of projected rows that are read as sequences, and from there to before their layer normalization, in one pass:
// the gradient of the rows themselves is never written. Reference: src/ops/project/mod.rs, of the gradients that
// src/ops/cross_attention/mod.rs and src/ops/multi_pool/mod.rs put together there.
#include "layer_norm.cuh"
#include "sequence_rows.cuh"

constexpr int READERS = 2;

struct ProjectSequences {
    AttendedRows attended[READERS];
    // The gradient of what was pooled (sequences, 3 d): max || mean || global, or null, and each maximum's row.
    const float* pooled;
    const uint32_t* argmax;
    const uint32_t* offsets;  // of the sequences
    const __half* xhat;       // (rows, d)
    const float* rstd;        // (rows)
    const float* gamma;
    __nv_bfloat16* dx;  // (rows, stride); columns beyond d are zero
    float* partial;     // [dgamma || dbeta || sums of dx] of each block
    // Attentions that read the sequences.
    int readers;
    int d, stride, sequences;
    // Of the longest sequence, SEQUENCE_ROWS rows each; and those that a block takes, one after the other.
    int parts, parts_of_block;
};

// Blocks: the parts of all sequences, as many of each as the longest has.
template <int N>
__device__ inline void project_sequences(const ProjectSequences& p, int block) {
    __shared__ SourceVectors<N> shared;
    int mine = threadIdx.x / WARP * WARP_ROWS;
    bool fours = by_fours(p.d);
    float totals[NORM_SUMS][N] = {}, gamma[N];
    load_row(gamma, p.gamma, p.d, fours);
    int last = min((block + 1) * p.parts_of_block, p.sequences * p.parts);
    for (int part = block * p.parts_of_block; part < last; ++part) {
        int sequence = part / p.parts;
        uint32_t start = p.offsets[sequence], length = p.offsets[sequence + 1] - start;
        uint32_t first = part % p.parts * SEQUENCE_ROWS;
        if (first >= length) continue;
        int rows = min(length - first, static_cast<uint32_t>(SEQUENCE_ROWS));
        float sums[WARP_ROWS][N] = {};
        for (int reader = 0; reader < p.readers; ++reader)
            add_attended(sums, shared, p.attended[reader], sequence, length, first, p.d);
        int64_t row = static_cast<int64_t>(start) + first + mine;
        if (p.pooled) {
            const float* pooled = p.pooled + static_cast<int64_t>(sequence) * 3 * p.d;
            float of_max[N], of_mean[N] = {}, x[N];
            load_row(of_max, pooled, p.d, fours);
            load_row(x, pooled + p.d, p.d, fours);
            add_scaled(of_mean, 1.0f / length, x);
            // Rows are numbers in the place of floats, so that they move like those.
            load_row(x, reinterpret_cast<const float*>(p.argmax) + static_cast<int64_t>(sequence) * p.d, p.d, fours);
#pragma unroll
            for (int r = 0; r < WARP_ROWS; ++r)
#pragma unroll
                for (int v = 0; v < N; ++v)
                    sums[r][v] += of_mean[v] + (__float_as_uint(x[v]) == row + r ? of_max[v] : 0.0f);
        }
#pragma unroll
        for (int r = 0; r < WARP_ROWS; ++r) {
            if (mine + r >= rows) break;
            float xhat[N];
            load_row(xhat, p.xhat + (row + r) * p.d, p.d, fours);
            normalize_backward(sums[r], xhat, gamma, p.rstd[row + r], p.d, fours, totals);
            store_row(p.dx + (row + r) * p.stride, sums[r], p.stride, fours);
        }
    }
    store_totals(p.partial + static_cast<int64_t>(block) * NORM_SUMS * p.d, totals, p.d, fours);
}

extern "C" __global__ void __launch_bounds__(128)
    project_sequences_128(const __grid_constant__ Instances<ProjectSequences, 8> all) {
    each_instance(all, [](const ProjectSequences& p, int block) { project_sequences<4>(p, block); });
}
extern "C" __global__ void __launch_bounds__(128)
    project_sequences_256(const __grid_constant__ Instances<ProjectSequences, 8> all) {
    each_instance(all, [](const ProjectSequences& p, int block) { project_sequences<8>(p, block); });
}
