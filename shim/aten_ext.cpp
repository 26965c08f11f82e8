// ATen functions that tch does not bind.
#include "shim.h"
#include "guard.h"

#include <ATen/Context.h>
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

at::Tensor& tensor(lf_tensor pointer) { return *static_cast<at::Tensor*>(pointer); }

}  // namespace

extern "C" {

int lf_fused_adamw(size_t n, const lf_tensor* params, const lf_tensor* grads, const lf_tensor* first,
                   const lf_tensor* second, const lf_tensor* steps, double lr, double beta1, double beta2,
                   double weight_decay, double eps, lf_error error) {
  return guarded(error, [&] {
    c10::NoGradGuard no_grad;
    auto p = list(n, params), g = list(n, grads), m = list(n, first), v = list(n, second), s = list(n, steps);
    at::_fused_adamw_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                      /*grad_scale=*/{}, /*found_inf=*/{});
  });
}

void lf_set_deterministic(int on) { at::globalContext().setDeterministicAlgorithms(on != 0, /*warn_only=*/false); }

int lf_is_deterministic() { return at::globalContext().deterministicAlgorithms() ? 1 : 0; }

void lf_set_grad(lf_tensor leaf, lf_tensor grad) { tensor(leaf).mutable_grad() = tensor(grad); }

int lf_addmm_fp32(lf_tensor sum, lf_tensor a, lf_tensor b, lf_error error) {
  return guarded(error, [&] {
    c10::NoGradGuard no_grad;
    auto& out = tensor(sum);
    if (tensor(a).scalar_type() == at::kFloat) {
      at::addmm_out(out, out, tensor(a), tensor(b));
    } else {
      at::addmm_out(out, out, tensor(a), tensor(b), at::kFloat);
    }
  });
}

int lf_flash_attention(lf_tensor q, lf_tensor k, lf_tensor v, double scale, int64_t window, lf_tensor* out,
                       lf_error error) {
  return guarded(error, [&] {
    std::optional<c10::SymInt> left, right;
    if (window > 0) left = window - 1, right = 0;
    auto result = at::_flash_attention_forward_symint(tensor(q), tensor(k), tensor(v), {}, {}, tensor(q).sym_size(1),
                                                      tensor(k).sym_size(1), /*dropout_p=*/0.0, /*is_causal=*/true,
                                                      /*return_debug_mask=*/false, scale, left, right);
    *out = new at::Tensor(std::get<0>(result));
  });
}

int lf_cudnn_attention(lf_tensor q, lf_tensor k, lf_tensor v, double scale, lf_tensor* out, lf_error error) {
  return guarded(error, [&] {
    auto heads_first = [](lf_tensor t) { return tensor(t).transpose(1, 2); };
    auto result = at::_scaled_dot_product_cudnn_attention(heads_first(q), heads_first(k), heads_first(v), {},
                                                          /*compute_log_sumexp=*/true, /*dropout_p=*/0.0,
                                                          /*is_causal=*/true, /*return_debug_mask=*/false, scale);
    *out = new at::Tensor(std::get<0>(result).transpose(1, 2));
  });
}

}  // extern "C"
