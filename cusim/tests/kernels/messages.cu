// Mistakes in functions of headers and in templates, for the words of reports.

namespace names {

template <typename T>
__global__ void third(const T* x, T* y) {
    y[threadIdx.x] = __ldg(&x[3 * threadIdx.x]);  // reads past the end
}

__device__ __forceinline__ int twice(const int* part, int i) { return part[2 * i % 64]; }

template <typename T>
__global__ void race(const T* x, T* y) {
    __shared__ int part[64];
    part[threadIdx.x] = 1;
    y[threadIdx.x] = twice(part, threadIdx.x + 5);  // races
}

}  // namespace names

template __global__ void names::third<float>(const float*, float*);
template __global__ void names::race<float>(const float*, float*);

// All threads read one place, and one of them writes it: who did both is to be named only once.
extern "C" __global__ void one_of_all_writes(int* y, int writer) {
    __shared__ int s;
    if (threadIdx.x == 0) s = 7;
    __syncthreads();
    int value = s + y[1];
    y[64 + threadIdx.x] = value;
    if (threadIdx.x == writer) s = value;
    if (threadIdx.x == writer) y[1] = value;
}

extern "C" __global__ void reader_of_all_blocks_writes(int* y, int writer) {
    int value = threadIdx.x == 0 ? y[0] : 0;
    y[64 + blockIdx.x * blockDim.x + threadIdx.x] = value;
    if (threadIdx.x == 0 && blockIdx.x == writer) y[0] = value + 1;
}

extern "C" __global__ void reads_pairs(int* y, int writer) {
    __shared__ int s[32];
    s[threadIdx.x] = 0;
    __syncthreads();
    int value = s[threadIdx.x % 16] + y[threadIdx.x % 16];
    y[64 + threadIdx.x] = value;
    if (threadIdx.x == writer) s[threadIdx.x % 16] = y[threadIdx.x % 16] = value + 1;
}
