// LibTorch's announcements of what it runs, passed on to Rust.
#include "guard.h"
#include "shim.h"

#include <ATen/record_function.h>

#include <memory>
#include <string>

namespace {

lf_mark passed_to;
at::CallbackHandle handle;

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  passed_to(function.name());
  return nullptr;
}

void end(const at::RecordFunction&, at::ObserverContext*) { passed_to(nullptr); }

}  // namespace

extern "C" {

int lf_profile_start(lf_mark mark, lf_error error) {
  return guarded(error, [&] {
    passed_to = mark;
    auto callback = at::RecordFunctionCallback(begin, end);
    callback.scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION});
    handle = at::addGlobalCallback(callback);
  });
}

int lf_profile_stop(lf_error error) {
  return guarded(error, [&] { at::removeCallback(handle); });
}

}  // extern "C"
