// A kernel that stays on the device and answers one request of the host after the other. Host code: src/device/cuda/resident.rs.
//
// The host writes a request to its page-locked memory, then its number. Block 0 waits for the number, copies the request to the
// device and lets the other blocks begin; the block that ends last writes the number back. All blocks must be on the device at
// once (a cooperative launch). Without a request for a while the kernel leaves, and also after some time whatever comes: work that
// waits for the whole device gets its turn, a display's watchdog does not bark, and a host that died leaves nothing behind.
// Nothing is lost by that: a request that the kernel did not see is answered by the next launch.
#pragma once

#include <cstdint>

struct Resident {
    const uint64_t* asked;    // in the host's memory: the last request's number, and above it whether to leave; null: no resident
    uint32_t* answered;       // in the host's memory
    const uint4* request;     // (words / 4), in the host's memory
    uint4* copy;              // the same in the device's
    uint32_t* round;          // requests that were begun since the launch, or LEAVE; 0 at the launch
    uint32_t* ended;          // blocks that ended one, over all of them; 0 at the launch
    uint64_t idle_ns, life_ns;
    uint32_t first;           // number of the request before the first
    int words;
};

constexpr uint32_t LEAVE = 0xffffffffu;

// What the host, or another block, wrote before it wrote this is seen from here on.
__device__ inline uint64_t load_from_host(const uint64_t* at) {
    uint64_t value;
    asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
    return value;
}
__device__ inline uint32_t load_from_block(const uint32_t* at) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
    return value;
}
// Who sees this sees what was written before.
__device__ inline void store_for_blocks(uint32_t* at, uint32_t value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}
__device__ inline void store_for_host(uint32_t* at, uint32_t value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}

__device__ inline uint64_t nanoseconds() {
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

// One thread's wait for the host; whether there is a request.
__device__ inline bool host_asks(const Resident& r, uint32_t number, uint64_t begun) {
    uint64_t since = nanoseconds();
    while (true) {
        uint64_t asked = load_from_host(r.asked);
        uint64_t now = nanoseconds();
        if (asked >> 32 || now - begun > r.life_ns) return false;
        if (static_cast<uint32_t>(asked) == number) return true;
        if (now - since > r.idle_ns) return false;
    }
}

// Waits for request `round`, counted from 1; whether there is one. `begun`: when the kernel began.
__device__ inline bool next_request(const Resident& r, uint32_t round, uint64_t begun) {
    __shared__ bool asked;
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) {
            // The host has the last answer, so that all blocks have ended: this makes their reads of the copy come before.
            while (load_from_block(r.ended) != (round - 1) * gridDim.x) {}
            asked = host_asks(r, r.first + round, begun);
        }
        // A warp comes to a barrier together, also where one of its lanes waited alone.
        __syncwarp();
        __syncthreads();
        if (asked)
#pragma unroll 4
            for (int i = threadIdx.x; i < r.words / 4; i += blockDim.x) r.copy[i] = __ldcv(r.request + i);
        __syncthreads();
        if (threadIdx.x == 0) store_for_blocks(r.round, asked ? round : LEAVE);
    } else {
        if (threadIdx.x == 0) {
            uint32_t begun_by_all;
            do begun_by_all = load_from_block(r.round);
            while (begun_by_all != round && begun_by_all != LEAVE);
            asked = begun_by_all == round;
        }
        __syncwarp();
        __syncthreads();
    }
    return asked;
}

// This block's part of the answer is in the host's memory. Whoever is last says so.
__device__ inline void answer_request(const Resident& r, uint32_t round) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    __threadfence_system();
    if (atomicAdd(r.ended, 1) + 1 != round * gridDim.x) return;
    __threadfence_system();
    store_for_host(r.answered, r.first + round);
}
