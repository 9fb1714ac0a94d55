// What the device's tensor cores do at most, to measure kernels against: products of registers, no memory but the operands'.
//
// Operands (256 threads, 4 registers of A and 2 of B) are bf16 of the host's choice: near zero, or all alike, they would draw
// less power than data, and clocks would be higher. out (blocks, 256): sums over a thread's parts of four products.
// Grid: (blocks); block 256. Deterministic. Reference: src/profile/proof/ceiling.rs.
#include "common.cuh"

struct MmaCeiling {
    const uint32_t* operands;
    float* out;
    int rounds, padding;
};

// Four independent accumulators per warp; each round is four products of 16 x 16 by 16 x 8, 4 * 4096 FLOPs.
extern "C" __global__ void __launch_bounds__(256) mma_ceiling(MmaCeiling m) {
    constexpr int A = 4, B = 2;
    float sums[A][4] = {};
    uint32_t a[A], b[B];
#pragma unroll
    for (int i = 0; i < A; ++i) a[i] = m.operands[threadIdx.x * (A + B) + i];
#pragma unroll
    for (int i = 0; i < B; ++i) b[i] = m.operands[threadIdx.x * (A + B) + A + i];
    for (int round = 0; round < m.rounds; ++round)
#pragma unroll
        for (int i = 0; i < A; ++i) {
            // The registers in another order, so that no product is the one before.
            uint32_t turned[A] = {a[i], a[(i + 1) % A], a[(i + 2) % A], a[(i + 3) % A]};
            mma_bf16(sums[i], turned, b[0], b[1]);
        }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < A; ++i) sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
    m.out[blockIdx.x * 256ll + threadIdx.x] = sum;
}
