// Scores of one mention against prepared entities (section 3.3 of the paper; Eq. 5 to 7 and 10). Reference:
// src/model/fissfuse/index/scorer.rs.
//
// Per candidate and modality, the mention's query attends to the entity's rows and the entity's query to the mention's; the
// contexts go through value and output layer, residual and normalization; Eq. 7's MLPs follow; six dot products are the
// scores. Everything of one side alone was computed before: rows (L, d), queries (d), logit vectors (heads, d), Fusion's
// vectors (d). Weights are transposed, (inputs, outputs), so that neighbouring threads read neighbouring values.
//
// A block of 512 threads has PAIRS candidates (one where the device has a multiprocessor for each). All of a step is done at once,
// for both modalities or both sides of a pair: attention by a warp per candidate, modality, direction, head and part of the rows,
// whose parts are put together; value layers; output layers, where they are apart; residual and normalization, a warp per vector;
// the two layers of the MLPs; dot products, a warp each. Matrix-vector products are shared by all threads, four columns each,
// which load several inputs' weights before they wait for any, and share a weight among the block's candidates. Scores
// go to the host's memory as they are found. The mention and the number of candidates lie in memory, so that one recorded launch
// serves any mention, and a launch that stays on the device one after the other. Sums have a fixed order, which does not depend
// on PAIRS.
#include "common.cuh"
#include "resident.cuh"

constexpr int THREADS = 512, WARPS = THREADS / WARP, MODALITIES = 2, SIDES = 2;

// Parts of the rows of a query, as many as there are warps for.
constexpr int MOST_PARTS = 4;
__device__ inline int parts_of(int heads) { return heads < MOST_PARTS ? MOST_PARTS / heads : 1; }

// Rows and vectors of one modality; `own_*` are the mention's.
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
    const float* own_rows;
    const float* own_logits;
    const float* own_query;
    int score;  // < 0: not wanted
    int padding;
};

struct Mlp {
    const float* hidden;
    const float* hidden_bias;
    const float* out;
    const float* out_bias;
};

struct Fused {
    const float* vectors;
    const float* own;
    int score;
    int padding;
};

struct Link {
    Resident resident;
    const uint32_t* header;  // candidates, rows of the mention's modalities
    const uint32_t* candidates;
    float* scores;  // (kinds, capacity), in the host's memory
    Modality modalities[MODALITIES];
    Mlp star[SIDES];  // of the mention, of the entity
    Fused fused[3];
    int capacity, d, heads, modality_count, fused_count, star_score;  // star_score < 0: none
    float eps;
    int padding;
};

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }

// Lane l holds values l, l + 32, ... of a row.
template <int VALUES, typename T>
__device__ inline void load_row(float (&values)[VALUES], const T* row, int d) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int v = 0; v < VALUES; ++v) values[v] = v * WARP + lane < d ? widen(row[v * WARP + lane]) : 0.0f;
}

// One query's context in some rows, to shared memory. Of a part of its rows, `peak` is not null: it gets what the weights are
// relative to and what they sum up to, by which the context is then not yet divided. TOGETHER rows at a time: their loads and their
// sums over the lanes do not wait for each other.
template <int VALUES, typename Row, typename Logit>
__device__ inline void attend(float* context, float2* peak, const Row* rows, int length, const Logit* logits, int d) {
    constexpr int TOGETHER = 32 / VALUES;
    int lane = threadIdx.x % WARP;
    float u[VALUES], sum[VALUES] = {};
    load_row(u, logits, d);
    float max = -INFINITY, total = 0;
    for (int first = 0; first < length; first += TOGETHER) {
        float row[TOGETHER][VALUES], logit[TOGETHER], highest = max;
#pragma unroll
        for (int r = 0; r < TOGETHER; ++r) load_row(row[r], rows + static_cast<int64_t>(min(first + r, length - 1)) * d, d);
#pragma unroll
        for (int r = 0; r < TOGETHER; ++r) {
            float product = 0;
#pragma unroll
            for (int v = 0; v < VALUES; ++v) product = fmaf(u[v], row[r][v], product);
            logit[r] = first + r < length ? warp_sum(product) : -INFINITY;
        }
#pragma unroll
        for (int r = 0; r < TOGETHER; ++r) highest = fmaxf(highest, logit[r]);
        float keep = expf(max - highest);
        total *= keep;
#pragma unroll
        for (int v = 0; v < VALUES; ++v) sum[v] *= keep;
#pragma unroll
        for (int r = 0; r < TOGETHER; ++r) {
            float weight = expf(logit[r] - highest);
            total += weight;
#pragma unroll
            for (int v = 0; v < VALUES; ++v) sum[v] = fmaf(weight, row[r][v], sum[v]);
        }
        max = highest;
    }
    float divisor = peak ? 1.0f : total;
#pragma unroll
    for (int v = 0; v < VALUES; ++v)
        if (v * WARP + lane < d) context[v * WARP + lane] = sum[v] / divisor;
    if (peak && lane == 0) *peak = make_float2(max, total);
}

// Some vectors' y (outputs) = x (inputs) W + bias. With several heads, output column j reads the inputs of head
// j / columns_per_head, which lie `inputs` floats apart; else columns_per_head is `outputs`.
struct Layer {
    const float* weight;
    const float* bias;
    const float* x;
    float* y;
    int x_stride, y_stride;
};

// A layer of each of `tasks` (one or two) groups of COUNT vectors, which all have these sizes; `layer` gives that of a group. A
// thread has WIDE columns of one group and a part of the inputs. `parts`: THREADS * WIDE * COUNT floats. Ends with a barrier.
template <int COUNT, int COLUMNS, int WIDE, typename Layers>
__device__ inline void layers_of(const Layers& layer, int tasks, int inputs, int outputs, int columns_per_head, bool relu,
                                 float* parts) {
    // Weights on their way at a time.
    constexpr int GROUPS = COLUMNS / WIDE, AHEAD = WIDE == 4 ? 13 : 16;
    int splits = THREADS / GROUPS / tasks;
    int column = threadIdx.x % GROUPS * WIDE, split = threadIdx.x / GROUPS % splits, task = threadIdx.x / GROUPS / splits;
    float sums[COUNT][WIDE] = {};
    if (column < outputs) {
        Layer l = layer(task);
        const float* x = l.x + column / columns_per_head * inputs;
        int per_split = (inputs + splits - 1) / splits, last = min((split + 1) * per_split, inputs);
        for (int first = split * per_split; first < last; first += AHEAD) {
            float w[AHEAD][WIDE];
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                const float* from = l.weight + min(first + a, last - 1) * outputs + column;
                if constexpr (WIDE == 4) *reinterpret_cast<float4*>(w[a]) = __ldg(reinterpret_cast<const float4*>(from));
                else w[a][0] = __ldg(from);
            }
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                if (first + a >= last) break;
#pragma unroll
                for (int v = 0; v < COUNT; ++v) {
                    float value = x[v * l.x_stride + first + a];
#pragma unroll
                    for (int e = 0; e < WIDE; ++e) sums[v][e] = fmaf(w[a][e], value, sums[v][e]);
                }
            }
        }
    }
    int place = task * splits + split;
#pragma unroll
    for (int v = 0; v < COUNT; ++v) {
        float* to = parts + (place * COUNT + v) * COLUMNS + column;
        // Written out: nvcc takes such a store apart and does not put it together again, and four stores meet in the banks.
        if constexpr (WIDE == 4)
            asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(to)), "f"(sums[v][0]),
                         "f"(sums[v][1]), "f"(sums[v][2]), "f"(sums[v][3])
                         : "memory");
        else *to = sums[v][0];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < tasks * COUNT * outputs; i += THREADS) {
        int of = i / outputs / COUNT, v = i / outputs % COUNT, j = i % outputs;
        Layer l = layer(of);
        float sum = l.bias[j];
        for (int s = 0; s < splits; ++s) sum += parts[((of * splits + s) * COUNT + v) * COLUMNS + j];
        l.y[v * l.y_stride + j] = relu ? ::relu(sum) : sum;
    }
    __syncthreads();
}

template <int COUNT, int COLUMNS, typename Layers>
__device__ inline void layers(const Layers& layer, int tasks, int inputs, int outputs, int columns_per_head, bool relu,
                              float* parts) {
    // Four neighbours are loaded at once where each begins at 16 bytes and all are of one head.
    if (outputs % 4 == 0 && columns_per_head % 4 == 0)
        layers_of<COUNT, COLUMNS, 4>(layer, tasks, inputs, outputs, columns_per_head, relu, parts);
    else
        layers_of<COUNT, COLUMNS, 1>(layer, tasks, inputs, outputs, columns_per_head, relu, parts);
}

__device__ inline float warp_dot(const float* x, const float* y, int d) {
    float sum = 0;
    for (int i = threadIdx.x % WARP; i < d; i += WARP) sum = fmaf(x[i], y[i], sum);
    return warp_sum(sum);
}

// Scores of PAIRS of `count` candidates, from the `first` on. Dynamic shared memory, in floats: contexts (MODALITIES, 2 PAIRS, heads,
// d), attended (2 PAIRS, MODALITIES, d), values and hidden (MODALITIES, 2 PAIRS, d) each, parts (THREADS * 4, 2 PAIRS).
template <typename T, int COLUMNS, int PAIRS>
__device__ inline void score_candidates(const Link& p, int first, int count) {
    extern __shared__ __align__(16) float memory[];
    constexpr int VECTORS = PAIRS * SIDES, VALUES = COLUMNS / WARP;
    __shared__ float2 peaks[MODALITIES * VECTORS * MOST_PARTS];
    int d = p.d, width = p.heads * d, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float* contexts = memory;
    float* attended = contexts + MODALITIES * VECTORS * width;
    float* values = attended + VECTORS * MODALITIES * d;
    float* hidden = values + MODALITIES * VECTORS * d;
    float* parts = hidden + MODALITIES * VECTORS * d;
    // The last block's missing candidate is computed as its first again, and not stored.
    auto candidate = [&](int pair) { return p.candidates[first + pair < count ? first + pair : first]; };

    // A query is one of (modality, pair, side, head); with several parts of its rows, these lie in `parts` until all are there.
    int queries = p.modality_count * VECTORS * p.heads, of_rows = parts_of(p.heads);
    for (int work = warp; work < queries * of_rows; work += WARPS) {
        int part = work % of_rows, query = work / of_rows;
        int head = query % p.heads, side = query / p.heads % SIDES, pair = query / p.heads / SIDES % PAIRS;
        int m = query / p.heads / VECTORS;
        const Modality& modality = p.modalities[m];
        uint32_t entity = candidate(pair), start = modality.starts[entity];
        int rows = side == 0 ? modality.starts[entity + 1] - start : p.header[1 + m];
        int share = (rows + of_rows - 1) / of_rows, from = min(part * share, rows), length = min(share, rows - from);
        float* to = of_rows > 1 ? parts + work * d : contexts + query * d;
        float2* peak = of_rows > 1 ? peaks + work : nullptr;
        if (side == 0)
            attend<VALUES>(to, peak, static_cast<const T*>(modality.rows) + (static_cast<int64_t>(start) + from) * d, length,
                           modality.own_logits + head * d, d);
        else
            attend<VALUES>(to, peak, modality.own_rows + static_cast<int64_t>(from) * d, length,
                           static_cast<const T*>(modality.logits) + static_cast<int64_t>(entity) * width + head * d, d);
    }
    __syncthreads();
    if (of_rows > 1) {
        for (int i = threadIdx.x; i < queries * d; i += THREADS) {
            int query = i / d, column = i % d;
            float max = -INFINITY, total = 0, sum = 0;
            for (int part = 0; part < of_rows; ++part) max = fmaxf(max, peaks[query * of_rows + part].x);
            for (int part = 0; part < of_rows; ++part) {
                int work = query * of_rows + part;
                float weight = expf(peaks[work].x - max);
                total = fmaf(weight, peaks[work].y, total);
                sum = fmaf(weight, parts[work * d + column], sum);
            }
            contexts[i] = sum / total;
        }
        __syncthreads();
    }

    bool apart = p.modalities[0].out != nullptr;
    layers<VECTORS, COLUMNS>(
        [&](int m) {
            const Modality& modality = p.modalities[m];
            return Layer{modality.value, modality.value_bias, contexts + m * VECTORS * width, values + m * VECTORS * d, width, d};
        },
        p.modality_count, d, d, d / p.heads, false, parts);
    if (apart)
        layers<VECTORS, COLUMNS>(
            [&](int m) {
                const Modality& modality = p.modalities[m];
                return Layer{modality.out, modality.out_bias, values + m * VECTORS * d, hidden + m * VECTORS * d, d, d};
            },
            p.modality_count, d, d, d, false, parts);
    // Residual and normalization.
    for (int vector = warp; vector < p.modality_count * VECTORS; vector += WARPS) {
        int m = vector / VECTORS, of_pair = vector % VECTORS, side = of_pair % SIDES, pair = of_pair / SIDES;
        const Modality& modality = p.modalities[m];
        const float* x = (apart ? hidden : values) + vector * d;
        const float* residual = side == 0 ? modality.own_query
                                          : modality.queries + static_cast<int64_t>(candidate(pair)) * d;
        float row[VALUES], sum = 0, squares = 0;
#pragma unroll
        for (int v = 0; v < VALUES; ++v) {
            int j = v * WARP + lane;
            row[v] = j < d ? x[j] + residual[j] : 0.0f;
            sum += row[v];
        }
        float mean = warp_sum(sum) / d;
#pragma unroll
        for (int v = 0; v < VALUES; ++v)
            if (v * WARP + lane < d) squares += (row[v] - mean) * (row[v] - mean);
        float rstd = rsqrtf(warp_sum(squares) / d + p.eps);
#pragma unroll
        for (int v = 0; v < VALUES; ++v) {
            int j = v * WARP + lane;
            if (j < d)
                attended[(of_pair * MODALITIES + m) * d + j] = (row[v] - mean) * rstd * modality.gamma[j] + modality.beta[j];
        }
    }
    __syncthreads();

    if (p.star_score >= 0) {
        // Both modalities' vectors lie side by side, as Eq. 7 wants them, if both take part.
        layers<PAIRS, COLUMNS>(
            [&](int side) {
                const Mlp& mlp = p.star[side];
                return Layer{mlp.hidden, mlp.hidden_bias, attended + side * MODALITIES * d, hidden + side * PAIRS * d,
                             SIDES * MODALITIES * d, d};
            },
            SIDES, p.modality_count * d, d, d, true, parts);
        layers<PAIRS, COLUMNS>(
            [&](int side) {
                const Mlp& mlp = p.star[side];
                return Layer{mlp.out, mlp.out_bias, hidden + side * PAIRS * d, values + side * d, d, SIDES * d};
            },
            SIDES, d, d, d, false, parts);
    }
    // Scores: of modalities, of Eq. 7, of Fusion's vectors.
    int star = p.modality_count, fused = star + 1, all = fused + p.fused_count;
    for (int work = warp; work < PAIRS * all; work += WARPS) {
        int pair = work % PAIRS, which = work / PAIRS, kind;
        const float *x, *y;
        if (which < star) {
            kind = p.modalities[which].score;
            x = attended + (pair * SIDES * MODALITIES + which) * d;
            y = x + MODALITIES * d;
        } else if (which == star) {
            kind = p.star_score;
            x = values + pair * SIDES * d;
            y = x + d;
        } else {
            const Fused& of = p.fused[which - fused];
            kind = of.score;
            x = of.own;
            y = of.vectors + static_cast<int64_t>(candidate(pair)) * d;
        }
        if (kind < 0 || first + pair >= count) continue;
        float score = warp_dot(x, y, d);
        if (lane == 0) p.scores[kind * p.capacity + first + pair] = score;
    }
}

// Grid: (candidates / PAIRS, rounded up), or of a kernel that stays as many blocks as fit the device, which take turns.
template <typename T, int COLUMNS, int PAIRS>
__device__ inline void link(const Link& p) {
    bool stays = p.resident.asked != nullptr;
    uint64_t begun = stays ? nanoseconds() : 0;
    uint32_t round = 0;
    do {
        if (stays && !next_request(p.resident, ++round, begun)) return;
        int count = p.header[0], together = gridDim.x * PAIRS;
        for (int first = blockIdx.x * PAIRS; first < count; first += together) {
            // Its shared memory is still in use.
            if (first >= together) __syncthreads();
            score_candidates<T, COLUMNS, PAIRS>(p, first, count);
        }
        if (stays) answer_request(p.resident, round);
    } while (stays);
}

#define LINK(T, COLUMNS, PAIRS, name)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) link_##name(Link p) { link<T, COLUMNS, PAIRS>(p); }

LINK(__half, 128, 1, f16_128_1)
LINK(__half, 128, 2, f16_128_2)
LINK(__half, 256, 1, f16_256_1)
LINK(float, 128, 1, f32_128_1)
LINK(float, 128, 2, f32_128_2)
LINK(float, 256, 1, f32_256_1)
