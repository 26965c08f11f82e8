// C interface between Rust and LibTorch for what the crate `tch` does not bind.
// No exception crosses it: every function returns 0, or -1 with a message in `error`.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {

typedef void* lf_tensor;  // at::Tensor*, as in tch
typedef void* lf_list;    // std::vector<at::Tensor>*
typedef void* lf_error;   // std::string*
typedef void* lf_store;   // c10d::Store
typedef void* lf_gloo;    // c10d::ProcessGroupGloo
typedef void* lf_work;    // c10d::Work
typedef enum { LF_SUM = 0, LF_MAX = 1 } lf_reduction;

// A custom autograd function written in Rust. `state` is owned by the autograd graph and dropped with it.
struct lf_function {
  // Pushes outputs and tensors to save; returns how many of the last outputs carry no gradient, or -1.
  int64_t (*forward)(void* state, const lf_tensor* inputs, size_t n_inputs, lf_list outputs, lf_list saved,
                     lf_error error);
  // `grads` holds null where an output has no gradient; pushes one gradient (or null) per input.
  int64_t (*backward)(void* state, const lf_tensor* saved, size_t n_saved, const lf_tensor* grads, size_t n_grads,
                      lf_list grad_inputs, lf_error error);
  void (*drop)(void* state);
};

void lf_list_push(lf_list list, lf_tensor tensor);
void lf_error_set(lf_error error, const char* text, size_t length);

// An error's text for Rust to read, then to free.
lf_error lf_error_new();
const char* lf_error_text(lf_error error);
void lf_error_free(lf_error error);

// Applies `function`; writes up to `capacity` new tensors (owned by the caller) and their number.
int lf_apply(const lf_function* function, void* state, const lf_tensor* inputs, size_t n_inputs, lf_tensor* outputs,
             size_t capacity, size_t* n_outputs, lf_error error);

// AdamW of one group, in place: all lists have `n` tensors of one device. `steps` are fp32 scalars, one per parameter:
// the number of this step, from 1.
int lf_fused_adamw(size_t n, const lf_tensor* params, const lf_tensor* grads, const lf_tensor* first,
                   const lf_tensor* second, const lf_tensor* steps, double lr, double beta1, double beta2,
                   double weight_decay, double eps, lf_error error);

// Whether LibTorch's own operations give the same bits on every run where they can, at a cost in speed.
void lf_set_deterministic(int on);
int lf_is_deterministic();

// Makes `grad` the gradient of a leaf: backward passes add to it in place.
void lf_set_grad(lf_tensor leaf, lf_tensor grad);

// sum += a b, sum in fp32, a and b in one dtype, accumulated in fp32.
int lf_addmm_fp32(lf_tensor sum, lf_tensor a, lf_tensor b, lf_error error);

// Causal attention of bf16 tensors [b, t, h, e] on CUDA, fewer key-value heads allowed; recorded for the backward pass.
// `window` counts the keys that a query sees, 0 for all.
int lf_flash_attention(lf_tensor q, lf_tensor k, lf_tensor v, double scale, int64_t window, lf_tensor* out,
                       lf_error error);
int lf_cudnn_attention(lf_tensor q, lf_tensor k, lf_tensor v, double scale, lf_tensor* out, lf_error error);

// Calls `mark` with its name when an operation or a node of the backward pass begins, and with null when it ends, in the
// thread that runs it. One listener at a time.
typedef void (*lf_mark)(const char* name);
int lf_profile_start(lf_mark mark, lf_error error);
int lf_profile_stop(lf_error error);

// Where the processes of a run meet: one of them serves, all connect. Returns when all have, or after `timeout_ms`.
int lf_store_new(const char* host, uint16_t port, int serve, size_t processes, int64_t timeout_ms, lf_store* store,
                 lf_error error);
int lf_store_set(lf_store store, const char* key, const uint8_t* value, size_t length, lf_error error);
// Waits until some process has set `key`.
int lf_store_get(lf_store store, const char* key, uint8_t* value, size_t capacity, size_t* length, lf_error error);
void lf_store_free(lf_store store);

// Gloo between `size` processes. `host` names the address to be reached at; null takes the interface in
// GLOO_SOCKET_IFNAME, else that of the machine's name.
int lf_gloo_new(lf_store store, int rank, int size, const char* host, int64_t timeout_ms, lf_gloo* group,
                lf_error error);
// Both begin in the background and keep the tensor, which must be on the CPU and contiguous, until the work is freed.
int lf_gloo_all_reduce(lf_gloo group, lf_tensor tensor, lf_reduction reduction, lf_work* work, lf_error error);
int lf_gloo_broadcast(lf_gloo group, lf_tensor tensor, int root, lf_work* work, lf_error error);
void lf_gloo_free(lf_gloo group);
// Waits for the end; fails where a process has gone.
int lf_work_wait(lf_work work, lf_error error);
void lf_work_free(lf_work work);

}  // extern "C"
