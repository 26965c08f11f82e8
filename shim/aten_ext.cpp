// ATen functions that tch does not bind.
#include "shim.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <string>
#include <vector>

namespace {

std::vector<at::Tensor> list(size_t n, const lf_tensor* tensors) {
  std::vector<at::Tensor> out;
  out.reserve(n);
  for (size_t i = 0; i < n; ++i) out.push_back(*static_cast<at::Tensor*>(tensors[i]));
  return out;
}

template <typename F>
int guarded(lf_error error, F&& body) {
  try {
    c10::NoGradGuard no_grad;
    body();
    return 0;
  } catch (const std::exception& e) {
    static_cast<std::string*>(error)->assign(e.what());
    return -1;
  }
}

}  // namespace

extern "C" {

int lf_fused_adamw(size_t n, const lf_tensor* params, const lf_tensor* grads, const lf_tensor* first,
                   const lf_tensor* second, const lf_tensor* steps, double lr, double beta1, double beta2,
                   double weight_decay, double eps, lf_error error) {
  return guarded(error, [&] {
    auto p = list(n, params), g = list(n, grads), m = list(n, first), v = list(n, second), s = list(n, steps);
    at::_foreach_add_(s, 1);
    at::_fused_adamw_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                      /*grad_scale=*/{}, /*found_inf=*/{});
  });
}

int lf_global_norm(size_t n, const lf_tensor* tensors, lf_tensor* norm, lf_error error) {
  return guarded(error, [&] {
    auto norms = at::_foreach_norm(list(n, tensors), 2);
    *norm = new at::Tensor(at::linalg_vector_norm(at::stack(norms), 2));
  });
}

int lf_scale(size_t n, const lf_tensor* tensors, lf_tensor factor, lf_error error) {
  return guarded(error, [&] { at::_foreach_mul_(list(n, tensors), *static_cast<at::Tensor*>(factor)); });
}

}  // extern "C"
