// What needs LibTorch's CUDA libraries: streams, captured graphs, memory statistics, NCCL. A shared library of its own, opened
// at run time once libtorch_cuda is there, so that one binary serves machines with and without a GPU.
#include "cuda.h"
#include "guard.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

// The part of NCCL's interface that is used here. Its header comes only with the library itself, which libtorch_cuda
// brings into the process; these declarations are the same in every NCCL 2.
extern "C" {
typedef struct ncclComm* ncclComm_t;
typedef struct {
  char bytes[128];
} ncclUniqueId;
int ncclGetUniqueId(ncclUniqueId* id);
int ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank);
int ncclCommAbort(ncclComm_t comm);
int ncclAllReduce(const void* from, void* to, size_t count, int type, int operation, ncclComm_t comm, cudaStream_t);
int ncclBroadcast(const void* from, void* to, size_t count, int type, int root, ncclComm_t comm, cudaStream_t);
const char* ncclGetErrorString(int result);
}

namespace {

// Work is captured on a stream of the graph's own; what runs before and after waits for it.
struct Graph {
  at::cuda::CUDAGraph graph;
  c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
  std::optional<c10::cuda::CUDAStreamGuard> guard;
};

constexpr int kNcclFloat = 7, kNcclDouble = 8, kNcclSum = 0, kNcclMax = 2;

void check(int result) { TORCH_CHECK(result == 0, "NCCL: ", ncclGetErrorString(result)); }

struct Nccl {
  ncclComm_t comm;
  c10::cuda::CUDAStream stream;
  c10::Event before{c10::DeviceType::CUDA}, after{c10::DeviceType::CUDA};

  // The group's stream, once it waits for what the current one has been given.
  cudaStream_t follow() {
    before.record(c10::cuda::getCurrentCUDAStream(stream.device_index()));
    before.block(stream);
    return stream.stream();
  }
};

int type_of(const at::Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? kNcclDouble : kNcclFloat; }

}  // namespace

extern "C" {

int lf_cuda_stream(int device, void** stream, lf_error error) {
  return guarded(error, [&] { *stream = c10::cuda::getCurrentCUDAStream(device).stream(); });
}

int lf_cuda_set_device(int device, lf_error error) {
  return guarded(error, [&] { c10::cuda::set_device(device); });
}

int lf_cuda_bus_id(int device, char* id, lf_error error) {
  return guarded(error, [&] { C10_CUDA_CHECK(cudaDeviceGetPCIBusId(id, 32, device)); });
}

int lf_cuda_graph_begin(lf_graph* graph, lf_graph beside, lf_error error) {
  return guarded(error, [&] {
    auto made = std::make_unique<Graph>();
    made->stream.synchronize();
    c10::cuda::device_synchronize();
    made->guard.emplace(made->stream);
    if (beside == nullptr) {
      made->graph.capture_begin();
    } else {
      made->graph.capture_begin(static_cast<Graph*>(beside)->graph.pool());
    }
    *graph = made.release();
  });
}

int lf_cuda_graph_end(lf_graph graph, lf_error error) {
  return guarded(error, [&] {
    auto* g = static_cast<Graph*>(graph);
    g->graph.capture_end();
    g->guard.reset();
  });
}

int lf_cuda_graph_replay(lf_graph graph, lf_error error) {
  return guarded(error, [&] { static_cast<Graph*>(graph)->graph.replay(); });
}

void lf_cuda_graph_free(lf_graph graph) { delete static_cast<Graph*>(graph); }

int lf_cuda_peak_memory(int device, int64_t* bytes, lf_error error) {
  return guarded(error, [&] {
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *bytes = c10::cuda::CUDACachingAllocator::getDeviceStats(device).allocated_bytes[all].peak;
  });
}

int lf_nccl_id(uint8_t* id, lf_error error) {
  return guarded(error, [&] {
    ncclUniqueId made;
    check(ncclGetUniqueId(&made));
    std::copy(made.bytes, made.bytes + sizeof(made.bytes), id);
  });
}

int lf_nccl_new(const uint8_t* id, int rank, int size, int device, lf_nccl* group, lf_error error) {
  return guarded(error, [&] {
    c10::cuda::CUDAGuard guard(device);
    ncclUniqueId shared;
    std::copy(id, id + sizeof(shared.bytes), shared.bytes);
    ncclComm_t comm;
    check(ncclCommInitRank(&comm, size, shared, rank));
    *group = new Nccl{comm, c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device)};
  });
}

int lf_nccl_all_reduce(lf_nccl group, lf_tensor tensor, lf_reduction reduction, lf_error error) {
  return guarded(error, [&] {
    auto* g = static_cast<Nccl*>(group);
    auto& t = *static_cast<at::Tensor*>(tensor);
    int operation = reduction == LF_SUM ? kNcclSum : kNcclMax;
    check(ncclAllReduce(t.data_ptr(), t.data_ptr(), t.numel(), type_of(t), operation, g->comm, g->follow()));
  });
}

int lf_nccl_broadcast(lf_nccl group, lf_tensor tensor, int root, lf_error error) {
  return guarded(error, [&] {
    auto* g = static_cast<Nccl*>(group);
    auto& t = *static_cast<at::Tensor*>(tensor);
    check(ncclBroadcast(t.data_ptr(), t.data_ptr(), t.numel(), type_of(t), root, g->comm, g->follow()));
  });
}

int lf_nccl_join(lf_nccl group, lf_error error) {
  return guarded(error, [&] {
    auto* g = static_cast<Nccl*>(group);
    g->after.record(g->stream);
    g->after.block(c10::cuda::getCurrentCUDAStream(g->stream.device_index()));
  });
}

// Aborted, not destroyed: that would wait for processes that may be gone.
void lf_nccl_free(lf_nccl group) {
  auto* g = static_cast<Nccl*>(group);
  ncclCommAbort(g->comm);
  delete g;
}

}  // extern "C"
