// Kernels that allocate memory themselves.

// A list for each thread, which another thread takes apart.
extern "C" __global__ void lists(long long *sums, int length) {
    struct Node {
        int value;
        Node *next;
    };
    __shared__ Node *heads[64];
    Node *head = nullptr;
    for (int i = 0; i < length; i++) {
        Node *node = new Node;
        node->value = threadIdx.x * 1000 + i;
        node->next = head;
        head = node;
    }
    heads[threadIdx.x] = head;
    __syncthreads();
    long long sum = 0;
    for (Node *node = heads[63 - threadIdx.x]; node;) {
        sum += node->value;
        Node *next = node->next;
        delete node;
        node = next;
    }
    sums[blockIdx.x * 64 + threadIdx.x] = sum;
}

// The address goes from one launch to the next.
extern "C" __global__ void keeps(int **kept) {
    *kept = (int *)malloc(16);
    for (int i = 0; i < 4; i++) (*kept)[i] = i * i;
}

extern "C" __global__ void uses(int **kept, int *out, int at) {
    *out = (*kept)[at];
    free(*kept);
}

extern "C" __global__ void uses_after_free(int **kept, int *out) {
    for (int round = 0; round < 2; round++) {
        *out = (*kept)[3];
        if (round == 0) free(*kept);
    }
}

extern "C" __global__ void frees_twice(int **kept) {
    free(*kept);
    free(*kept);
}

extern "C" __global__ void frees_inside(int **kept) { free(*kept + 1); }

// How many pieces of this size there are.
extern "C" __global__ void fills(int *count, unsigned bytes) {
    while (malloc(bytes)) ++*count;
}

extern "C" __global__ void reads_what_nothing_wrote(int *out) {
    int *fresh = (int *)malloc(8);
    fresh[0] = 1;
    *out = fresh[1];
    free(fresh);
}
