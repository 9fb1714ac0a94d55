// What the device's tensor cores do at most, to measure kernels against: products of registers, no memory.
#include "common.cuh"

struct MmaCeiling {
    float* out;
    int rounds, padding;
};

// Four independent accumulators per warp; each round is four products of 16 x 16 by 16 x 8, 4 * 4096 FLOPs.
extern "C" __global__ void __launch_bounds__(256) mma_ceiling(MmaCeiling m) {
    float sums[4][4] = {};
    uint32_t a[4] = {threadIdx.x, threadIdx.x + 1, threadIdx.x + 2, threadIdx.x + 3};
    for (int round = 0; round < m.rounds; ++round)
#pragma unroll
        for (int i = 0; i < 4; ++i) mma_bf16(sums[i], a, a[0], a[1]);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
    m.out[blockIdx.x * 256ll + threadIdx.x] = sum;
}
