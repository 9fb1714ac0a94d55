// Scores of one mention against prepared entities (section 3.3 of the paper; Eq. 5 to 7 and 10). Reference:
// src/model/index/scorer.rs.
//
// Per candidate and modality, the mention's query attends to the entity's rows and the entity's query to the mention's; the
// contexts go through value and output layer, residual and normalization; Eq. 7's MLPs follow; six dot products are the
// scores. Everything of one side alone was computed before: rows (L, d), queries (d), logit vectors (heads, d), Fusion's
// vectors (d). Weights are transposed, (inputs, outputs), so that neighbouring threads read neighbouring values.
//
// A block of 512 threads has PAIRS candidates: attention by a warp per candidate, modality, direction and head, then
// matrix-vector products by all threads, which share each weight among the block's candidates. The mention and the number of
// candidates lie in memory, so that one recorded launch serves any mention. Sums have a fixed order.
#include "common.cuh"

constexpr int PAIRS = 2, THREADS = 512, LANE_VALUES = 8, MODALITIES = 2, SIDES = 2;

// Rows and vectors of one modality. `start`, of `own_*`: where the part begins in the mention's floats.
struct Modality {
    const void* rows;
    const void* logits;
    const float* queries;
    const uint32_t* starts;  // each entity's first row, then their number
    const float* value;
    const float* value_bias;
    const float* out;  // null where value and output layer are one matrix
    const float* out_bias;
    const float* gamma;
    const float* beta;
    int own_rows, own_logits, own_query, score;  // score < 0: not wanted
};

struct Mlp {
    const float* hidden;
    const float* hidden_bias;
    const float* out;
    const float* out_bias;
};

struct Fused {
    const float* vectors;
    int own, score;
};

// What the host writes before each launch: counts, then the candidates, then the mention's floats.
struct Link {
    const uint32_t* header;  // candidates, rows of the mention's modalities
    const uint32_t* candidates;
    const float* mention;
    float* scores;  // (kinds, capacity)
    Modality modalities[MODALITIES];
    Mlp star[SIDES];  // of the mention, of the entity
    Fused fused[3];
    int capacity, d, heads, modality_count, fused_count, star_score;  // star_score < 0: none
    float eps;
    int padding;
};

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }

template <typename T>
__device__ inline void load_row(float (&values)[LANE_VALUES], const T* row, int d) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int v = 0; v < LANE_VALUES; ++v) values[v] = v * WARP + lane < d ? widen(row[v * WARP + lane]) : 0.0f;
}

// The context of one query in `length` rows, stored to shared memory. Four rows at a time: their sums over the lanes do not
// wait for each other.
template <typename Row, typename Logit>
__device__ inline void attend(float* context, const Row* rows, int length, const Logit* logits, int d) {
    constexpr int TOGETHER = 4;
    int lane = threadIdx.x % WARP;
    float u[LANE_VALUES], sum[LANE_VALUES] = {};
    load_row(u, logits, d);
    float max = -INFINITY, total = 0;
    for (int first = 0; first < length; first += TOGETHER) {
        float row[TOGETHER][LANE_VALUES], logit[TOGETHER], highest = max;
#pragma unroll
        for (int r = 0; r < TOGETHER; ++r) {
            bool there = first + r < length;
            load_row(row[r], rows + static_cast<int64_t>(there ? first + r : first) * d, d);
            float product = 0;
#pragma unroll
            for (int v = 0; v < LANE_VALUES; ++v) product = fmaf(u[v], row[r][v], product);
            logit[r] = there ? warp_sum(product) : -INFINITY;
        }
#pragma unroll
        for (int r = 0; r < TOGETHER; ++r) highest = fmaxf(highest, logit[r]);
        float keep = expf(max - highest);
        total *= keep;
#pragma unroll
        for (int v = 0; v < LANE_VALUES; ++v) sum[v] *= keep;
#pragma unroll
        for (int r = 0; r < TOGETHER; ++r) {
            float weight = expf(logit[r] - highest);
            total += weight;
#pragma unroll
            for (int v = 0; v < LANE_VALUES; ++v) sum[v] = fmaf(weight, row[r][v], sum[v]);
        }
        max = highest;
    }
#pragma unroll
    for (int v = 0; v < LANE_VALUES; ++v)
        if (v * WARP + lane < d) context[v * WARP + lane] = sum[v] / total;
}

// y[v] (outputs) = x[v] (inputs) W + bias for the block's COUNT vectors, `x_stride` and `y_stride` floats apart. With several
// heads, output column j reads the inputs of head j / columns_per_head, which lie `inputs` floats apart; else give
// columns_per_head = outputs. `parts`: THREADS / COLUMNS * COUNT * COLUMNS floats. Ends with a barrier.
template <int COUNT, int COLUMNS>
__device__ inline void matrix_vectors(float* y, int y_stride, const float* x, int x_stride, const float* weight,
                                      const float* bias, int inputs, int outputs, int columns_per_head, bool relu,
                                      float* parts) {
    constexpr int SPLITS = THREADS / COLUMNS;
    int column = threadIdx.x % COLUMNS, split = threadIdx.x / COLUMNS;
    float sums[COUNT] = {};
    if (column < outputs) {
        const float* mine = x + column / columns_per_head * inputs;
        int per_split = (inputs + SPLITS - 1) / SPLITS, last = min((split + 1) * per_split, inputs);
#pragma unroll 8
        for (int k = split * per_split; k < last; ++k) {
            float w = weight[k * outputs + column];
#pragma unroll
            for (int v = 0; v < COUNT; ++v) sums[v] = fmaf(w, mine[v * x_stride + k], sums[v]);
        }
    }
#pragma unroll
    for (int v = 0; v < COUNT; ++v) parts[(split * COUNT + v) * COLUMNS + column] = sums[v];
    __syncthreads();
    for (int e = threadIdx.x; e < COUNT * outputs; e += THREADS) {
        int v = e / outputs, j = e % outputs;
        float sum = bias[j];
        for (int s = 0; s < SPLITS; ++s) sum += parts[(s * COUNT + v) * COLUMNS + j];
        y[v * y_stride + j] = relu ? fmaxf(sum, 0.0f) : sum;
    }
    __syncthreads();
}

__device__ inline float warp_dot(const float* x, const float* y, int d) {
    float sum = 0;
    for (int i = threadIdx.x % WARP; i < d; i += WARP) sum = fmaf(x[i], y[i], sum);
    return warp_sum(sum);
}

// Grid: (capacity / PAIRS, rounded up). Dynamic shared memory, in floats: contexts (2 PAIRS, heads, d), attended (2 PAIRS,
// MODALITIES, d), values and hidden (2 PAIRS, d) each, parts (2 PAIRS, 512).
template <typename T, int COLUMNS>
__device__ inline void link(const Link& p) {
    extern __shared__ float memory[];
    constexpr int VECTORS = PAIRS * SIDES;
    int d = p.d, width = p.heads * d, warp = threadIdx.x / WARP;
    int count = p.header[0], first = blockIdx.x * PAIRS;
    if (first >= count) return;
    float* contexts = memory;
    float* attended = contexts + VECTORS * width;
    float* values = attended + VECTORS * MODALITIES * d;
    float* hidden = values + VECTORS * d;
    float* parts = hidden + VECTORS * d;
    // The last block's missing candidate is computed as its first again, and not stored.
    auto candidate = [&](int pair) { return p.candidates[first + pair < count ? first + pair : first]; };

    for (int m = 0; m < p.modality_count; ++m) {
        const Modality& modality = p.modalities[m];
        const T* rows = static_cast<const T*>(modality.rows);
        const T* logits = static_cast<const T*>(modality.logits);
        for (int work = warp; work < VECTORS * p.heads; work += THREADS / WARP) {
            int head = work % p.heads, side = work / p.heads % SIDES, pair = work / p.heads / SIDES;
            uint32_t entity = candidate(pair), start = modality.starts[entity];
            float* context = contexts + (pair * SIDES + side) * width + head * d;
            if (side == 0)
                attend(context, rows + static_cast<int64_t>(start) * d, modality.starts[entity + 1] - start,
                       p.mention + modality.own_logits + head * d, d);
            else
                attend(context, p.mention + modality.own_rows, p.header[1 + m],
                       logits + static_cast<int64_t>(entity) * width + head * d, d);
        }
        __syncthreads();
        bool apart = modality.out != nullptr;
        matrix_vectors<VECTORS, COLUMNS>(values, d, contexts, width, modality.value, modality.value_bias, d, d,
                                         d / p.heads, false, parts);
        if (apart)
            matrix_vectors<VECTORS, COLUMNS>(hidden, d, values, d, modality.out, modality.out_bias, d, d, d, false, parts);
        // Residual and normalization, a warp per vector.
        if (warp < VECTORS) {
            int side = warp % SIDES, pair = warp / SIDES, lane = threadIdx.x % WARP;
            const float* x = (apart ? hidden : values) + warp * d;
            const float* residual = side == 0 ? p.mention + modality.own_query
                                              : modality.queries + static_cast<int64_t>(candidate(pair)) * d;
            float row[LANE_VALUES], sum = 0, squares = 0;
#pragma unroll
            for (int v = 0; v < LANE_VALUES; ++v) {
                int j = v * WARP + lane;
                row[v] = j < d ? x[j] + residual[j] : 0.0f;
                sum += row[v];
            }
            float mean = warp_sum(sum) / d;
#pragma unroll
            for (int v = 0; v < LANE_VALUES; ++v)
                if (v * WARP + lane < d) squares += (row[v] - mean) * (row[v] - mean);
            float rstd = rsqrtf(warp_sum(squares) / d + p.eps);
#pragma unroll
            for (int v = 0; v < LANE_VALUES; ++v) {
                int j = v * WARP + lane;
                if (j < d)
                    attended[(warp * MODALITIES + m) * d + j] = (row[v] - mean) * rstd * modality.gamma[j] + modality.beta[j];
            }
        }
        __syncthreads();
        if (modality.score >= 0 && warp < PAIRS && first + warp < count) {
            const float* mention = attended + (warp * SIDES * MODALITIES + m) * d;
            float score = warp_dot(mention, mention + MODALITIES * d, d);
            if (threadIdx.x % WARP == 0) p.scores[modality.score * p.capacity + first + warp] = score;
        }
    }

    if (p.star_score >= 0) {
        // Both modalities' vectors lie side by side, as Eq. 7 wants them, if both take part.
        for (int side = 0; side < SIDES; ++side) {
            const Mlp& mlp = p.star[side];
            matrix_vectors<PAIRS, COLUMNS>(hidden, d, attended + side * MODALITIES * d, SIDES * MODALITIES * d, mlp.hidden,
                                           mlp.hidden_bias, p.modality_count * d, d, d, true, parts);
            matrix_vectors<PAIRS, COLUMNS>(values + side * d, SIDES * d, hidden, d, mlp.out, mlp.out_bias, d, d, d, false,
                                           parts);
        }
        if (warp < PAIRS && first + warp < count) {
            float score = warp_dot(values + warp * SIDES * d, values + (warp * SIDES + 1) * d, d);
            if (threadIdx.x % WARP == 0) p.scores[p.star_score * p.capacity + first + warp] = score;
        }
    }
    int work = warp - PAIRS;
    if (work >= 0 && work < PAIRS * p.fused_count && first + work % PAIRS < count) {
        int pair = work % PAIRS;
        const Fused& fused = p.fused[work / PAIRS];
        float score = warp_dot(p.mention + fused.own, fused.vectors + static_cast<int64_t>(candidate(pair)) * d, d);
        if (fused.score >= 0 && threadIdx.x % WARP == 0) p.scores[fused.score * p.capacity + first + pair] = score;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) link_f16_128(Link p) { link<__half, 128>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) link_f16_256(Link p) { link<__half, 256>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) link_f32_128(Link p) { link<float, 128>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) link_f32_256(Link p) { link<float, 256>(p); }
