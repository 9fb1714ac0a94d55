// Two linear layers in one launch, with the layer normalization that may follow them, of operands rounded to f16 or to bf16 on
// tensor cores:
//
//   hidden = A W1^T + b1, or ReLU of that, where A's columns are those of up to PARTS arrays laid side by side;
//   out = scale hidden W2^T + b2, or the normalized out + residual.
//
// A block keeps both weights in shared memory and takes tiles of rows in turn. A warp has 16 rows for itself, from its loads to its
// stores: A comes to its registers, and what the first layer's sums are for the lanes is what the second needs of them.
// Widths are multiples of 4, h and d at most 128. Reference: src/ops/mlp/mod.rs, src/ops/cross_attention/mod.rs.
//
// Tensor cores do not care in which order they sum, nor in which order columns lie. So columns of 16 are dealt out by fours: a
// lane loads, holds and stores four neighbours, which are places 2 q, 2 q + 1, 2 q + 8 and 2 q + 9 of a fragment to lane q of a
// quad. Where 8 columns or fewer are left, they lie as they are, and half a fragment is multiplied.
#include "common.cuh"

constexpr int WARPS = 8, PARTS = 3;

// Tiles of 8 columns of h or of d.
constexpr int TILES = 16;

struct TwoLayers {
    const float* parts[PARTS];
    const float* weight1;  // (h, sum of the widths)
    const float* bias1;
    float* hidden;         // (n, h)
    const float* weight2;  // (d, h), or (h, d) if it is transposed
    const float* bias2;    // or null
    float* out;            // (n, d)
    // Of the normalization: row residual_row[i] of `residual` is added to row i.
    const float* residual;
    const uint32_t* residual_row;
    const float* gamma;
    const float* beta;
    __half* xhat;
    float* rstd;
    int widths[PARTS];
    int count;
    int n, h, d;
    int blocks;
    float scale, eps;
    int relu, transposed;
};

using AllTwoLayers = Instances<TwoLayers, 16>;

__device__ inline int by_eights(int columns) { return (columns + 7) / 8 * 8; }

// Values from a row of a weight to the next: rows lie 16 bytes more than a multiple of 32 apart, so that the eight that ldmatrix
// reads at a time lie in different banks.
__device__ inline int pitch_of(int columns) { return (columns / 8 | 1) * 8; }

// Whether a lane has four neighbours of these 16 columns.
__device__ inline bool by_fours(int first, int width) { return width - first > 8; }

// Where a column lies.
__device__ inline int place_of(int column, int width) {
    int within = column % 16, first = column - within;
    return by_fours(first, width) ? first + within / 4 * 2 + within % 2 + within / 2 % 2 * 8 : column;
}

// Four neighbours of a row, or two.
__device__ inline float4 load(const float* from, bool fours) {
    if (fours) return *reinterpret_cast<const float4*>(from);
    float2 two = *reinterpret_cast<const float2*>(from);
    return make_float4(two.x, two.y, 0.0f, 0.0f);
}

__device__ inline void store(float* to, float4 x, bool fours) {
    if (fours) __stwb(reinterpret_cast<float4*>(to), x);
    else __stwb(reinterpret_cast<float2*>(to), make_float2(x.x, x.y));
}
__device__ inline void store(__half* to, float4 x, bool fours) {
    uint32_t low = pack(x.x, x.y, __half()), high = pack(x.z, x.w, __half());
    if (fours) __stwb(reinterpret_cast<uint2*>(to), make_uint2(low, high));
    else __stwb(reinterpret_cast<uint32_t*>(to), low);
}

// Rows of `width` values, `row` apart. Lanes 64 columns apart store halves of their fours in turn: to other banks.
template <typename T>
__device__ inline void share_weight(T* to, int pitch, const float* from, int rows, int row, int width) {
    int fours = width / 4;
    for (int e = threadIdx.x; e < rows * fours; e += WARPS * WARP) {
        int i = e / fours, column = e % fours * 4;
        float4 x = *reinterpret_cast<const float4*>(from + i * row + column);
        T* line = to + place_of(i, rows) * pitch;
#pragma unroll
        for (int turn = 0; turn < 2; ++turn) {
            bool upper = (column / 64 + turn) % 2;
            uint32_t pair = upper ? pack(x.z, x.w, T()) : pack(x.x, x.y, T());
            *reinterpret_cast<uint32_t*>(line + place_of(column + 2 * upper, width)) = pair;
        }
    }
}

// The same of the transposed matrix, of `width` rows of `rows` values. A warp has 32 values of four rows at a time: whole sectors,
// and, as they lie in shared memory, most of the banks.
template <typename T>
__device__ inline void share_transposed(T* to, int pitch, const float* from, int rows, int width) {
    int lane = threadIdx.x % WARP, across = (rows + 31) / 32;
    for (int part = threadIdx.x / WARP; part < across * ((width + 3) / 4); part += WARPS) {
        int column = part / across * 4 + lane / 8, i = part % across * 32 + lane % 8 * 4;
        if (column >= width || i >= rows) continue;
        float4 x = *reinterpret_cast<const float4*>(from + column * rows + i);
        T* line = to + place_of(column, width);
        line[place_of(i, rows) * pitch] = T(x.x), line[place_of(i + 1, rows) * pitch] = T(x.y);
        line[place_of(i + 2, rows) * pitch] = T(x.z), line[place_of(i + 3, rows) * pitch] = T(x.w);
    }
}

// c (16 x 8, f32) += a (16 x 8) b (8 x 8): half of what mma (common.cuh) multiplies.
__device__ inline void mma_half(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b, __half) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(b));
}
__device__ inline void mma_half(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b, __nv_bfloat16) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(b));
}

// Adds the products of a warp's rows with `tiles` tiles of a weight's, of the 16 values from `k` on, or of 8 if there are no
// more: `left` is then half as long.
template <typename T>
__device__ inline void multiply(float (&sums)[TILES][4], const uint32_t (&left)[4], const T* weight, int pitch, int k, int tiles,
                                bool whole) {
    int lane = threadIdx.x % WARP, last = 8 * tiles - 1;
    const T* from = weight + k;
    if (whole) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile += 2) {
            if (tile >= tiles) break;
            uint32_t right[4];
            load_tiles(right, from + min(tile * 8 + lane / 16 * 8 + lane % 8, last) * pitch + lane / 8 % 2 * 8);
            mma(sums[tile], left, right[0], right[1], T());
            if (tile + 1 < tiles) mma(sums[tile + 1], left, right[2], right[3], T());
        }
    } else {
#pragma unroll
        for (int tile = 0; tile < TILES; tile += 4) {
            if (tile >= tiles) break;
            uint32_t right[4];
            load_tiles(right, from + min(tile * 8 + lane, last) * pitch);
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (tile + e < tiles) mma_half(sums[tile + e], left[0], left[1], right[e], T());
        }
    }
}

// The rows that a warp takes, of which a lane has two: `first` + lane / 4 and the row 8 below.
struct Rows {
    int64_t first, n;
    __device__ inline int64_t number(int half) const { return first + threadIdx.x % WARP / 4 + 8 * half; }
    __device__ inline bool has(int half) const { return number(half) < n; }
};

// What a lane has of two tiles, in one of its rows: neighbours, of which the odd tile has the last two.
__device__ inline float4 neighbours(const float (&sums)[TILES][4], int tile, int half) {
    return make_float4(sums[tile][2 * half], sums[tile][2 * half + 1], sums[tile + 1][2 * half], sums[tile + 1][2 * half + 1]);
}
__device__ inline void put_neighbours(float (&sums)[TILES][4], int tile, int half, float4 x) {
    sums[tile][2 * half] = x.x, sums[tile][2 * half + 1] = x.y, sums[tile + 1][2 * half] = x.z, sums[tile + 1][2 * half + 1] = x.w;
}

// Calls `work` with every second tile, the first of this lane's columns in it and in the next, and whether it has four there, or
// two; not with those of which it has none.
template <typename Work>
__device__ inline void each_columns(int width, Work work) {
#pragma unroll
    for (int tile = 0; tile < TILES; tile += 2) {
        bool fours = by_fours(8 * tile, width);
        int column = 8 * tile + (fours ? 4 : 2) * (threadIdx.x % 4);
        if (column < width) work(tile, column, fours);
    }
}

// sums += A W1^T.
template <typename T>
__device__ inline void first_layer(float (&sums)[TILES][4], const TwoLayers& t, const Rows& rows, const T* weight, int pitch,
                                   int tiles) {
    // Steps of 16 columns whose loads are under way at once.
    constexpr int AHEAD = 4;
    int quad = threadIdx.x % 4, before = 0;
    for (int part = 0; part < t.count; ++part) {
        int width = t.widths[part];
        for (int k = 0; k < width; k += 16 * AHEAD) {
            float4 x[AHEAD][2];
#pragma unroll
            for (int step = 0; step < AHEAD; ++step) {
                bool fours = by_fours(k + 16 * step, width);
                int column = k + 16 * step + (fours ? 4 : 2) * quad;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    x[step][half] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    if (column < width && rows.has(half))
                        x[step][half] = load(t.parts[part] + rows.number(half) * width + column, fours);
                }
            }
#pragma unroll
            for (int step = 0; step < AHEAD; ++step) {
                int first = k + 16 * step;
                if (first >= width) break;
                const float4 &upper = x[step][0], &lower = x[step][1];
                uint32_t left[4] = {pack(upper.x, upper.y, T()), pack(lower.x, lower.y, T()), pack(upper.z, upper.w, T()),
                                    pack(lower.z, lower.w, T())};
                multiply(sums, left, weight, pitch, before + first, tiles, by_fours(first, width));
            }
        }
        before += by_eights(width);
    }
}

// Normalizes out + residual, and stores it.
__device__ inline void store_normalized(const TwoLayers& t, float (&out)[TILES][4], const Rows& rows) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int64_t row = rows.has(half) ? rows.number(half) : 0;
        const float* residual = t.residual + static_cast<int64_t>(t.residual_row[row]) * t.d;
        float sum = 0, squares = 0;
        each_columns(t.d, [&](int tile, int column, bool fours) {
            float4 x = neighbours(out, tile, half), more = load(residual + column, fours);
            x.x += more.x, x.y += more.y, x.z += more.z, x.w += more.w;
            sum += x.x + x.y + (fours ? x.z + x.w : 0.0f);
            put_neighbours(out, tile, half, x);
        });
        float mean = quad_sum(sum) / t.d;
        each_columns(t.d, [&](int tile, int, bool fours) {
            float4 x = neighbours(out, tile, half);
            x.x -= mean, x.y -= mean, x.z -= mean, x.w -= mean;
            squares = fmaf(x.x, x.x, fmaf(x.y, x.y, squares));
            if (fours) squares = fmaf(x.z, x.z, fmaf(x.w, x.w, squares));
            put_neighbours(out, tile, half, x);
        });
        float rstd = rsqrtf(quad_sum(squares) / t.d + t.eps);
        if (!rows.has(half)) continue;
        each_columns(t.d, [&](int tile, int column, bool fours) {
            float4 x = neighbours(out, tile, half), gamma = load(t.gamma + column, fours), beta = load(t.beta + column, fours);
            x.x *= rstd, x.y *= rstd, x.z *= rstd, x.w *= rstd;
            store(t.xhat + row * t.d + column, x, fours);
            x.x = fmaf(x.x, gamma.x, beta.x), x.y = fmaf(x.y, gamma.y, beta.y);
            x.z = fmaf(x.z, gamma.z, beta.z), x.w = fmaf(x.w, gamma.w, beta.w);
            store(t.out + row * t.d + column, x, fours);
        });
        if (threadIdx.x % 4 == 0) t.rstd[row] = rstd;
    }
}

// Stores the rows of (n, width).
__device__ inline void store_rows(float* to, const float (&sums)[TILES][4], int width, const Rows& rows) {
    each_columns(width, [&](int tile, int column, bool fours) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
            if (rows.has(half)) store(to + rows.number(half) * width + column, neighbours(sums, tile, half), fours);
    });
}

// Dynamic shared memory: both weights. Blocks: as many as the instance says.
template <typename T, bool NORMALIZED>
__device__ inline void two_layers(const AllTwoLayers& all) {
    int which = first_instance(all), block = blockIdx.x - all.first[which];
    const TwoLayers& t = all.of[which];
    extern __shared__ __align__(16) char shared[];
    int width = 0, whole_width = 0;
    for (int part = 0; part < t.count; ++part) width += t.widths[part], whole_width += by_eights(t.widths[part]);
    int hidden_width = by_eights(t.h), out_width = by_eights(t.d);
    int pitch1 = pitch_of(whole_width), pitch2 = pitch_of(hidden_width);
    T *weight1 = reinterpret_cast<T*>(shared), *weight2 = weight1 + hidden_width * pitch1;
    for (int i = threadIdx.x; i < (hidden_width * pitch1 + out_width * pitch2) / 8; i += WARPS * WARP)
        reinterpret_cast<uint4*>(shared)[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    for (int part = 0, from = 0, to = 0; part < t.count; ++part) {
        share_weight(weight1 + to, pitch1, t.weight1 + from, t.h, width, t.widths[part]);
        from += t.widths[part], to += by_eights(t.widths[part]);
    }
    if (t.transposed) share_transposed(weight2, pitch2, t.weight2, t.d, t.h);
    else share_weight(weight2, pitch2, t.weight2, t.d, t.h, t.h);
    __syncthreads();

    int hidden_tiles = hidden_width / 8, out_tiles = out_width / 8;
    for (int64_t first = 16 * (block * WARPS + threadIdx.x / WARP); first < t.n; first += 16 * WARPS * t.blocks) {
        Rows rows{first, t.n};
        uint32_t left[TILES / 2][4];
        {
            float sums[TILES][4] = {};
            each_columns(t.h, [&](int tile, int column, bool fours) {
                float4 bias = load(t.bias1 + column, fours);
                put_neighbours(sums, tile, 0, bias), put_neighbours(sums, tile, 1, bias);
            });
            first_layer(sums, t, rows, weight1, pitch1, hidden_tiles);
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
                for (int e = 0; e < 4; ++e) sums[tile][e] = t.relu ? relu(sums[tile][e]) : sums[tile][e];
            store_rows(t.hidden, sums, t.h, rows);
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    left[tile / 2][tile % 2 * 2 + half] = pack(sums[tile][2 * half], sums[tile][2 * half + 1], T());
        }
        float out[TILES][4] = {};
#pragma unroll
        for (int tile = 0; tile < TILES; tile += 2) {
            if (tile >= hidden_tiles) break;
            multiply(out, left[tile / 2], weight2, pitch2, 8 * tile, out_tiles, by_fours(8 * tile, t.h));
        }
        each_columns(t.d, [&](int tile, int column, bool fours) {
            float4 bias = t.bias2 ? load(t.bias2 + column, fours) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float4 x = neighbours(out, tile, half);
                x.x = fmaf(t.scale, x.x, bias.x), x.y = fmaf(t.scale, x.y, bias.y);
                x.z = fmaf(t.scale, x.z, bias.z), x.w = fmaf(t.scale, x.w, bias.w);
                put_neighbours(out, tile, half, x);
            }
        });
        if constexpr (NORMALIZED) store_normalized(t, out, rows);
        else store_rows(t.out, out, t.d, rows);
    }
}

extern "C" __global__ void __launch_bounds__(256) two_layers_f16(const __grid_constant__ AllTwoLayers all) {
    two_layers<__half, false>(all);
}
extern "C" __global__ void __launch_bounds__(256) two_layers_bf16(const __grid_constant__ AllTwoLayers all) {
    two_layers<__nv_bfloat16, false>(all);
}
extern "C" __global__ void __launch_bounds__(256) two_layers_norm_f16(const __grid_constant__ AllTwoLayers all) {
    two_layers<__half, true>(all);
}
extern "C" __global__ void __launch_bounds__(256) two_layers_norm_bf16(const __grid_constant__ AllTwoLayers all) {
    two_layers<__nv_bfloat16, true>(all);
}
