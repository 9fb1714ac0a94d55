// Keeps the device busy while the host queues what is measured, so that no launch is waited for in between, and says at which
// clock it ran meanwhile.
//
// rounds: sleeps of about a microsecond. out (2): cycles and nanoseconds that they took.
// Grid: (1); block 32. Times differ from run to run. Reference: src/profile/proof/device.rs.
#include "common.cuh"

struct Delay {
    unsigned long long* out;
    int rounds, padding;
};

__device__ unsigned long long nanoseconds() {
    unsigned long long now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

extern "C" __global__ void __launch_bounds__(32) delay(Delay d) {
    if (threadIdx.x != 0) return;
    unsigned long long from = nanoseconds();
    long long cycles = clock64();
    for (int round = 0; round < d.rounds; ++round) __nanosleep(1000);
    d.out[0] = clock64() - cycles;
    d.out[1] = nanoseconds() - from;
}
