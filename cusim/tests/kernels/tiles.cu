// Tiles of several warps, which cooperative groups keep track of in reserved shared memory.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>

namespace cg = cooperative_groups;

extern "C" __global__ void tile_sums(int *out) {
    auto block = cg::this_thread_block();
    auto tile = cg::tiled_partition<64>(block);
    int sum = cg::reduce(tile, (int)threadIdx.x, cg::plus<int>());
    tile.sync();
    out[threadIdx.x] = sum + (int)tile.shfl(threadIdx.x, 63);
}
