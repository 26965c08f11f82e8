// C interface of shim/cuda.cpp; every function returns 0, or -1 with a message in `error`.
#pragma once
#include "shim.h"

extern "C" {

typedef void* lf_graph;

// LibTorch's current stream of a device, a CUstream.
int lf_cuda_stream(int device, void** stream, lf_error error);

// Between begin and end, this thread's work on the current device is recorded instead of run. A graph that failed
// between the two must be freed as well.
int lf_cuda_graph_begin(lf_graph* graph, lf_error error);
int lf_cuda_graph_end(lf_graph graph, lf_error error);
int lf_cuda_graph_replay(lf_graph graph, lf_error error);
void lf_cuda_graph_free(lf_graph graph);

// Highest number of bytes in use by tensors so far.
int lf_cuda_peak_memory(int device, int64_t* bytes, lf_error error);

}  // extern "C"
