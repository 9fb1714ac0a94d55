// The first rows of a transformer: tokens by number, or an image's class vector and patches, plus their positions.
//
// tokens: out[i] = table[ids[i]] + positions[places[i]]. patches: out (images, (1 +) patches) = [class, if there is
// one || patches of the image] + positions ((1 +) patches). All f32, row-major, rows of `width` values, a multiple of 4.
// Grid: a thread for four values, blocks of 256. Deterministic. Reference: src/ops/embedding/mod.rs.
#include "vector.cuh"

struct EmbedTokens {
    const float* table;
    const float* positions;
    const uint32_t* ids;
    const uint32_t* places;
    float* out;
    int rows, width;
};

struct EmbedPatches {
    const float* class_vector;
    const float* patches;
    const float* positions;
    float* out;
    int rows, length, width, class_rows;  // length: of an image, with its class_rows (0 or 1); rows: of all images
};

extern "C" __global__ void __launch_bounds__(256) embedding_tokens(EmbedTokens g) {
    int64_t at = (blockIdx.x * 256ll + threadIdx.x) * FOUR, row = at / g.width, column = at % g.width;
    if (row >= g.rows) return;
    const float* token = g.table + static_cast<int64_t>(g.ids[row]) * g.width;
    const float* position = g.positions + static_cast<int64_t>(g.places[row]) * g.width;
    store_four(g.out + at, load_four(token + column) + load_four(position + column));
}

extern "C" __global__ void __launch_bounds__(256) embedding_patches(EmbedPatches g) {
    int64_t at = (blockIdx.x * 256ll + threadIdx.x) * FOUR, row = at / g.width, column = at % g.width;
    if (row >= g.rows) return;
    int64_t image = row / g.length, place = row % g.length;
    int64_t patches = g.length - g.class_rows, at_patch = image * patches + place - g.class_rows;
    const float* patch = place >= g.class_rows ? g.patches + at_patch * g.width : g.class_vector;
    store_four(g.out + at, load_four(patch + column) + load_four(g.positions + place * g.width + column));
}
