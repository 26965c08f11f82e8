// A torch::autograd::Function that calls back into Rust for both directions.
#include "shim.h"

#include <torch/csrc/autograd/custom_function.h>

#include <memory>
#include <string>
#include <vector>

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct State : torch::CustomClassHolder {
  State(const lf_function& table, void* state) : table(table), state(state) {}
  ~State() override { table.drop(state); }
  lf_function table;
  void* state;
  // Which inputs were given: autograd sees only those, Rust sees all.
  std::vector<bool> present;
};

std::vector<lf_tensor> pointers(at::TensorList tensors) {
  std::vector<lf_tensor> out;
  out.reserve(tensors.size());
  for (const auto& tensor : tensors) out.push_back(tensor.defined() ? (lf_tensor)&tensor : nullptr);
  return out;
}

struct BridgeFunction : torch::autograd::Function<BridgeFunction> {
  // A list argument: autograd looks for variables in a TensorList, not in a vector.
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, c10::intrusive_ptr<State> state) {
    std::vector<lf_tensor> in;
    size_t next = 0;
    for (bool given : state->present) in.push_back(given ? (lf_tensor)&inputs[next++] : nullptr);
    variable_list outputs, saved;
    std::string error;
    int64_t plain = state->table.forward(state->state, in.data(), in.size(), &outputs, &saved, &error);
    if (plain < 0) throw std::runtime_error(error);
    variable_list constant(outputs.end() - plain, outputs.end());
    ctx->mark_non_differentiable(constant);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward(saved);
    ctx->saved_data["state"] = c10::IValue::make_capsule(state);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto state = c10::static_intrusive_pointer_cast<State>(ctx->saved_data["state"].toCapsule());
    auto saved = ctx->get_saved_variables();
    auto saved_in = pointers(saved);
    auto grads_in = pointers(grads);
    variable_list out;
    std::string error;
    int64_t status = state->table.backward(state->state, saved_in.data(), saved_in.size(), grads_in.data(),
                                           grads_in.size(), &out, &error);
    if (status < 0) throw std::runtime_error(error);
    variable_list given;
    for (size_t i = 0; i < out.size(); ++i) {
      if (state->present[i]) given.push_back(out[i]);
    }
    given.emplace_back();  // none for the state argument
    return given;
  }
};

}  // namespace

extern "C" {

void lf_list_push(lf_list list, lf_tensor tensor) {
  static_cast<variable_list*>(list)->push_back(tensor ? *static_cast<at::Tensor*>(tensor) : at::Tensor());
}

void lf_error_set(lf_error error, const char* text, size_t length) {
  static_cast<std::string*>(error)->assign(text, length);
}

lf_error lf_error_new() { return new std::string(); }
const char* lf_error_text(lf_error error) { return static_cast<std::string*>(error)->c_str(); }
void lf_error_free(lf_error error) { delete static_cast<std::string*>(error); }

int lf_apply(const lf_function* function, void* state, const lf_tensor* inputs, size_t n_inputs, lf_tensor* outputs,
             size_t capacity, size_t* n_outputs, lf_error error) {
  auto holder = c10::make_intrusive<State>(*function, state);
  try {
    variable_list in;
    for (size_t i = 0; i < n_inputs; ++i) {
      holder->present.push_back(inputs[i] != nullptr);
      if (inputs[i]) in.push_back(*static_cast<at::Tensor*>(inputs[i]));
    }
    auto out = BridgeFunction::apply(at::TensorList(in), holder);
    if (out.size() > capacity) throw std::runtime_error("a custom function gave more outputs than were expected");
    *n_outputs = out.size();
    for (size_t i = 0; i < out.size(); ++i) outputs[i] = new at::Tensor(std::move(out[i]));
    return 0;
  } catch (const std::exception& e) {
    static_cast<std::string*>(error)->assign(e.what());
    return -1;
  }
}

}  // extern "C"
