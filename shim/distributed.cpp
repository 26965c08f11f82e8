// Processes of one run: where they meet (c10d's TCP store), and Gloo, which adds up their tensors on a CPU.
#include "guard.h"
#include "shim.h"

#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Store = c10::intrusive_ptr<c10d::Store>;
using Group = c10::intrusive_ptr<c10d::ProcessGroupGloo>;
using Work = c10::intrusive_ptr<c10d::Work>;

std::vector<at::Tensor> one(lf_tensor pointer) { return {*static_cast<at::Tensor*>(pointer)}; }

}  // namespace

extern "C" {

int lf_store_new(const char* host, uint16_t port, int serve, size_t processes, int64_t timeout_ms, lf_store* store,
                 lf_error error) {
  return guarded(error, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve != 0;
    options.numWorkers = processes;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *store = new Store(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

int lf_store_set(lf_store store, const char* key, const uint8_t* value, size_t length, lf_error error) {
  return guarded(error, [&] { (*static_cast<Store*>(store))->set(key, std::vector<uint8_t>(value, value + length)); });
}

int lf_store_get(lf_store store, const char* key, uint8_t* value, size_t capacity, size_t* length, lf_error error) {
  return guarded(error, [&] {
    auto found = (*static_cast<Store*>(store))->get(key);
    TORCH_CHECK(found.size() <= capacity, "the value of ", key, " is longer than ", capacity, " bytes");
    std::copy(found.begin(), found.end(), value);
    *length = found.size();
  });
}

void lf_store_free(lf_store store) { delete static_cast<Store*>(store); }

int lf_gloo_new(lf_store store, int rank, int size, const char* host, int64_t timeout_ms, lf_gloo* group,
                lf_error error) {
  return guarded(error, [&] {
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    if (host != nullptr) {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(host));
    } else if (interface != nullptr && *interface != '\0') {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(interface));
    } else {
      options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    }
    *group = new Group(
        c10::make_intrusive<c10d::ProcessGroupGloo>(*static_cast<Store*>(store), rank, size, std::move(options)));
  });
}

int lf_gloo_all_reduce(lf_gloo group, lf_tensor tensor, lf_reduction reduction, lf_work* work, lf_error error) {
  return guarded(error, [&] {
    auto tensors = one(tensor);
    c10d::AllreduceOptions options;
    options.reduceOp = reduction == LF_SUM ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
    *work = new Work((*static_cast<Group*>(group))->allreduce(tensors, options));
  });
}

int lf_gloo_broadcast(lf_gloo group, lf_tensor tensor, int root, lf_work* work, lf_error error) {
  return guarded(error, [&] {
    auto tensors = one(tensor);
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *work = new Work((*static_cast<Group*>(group))->broadcast(tensors, options));
  });
}

void lf_gloo_free(lf_gloo group) { delete static_cast<Group*>(group); }

int lf_work_wait(lf_work work, lf_error error) {
  return guarded(error, [&] { (*static_cast<Work*>(work))->wait(); });
}

void lf_work_free(lf_work work) { delete static_cast<Work*>(work); }

}  // extern "C"
