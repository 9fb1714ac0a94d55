// Tiles of operands of matmul.cu in shared memory, and how the tensor cores multiply them: rounded to tf32 or to bf16.
#pragma once

#include "common.cuh"

// Rows and columns of a tile of C.
constexpr int TILE = 64;

// Tiles of k on tensor cores: rows of d values, which begin anywhere in a sector, are then read in pieces long enough that the
// sectors at both ends count little.
constexpr int DEPTH = 64;

// How far C reaches beyond the first of the 32 x 32 values that a warp computes. Fragments, of 16 x 8, in which C has nothing are
// not multiplied: at the edges of C, where tiles are filled up with zeros, tensor cores would do little else.
struct Extent {
    int rows, columns;
    __device__ inline bool has(int i, int j) const { return 16 * i < rows && 8 * j < columns; }
};

// mma_tf32 and mma_bf16 (common.cuh) under a condition that is the same for a warp: as a predicate and not a branch, across which
// loads would not be scheduled.
__device__ inline void mma_tf32_if(bool holds, float (&c)[4], const float (&a)[4], const float (&b)[2]) {
    asm volatile("{\n.reg .pred holds;\nsetp.ne.u32 holds, %10, 0;\n"
                 "@holds mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n}"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
                   "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])),
                   "r"(static_cast<uint32_t>(holds)));
}

__device__ inline void mma_bf16_if(bool holds, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("{\n.reg .pred holds;\nsetp.ne.u32 holds, %10, 0;\n"
                 "@holds mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n}"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(static_cast<uint32_t>(holds)));
}

// Operands rounded to tf32. A tile of one lies in shared memory as it lies in memory: along k in rows of DEPTH + 4 values, or along
// i in rows of TILE + 8. Either way four values are stored at once, and the eight rows and four columns of a fragment lie in 32
// different banks.
struct Tf32 {
    // Values of k that a step multiplies.
    static constexpr int STEP = 8;

    template <bool ALONG_K>
    struct Tile {
        static constexpr int I = ALONG_K ? DEPTH + 4 : 1, K = ALONG_K ? 1 : TILE + 8;
        static constexpr int BYTES = 4 * (ALONG_K ? TILE * I : DEPTH * K);
        float* values;

        __device__ inline explicit Tile(void* at) : values(static_cast<float*>(at)) {}
        __device__ inline void put(int i, int k, float4 x) {
            float4 rounded = make_float4(round_to_tf32(x.x), round_to_tf32(x.y), round_to_tf32(x.z), round_to_tf32(x.w));
            *reinterpret_cast<float4*>(values + i * I + k * K) = rounded;
        }
        __device__ inline float at(int i, int k) const { return values[i * I + k * K]; }
    };

    // Adds the products of 32 rows of A from `row` and 32 columns of B from `column`, of fragments of which there is anything: a
    // lane holds row lane / 4 and column lane % 4 of one.
    template <typename A, typename B>
    __device__ static inline void multiply(float (&sums)[2][4][4], const A& a, const B& b, int row, int column, int depth,
                                           const Extent& there) {
        int near = threadIdx.x % WARP / 4, along = depth + threadIdx.x % 4;
        float left[2][4], right[4][2];
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) left[i][e] = a.at(row + near + 16 * i + e % 2 * 8, along + e / 2 * 4);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) right[j][e] = b.at(column + near + 8 * j, along + e * 4);
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                mma_tf32_if(there.has(i, j), sums[i][j], left[i], right[j]);
    }
};

// Operands rounded to bf16, whose tiles lie in the same way in rows of 72 values: the eight rows that ldmatrix reads at a time lie
// in 32 different banks. What lies along i is transposed as it is read.
struct Bf16 {
    static constexpr int STEP = 16, PITCH = TILE + 8;
    static_assert(TILE == DEPTH, "tiles along i have the size of those along k");

    template <bool ALONG_K>
    struct Tile {
        static constexpr int BYTES = 2 * TILE * PITCH;
        __nv_bfloat16* values;

        __device__ inline explicit Tile(void* at) : values(static_cast<__nv_bfloat16*>(at)) {}
        __device__ inline __nv_bfloat16* at(int i, int k) const {
            return values + (ALONG_K ? i * PITCH + k : k * PITCH + i);
        }
        __device__ inline void put(int i, int k, float4 x) {
            *reinterpret_cast<uint2*>(at(i, k)) = make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
        }
        // The four 8 x 8 tiles of 16 rows from i and 16 values from k: two of rows first if BY_ROWS, else two of k.
        template <bool BY_ROWS>
        __device__ inline void load(uint32_t (&tiles)[4], int i, int k) const {
            int tile = threadIdx.x % WARP / 8, within = threadIdx.x % 8;
            i += (BY_ROWS ? tile % 2 : tile / 2) * 8, k += (BY_ROWS ? tile / 2 : tile % 2) * 8;
            if (ALONG_K) load_tiles(tiles, at(i + within, k));
            else load_tiles_transposed(tiles, at(i, k + within));
        }
    };

    template <typename A, typename B>
    __device__ static inline void multiply(float (&sums)[2][4][4], const A& a, const B& b, int row, int column, int depth,
                                           const Extent& there) {
        uint32_t left[2][4], right[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i) a.template load<true>(left[i], row + 16 * i, depth);
#pragma unroll
        for (int j = 0; j < 2; ++j) b.template load<false>(right[j], column + 16 * j, depth);
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
                mma_bf16_if(there.has(i, j), sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
    }
};
