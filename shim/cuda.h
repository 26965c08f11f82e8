// C interface of shim/cuda.cpp; every function returns 0, or -1 with a message in `error`.
#pragma once
#include "shim.h"

extern "C" {

typedef void* lf_graph;
typedef void* lf_nccl;

// LibTorch's current stream of a device, a CUstream.
int lf_cuda_stream(int device, void** stream, lf_error error);

// Makes a device that of the calling thread.
int lf_cuda_set_device(int device, lf_error error);

// The address of a device on its machine's bus, at most 31 characters.
int lf_cuda_bus_id(int device, char* id, lf_error error);

// Between begin and end, this thread's work on the current device is recorded instead of run. A graph that failed
// between the two must be freed as well.
// `beside` is a graph that is never replayed at the same time, whose memory this one may use, or null.
int lf_cuda_graph_begin(lf_graph* graph, lf_graph beside, lf_error error);
int lf_cuda_graph_end(lf_graph graph, lf_error error);
int lf_cuda_graph_replay(lf_graph graph, lf_error error);
void lf_cuda_graph_free(lf_graph graph);

// Highest number of bytes in use by tensors so far.
int lf_cuda_peak_memory(int device, int64_t* bytes, lf_error error);

// NCCL between `size` processes, each with the GPU `device`. One process makes the 128 bytes of `id` for all.
int lf_nccl_id(uint8_t* id, lf_error error);
int lf_nccl_new(const uint8_t* id, int rank, int size, int device, lf_nccl* group, lf_error error);
// In place, over contiguous fp32 or fp64 tensors of the group's device, on a stream of the group's own: work follows what
// the current stream was given before, and `lf_nccl_join` makes the current stream wait for it. Both can be recorded.
int lf_nccl_all_reduce(lf_nccl group, lf_tensor tensor, lf_reduction reduction, lf_error error);
int lf_nccl_broadcast(lf_nccl group, lf_tensor tensor, int root, lf_error error);
int lf_nccl_join(lf_nccl group, lf_error error);
void lf_nccl_free(lf_nccl group);

}  // extern "C"
