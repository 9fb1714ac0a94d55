// The clock of the multiprocessors: delay keeps the device busy while the host queues what is measured, so that no launch is
// waited for in between, and says at which clock it ran meanwhile; stamp says how many cycles and nanoseconds have passed so far,
// so that two of them tell at which clock the multiprocessors ran in between.
//
// rounds: sleeps of about a microsecond. out (2): cycles and nanoseconds that they took; of stamp (3), which begins with zeros,
// those that passed so far, and whether anybody said so.
// Grid: (1); of stamp as many blocks as there are multiprocessors, of which that on the first one answers, since each counts
// cycles of its own; block 32. Times differ from run to run. Reference: src/profile/proof/device.rs.
#include "common.cuh"

struct Delay {
    unsigned long long* out;
    int rounds, padding;
};

struct Stamp {
    unsigned long long* out;
};

__device__ unsigned long long nanoseconds() {
    unsigned long long now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

__device__ unsigned multiprocessor() {
    unsigned number;
    asm volatile("mov.u32 %0, %smid;" : "=r"(number));
    return number;
}

extern "C" __global__ void __launch_bounds__(32) delay(Delay d) {
    if (threadIdx.x != 0) return;
    unsigned long long from = nanoseconds();
    long long cycles = clock64();
    for (int round = 0; round < d.rounds; ++round) __nanosleep(1000);
    d.out[0] = clock64() - cycles;
    d.out[1] = nanoseconds() - from;
}

extern "C" __global__ void __launch_bounds__(32) stamp(Stamp s) {
    if (threadIdx.x != 0 || multiprocessor() != 0) return;
    // Should two blocks meet there, the first one says it.
    if (atomicExch(s.out + 2, 1ull) != 0) return;
    s.out[0] = clock64();
    s.out[1] = nanoseconds();
}
