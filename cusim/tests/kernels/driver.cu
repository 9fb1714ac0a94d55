// Small kernels for the tests of the driver API.
#include <cooperative_groups.h>
#include <cstdio>

__device__ float table[4] = {1.f, 2.f, 3.f, 4.f};

extern "C" __global__ void double_all(float* values, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) values[i] *= 2.f;
}

extern "C" __global__ void __launch_bounds__(64) bounded(float* values, int n) {
    if (threadIdx.x < n) values[threadIdx.x] += table[threadIdx.x % 4];
}

extern "C" __global__ void reverse_dynamic(int* values, int n) {
    extern __shared__ int copy[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) copy[i] = values[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) values[i] = copy[n - 1 - i];
}

// Every element becomes the sum of all: blocks wait for each other.
extern "C" __global__ void grid_sum(int* values) {
    __shared__ int sum;
    auto grid = cooperative_groups::this_grid();
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    int part = 0;
    for (int i = threadIdx.x; i < gridDim.x * blockDim.x; i += blockDim.x) part += values[i];
    atomicAdd(&sum, part);
    __syncthreads();
    grid.sync();
    values[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
