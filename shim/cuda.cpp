// What needs LibTorch's CUDA libraries: streams, captured graphs, memory statistics. A shared library of its own, opened
// at run time once libtorch_cuda is there, so that one binary serves machines with and without a GPU.
#include "cuda.h"
#include "guard.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <optional>
#include <string>

namespace {

// Work is captured on a stream of the graph's own; what runs before and after waits for it.
struct Graph {
  at::cuda::CUDAGraph graph;
  c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool();
  std::optional<c10::cuda::CUDAStreamGuard> guard;
};

}  // namespace

extern "C" {

int lf_cuda_stream(int device, void** stream, lf_error error) {
  return guarded(error, [&] { *stream = c10::cuda::getCurrentCUDAStream(device).stream(); });
}

int lf_cuda_graph_begin(lf_graph* graph, lf_error error) {
  return guarded(error, [&] {
    auto made = std::make_unique<Graph>();
    made->stream.synchronize();
    c10::cuda::device_synchronize();
    made->guard.emplace(made->stream);
    made->graph.capture_begin();
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

}  // extern "C"
