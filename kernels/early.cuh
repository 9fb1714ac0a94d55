// Kernels that begin early. Where a device can, a kernel is launched before the one before it in the stream has ended (programmatic
// dependent launch), so that its blocks are there, and weights are on their way, when its turn comes.
//
// Until `await_earlier` such a kernel touches nothing that another kernel writes; weights it may bring near. What other kernels
// wrote it reads by `load_written`, not as what nobody writes (__ldg, ld.global.nc): the compiler may move such reads ahead of the
// wait. build.rs compiles what waits for 9.0 too, and src/device/cuda/early.rs launches it so; elsewhere nothing is left of all this.
#pragma once

#include "common.cuh"

// Until the kernels before have ended and what they wrote is there; from then on the next may begin.
__device__ inline void await_earlier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// What other kernels wrote.
template <typename T>
__device__ inline T load_written(const T* from) {
#if __CUDA_ARCH__ >= 900
    return *from;
#else
    return __ldg(from);
#endif
}

// 16 bytes of it that this launch reads once: they need no place in the first-level cache.
__device__ inline uint4 load_written_once(const void* from) {
    uint4 raw;
#if __CUDA_ARCH__ >= 900
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
                 : "l"(from));
#else
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
        : "l"(from));
#endif
    return raw;
}

// Brings near what a block of THREADS reads first of `rows` rows of weights, at most ROWS, of so many bytes one after the other:
// a line by each thread, 16 KB of a block, so that what all blocks that wait ask for stays in the second-level cache.
template <int THREADS, int ROWS>
__device__ inline void bring_near(const void* weights, int64_t row_bytes, int rows) {
#if __CUDA_ARCH__ >= 900
    constexpr int LINE = 128, LINES = THREADS / ROWS;
    int row = threadIdx.x / LINES;
    int64_t at = threadIdx.x % LINES * LINE;
    if (row >= rows || at >= row_bytes) return;
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const char*>(weights) + row * row_bytes + at));
#endif
}
