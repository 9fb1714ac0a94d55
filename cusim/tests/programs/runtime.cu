// A program of the CUDA runtime: says what went wrong and where, if something does.
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>

static void fail(int line, const char* what, const char* why) {
    printf("line %d: %s: %s\n", line, what, why);
    exit(1);
}

#define CHECK(condition)                                                  \
    do {                                                                  \
        if (!(condition)) fail(__LINE__, #condition, "this does not hold"); \
    } while (0)
#define OK(call)                                                                            \
    do {                                                                                    \
        cudaError_t code = (call);                                                          \
        if (code != cudaSuccess) fail(__LINE__, #call, cudaGetErrorString(code));           \
    } while (0)

__device__ int table[4] = {1, 2, 3, 4};
__constant__ float factor = 2.f;

template <typename T>
__global__ void scaled(T* values, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) values[i] = values[i] * (T)factor + (T)table[i % 4];
}

__global__ void __launch_bounds__(64) reversed(int* values, int n) {
    extern __shared__ int copy[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) copy[i] = values[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) values[i] = copy[n - 1 - i];
}

static void called(void* data) { *(int*)data += 1; }

int main() {
    const int n = 1000;
    static float host[n], back[n];
    for (int i = 0; i < n; ++i) host[i] = i;
    int count = 0, device = -1;
    OK(cudaGetDeviceCount(&count));
    OK(cudaGetDevice(&device));
    CHECK(count == 1 && device == 0);
    cudaDeviceProp properties;
    OK(cudaGetDeviceProperties(&properties, 0));
    CHECK(properties.major == 8 && properties.minor == 6 && properties.multiProcessorCount == 82);
    CHECK(properties.warpSize == 32 && properties.sharedMemPerBlockOptin == 101376 && properties.l2CacheSize > 0);
    CHECK(properties.maxThreadsPerMultiProcessor == 1536 && properties.cooperativeLaunch == 1);
    CHECK(properties.reservedSharedMemPerBlock == 1024 && properties.memoryPoolsSupported == 1);

    float* values;
    OK(cudaMalloc(&values, sizeof host));
    OK(cudaMemcpy(values, host, sizeof host, cudaMemcpyHostToDevice));
    scaled<<<(n + 255) / 256, 256>>>(values, n);
    OK(cudaGetLastError());
    OK(cudaMemcpy(back, values, sizeof back, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) CHECK(back[i] == 2 * host[i] + i % 4 + 1);

    int numbers[4] = {10, 20, 30, 40}, found[4];
    float three = 3.f;
    OK(cudaMemcpyToSymbol(table, numbers, sizeof numbers));
    OK(cudaMemcpyToSymbol(factor, &three, sizeof three));
    OK(cudaMemcpyFromSymbol(found, table, 8, 8));
    CHECK(found[0] == 30 && found[1] == 40);
    CHECK(cudaMemcpyFromSymbol(found, table, 8, 12) == cudaErrorInvalidValue);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue && cudaGetLastError() == cudaSuccess);

    cudaStream_t stream;
    cudaEvent_t before, after;
    OK(cudaStreamCreate(&stream));
    OK(cudaEventCreate(&before));
    OK(cudaEventCreate(&after));
    OK(cudaEventRecord(before, stream));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    OK(cudaMemcpyAsync(values, host, sizeof host, cudaMemcpyHostToDevice, stream));
    scaled<<<4, 256, 0, stream>>>(values, n);
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    for (int round = 0; round < 2; ++round) OK(cudaGraphLaunch(exec, stream));
    int calls = 0;
    OK(cudaLaunchHostFunc(stream, called, &calls));
    OK(cudaEventRecord(after, stream));
    OK(cudaEventSynchronize(after));
    float milliseconds = -1;
    OK(cudaEventElapsedTime(&milliseconds, before, after));
    CHECK(calls == 1 && milliseconds >= 0);
    OK(cudaMemcpy(back, values, sizeof back, cudaMemcpyDefault));
    for (int i = 0; i < n; ++i) CHECK(back[i] == 3 * host[i] + 10 * (i % 4 + 1));

    cudaFuncAttributes attributes;
    OK(cudaFuncGetAttributes(&attributes, reversed));
    CHECK(attributes.maxThreadsPerBlock == 64 && attributes.ptxVersion == 80 && attributes.binaryVersion == 86);
    int *large, size = 16384;
    OK(cudaMallocManaged(&large, size * 4));
    for (int i = 0; i < size; ++i) large[i] = i;
    reversed<<<1, 64, 65536>>>(large, size);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
    OK(cudaFuncSetAttribute(reversed, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
    reversed<<<1, 64, 65536>>>(large, size);
    OK(cudaDeviceSynchronize());
    for (int i = 0; i < size; ++i) CHECK(large[i] == size - 1 - i);

    size_t pitch;
    char *rows, lines[3][5] = {"abcd", "efgh", "ijkl"}, copy[3][5];
    OK(cudaMallocPitch(&rows, &pitch, 5, 3));
    OK(cudaMemcpy2D(rows, pitch, lines, 5, 5, 3, cudaMemcpyHostToDevice));
    OK(cudaMemset2D(rows + pitch, pitch, 'x', 2, 2));
    OK(cudaMemcpy2D(copy, 5, rows, pitch, 5, 3, cudaMemcpyDeviceToHost));
    CHECK(copy[0][1] == 'b' && copy[1][1] == 'x' && copy[1][2] == 'g' && copy[2][0] == 'x');

    OK(cudaGraphExecDestroy(exec));
    OK(cudaGraphDestroy(graph));
    OK(cudaEventDestroy(before));
    OK(cudaEventDestroy(after));
    OK(cudaStreamDestroy(stream));
    OK(cudaFree(values));
    OK(cudaFree(large));
    OK(cudaFree(rows));
    OK(cudaFree(nullptr));
    scaled<<<1, 32>>>((float*)nullptr, 32);
    CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
    printf("done: %s\n", cudaGetErrorString(cudaGetLastError()));
}
