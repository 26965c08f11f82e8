// The residual stream and its norm: x' = x + r h, n = x' / rms(x') * gain * s, and backwards. The stream is fp32, the
// branch h and the normed row n are T. A row belongs to the blockDim.x threads of one threadIdx.y, a warp for narrow
// models, and stays in their registers: everything is read and written once.
//
// Gradients of the gain sum over rows: every block adds its own rows, sum_rows the blocks.
//
// CENTERED makes a layer norm of it: the row's mean is taken off first, a bias is added before s.

#define EPSILON 1e-5f
// Packs of a row that one thread holds. Backwards it also carries the sums of its columns from row to row.
#define FORWARD_HELD 4
#define BACKWARD_HELD 2

// Sum over the threads of this row; all threads of the block take part.
__device__ __forceinline__ float row_sum(float x) {
  x = warp_sum(x);
  if (blockDim.x == 32) return x;
  __shared__ float sums[32];
  const int warp = (threadIdx.y * blockDim.x + threadIdx.x) / 32;
  const int per_row = blockDim.x / 32;
  // Not before all have read the sums of the row before.
  __syncthreads();
  if (threadIdx.x % 32 == 0) sums[warp] = x;
  __syncthreads();
  float total = 0.0f;
  for (int i = 0; i < per_row; ++i) total += sums[threadIdx.y * per_row + i];
  return total;
}

template <class T, bool CENTERED, bool VECTOR>
__device__ __forceinline__ void norm_forward(const float* x, const T* h, const float* gain, const float* bias,
                                             float* x_out, T* n, float* mean, float* rstd, float branch_scale,
                                             float out_scale, i64 rows, int width) {
  constexpr int HELD = FORWARD_HELD;
  const i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
  // Threads past the last row stay for the barriers.
  const int packs = row < rows ? (width + PACK - 1) / PACK : 0;
  const i64 at = row * width;
  let_next_start();
  await_previous();
  Pack<float> stream[HELD];
  Pack<T> added[HELD];
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int k = threadIdx.x + i * blockDim.x;
    stream[i].clear();
    added[i].clear();
    if (k < packs) {
      read_pack<VECTOR>(stream[i], x + at + k * PACK, width - k * PACK);
      if (h) read_pack<VECTOR>(added[i], h + at + k * PACK, width - k * PACK);
    }
  }
  float squares = 0.0f, total = 0.0f;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int k = threadIdx.x + i * blockDim.x;
    float v[PACK], b[PACK];
    stream[i].get(v);
    if (h) {
      added[i].get(b);
#pragma unroll
      for (int e = 0; e < PACK; ++e) v[e] += rounded<T>(branch_scale * b[e]);
      stream[i].set(v);
      if (k < packs) write_pack<VECTOR>(x_out + at + k * PACK, v, width - k * PACK);
    }
#pragma unroll
    for (int e = 0; e < PACK; ++e) {
      squares += v[e] * v[e];
      total += v[e];
    }
  }
  if constexpr (CENTERED) {
    // Off the mean first, then the squares: x^2 - mean^2 loses what matters when the mean is large.
    const float middle = row_sum(total) / width;
    if (row < rows && threadIdx.x == 0 && mean) mean[row] = middle;
    squares = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      const int left = (packs > 0 ? width : 0) - (threadIdx.x + i * blockDim.x) * PACK;
      float v[PACK];
      stream[i].get(v);
#pragma unroll
      for (int e = 0; e < PACK; ++e) {
        v[e] = e < left ? v[e] - middle : 0.0f;
        squares += v[e] * v[e];
      }
      stream[i].set(v);
    }
  }
  const float scale = rsqrtf(row_sum(squares) / width + EPSILON);
  if (row < rows && threadIdx.x == 0 && rstd) rstd[row] = scale;
  const float out = scale * out_scale;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int k = threadIdx.x + i * blockDim.x;
    if (k < packs) {
      float v[PACK], g[PACK];
      stream[i].get(v);
      read_values<VECTOR>(g, gain + k * PACK, width - k * PACK);
#pragma unroll
      for (int e = 0; e < PACK; ++e) v[e] *= out * g[e];
      if constexpr (CENTERED) {
        read_values<VECTOR>(g, bias + k * PACK, width - k * PACK);
#pragma unroll
        for (int e = 0; e < PACK; ++e) v[e] += out_scale * g[e];
      }
      write_pack<VECTOR>(n + at + k * PACK, v, width - k * PACK);
    }
  }
}

// One partial row of a block, whatever its shape, from what its threads have summed.
template <bool VECTOR, int HELD>
__device__ __forceinline__ void write_part(float* to, const float (&sums)[HELD][PACK], float* gathered, int width) {
  if (blockDim.y > 1) {
    const int held = blockDim.x * HELD * PACK;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      float* slot = gathered + threadIdx.y * held + (threadIdx.x + i * blockDim.x) * PACK;
#pragma unroll
      for (int e = 0; e < PACK; ++e) slot[e] = sums[i][e];
    }
    __syncthreads();
    for (int c = threadIdx.y * blockDim.x + threadIdx.x; c < width; c += blockDim.x * blockDim.y) {
      float sum = 0.0f;
      for (int y = 0; y < blockDim.y; ++y) sum += gathered[y * held + c];
      to[c] = sum;
    }
    __syncthreads();
    return;
  }
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int k = threadIdx.x + i * blockDim.x;
    if (k * PACK < width) write_pack<VECTOR>(to + k * PACK, sums[i], width - k * PACK);
  }
}

// What the backward pass reads of a row.
template <class T, int HELD>
struct Row {
  Pack<float> stream[HELD], arriving[HELD];
  Pack<T> normed[HELD];
  float mean, scale;

  template <bool CENTERED, bool VECTOR>
  __device__ __forceinline__ void read(const T* dn, const float* dx_in, const float* x, const float* means,
                                       const float* rstd, i64 row, i64 rows, int width) {
    const bool mine = row < rows;
    const i64 at = row * width;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      const int k = (threadIdx.x + i * blockDim.x) * PACK;
      stream[i].clear();
      normed[i].clear();
      arriving[i].clear();
      if (mine && k < width) {
        read_pack<VECTOR>(normed[i], dn + at + k, width - k);
        read_pack<VECTOR>(stream[i], x + at + k, width - k);
        if (dx_in) read_pack<VECTOR>(arriving[i], dx_in + at + k, width - k);
      }
    }
    scale = mine ? rstd[row] : 0.0f;
    mean = CENTERED && mine ? means[row] : 0.0f;
  }
};

// With x^ = x rstd and u = dn * gain * s: dx = dx_in + rstd (u - x^ mean(u x^)), dgain = sum over rows of dn * s * x^.
// Centered, x^ = (x - mean) rstd and mean(u) goes off u as well, dbias = sum over rows of dn * s.
template <class T, bool CENTERED, bool VECTOR>
__device__ __forceinline__ void norm_backward(const T* dn, const float* dx_in, const float* x, const float* means,
                                              const float* rstd, const float* gain, float* dx_out, T* dh, float* part,
                                              float* gathered, float branch_scale, float out_scale, i64 rows,
                                              int width) {
  constexpr int HELD = BACKWARD_HELD;
  float g[HELD][PACK], dgain[HELD][PACK], dbias[HELD][PACK];
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int k = (threadIdx.x + i * blockDim.x) * PACK;
#pragma unroll
    for (int e = 0; e < PACK; ++e) g[i][e] = dgain[i][e] = dbias[i][e] = 0.0f;
    if (k < width) read_values<VECTOR>(g[i], gain + k, width - k);
  }
  const i64 stride = (i64)gridDim.x * blockDim.y;
  for (i64 first = (i64)blockIdx.x * blockDim.y; first < rows; first += stride) {
    const i64 row = first + threadIdx.y;
    Row<T, HELD> now;
    now.template read<CENTERED, VECTOR>(dn, dx_in, x, means, rstd, row, rows, width);
    float v[HELD][PACK], out[HELD][PACK];
    float product = 0.0f, total = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      float d[PACK];
      now.normed[i].get(d);
      now.stream[i].get(v[i]);
      now.arriving[i].get(out[i]);
#pragma unroll
      for (int e = 0; e < PACK; ++e) {
        if constexpr (CENTERED) {
          v[i][e] -= now.mean;
          dbias[i][e] += d[e] * out_scale;
        }
        d[e] *= now.scale * out_scale;
        dgain[i][e] += d[e] * v[i][e];
        d[e] *= g[i][e];
        product += d[e] * v[i][e];
        total += d[e];
        out[i][e] += d[e];
      }
    }
    const float along = row_sum(product) * (now.scale * now.scale) / width;
    const float constant = CENTERED ? row_sum(total) / width : 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      const int k = (threadIdx.x + i * blockDim.x) * PACK;
      if (row < rows && k < width) {
#pragma unroll
        for (int e = 0; e < PACK; ++e) out[i][e] -= v[i][e] * along + constant;
        write_pack<VECTOR>(dx_out + row * width + k, out[i], width - k);
        if (dh) {
#pragma unroll
          for (int e = 0; e < PACK; ++e) out[i][e] *= branch_scale;
          write_pack<VECTOR>(dh + row * width + k, out[i], width - k);
        }
      }
    }
  }
  float* to = part + (i64)blockIdx.x * (CENTERED ? 2 : 1) * width;
  write_part<VECTOR>(to, dgain, gathered, width);
  if constexpr (CENTERED) write_part<VECTOR>(to + width, dbias, gathered, width);
}

// grid ceil(rows / blockDim.y), block (threads of a row, rows); h, rstd and mean may be null, x_out may be x.
// Backwards, any number of blocks; dx_in and dh may be null, dx_out may be dx_in. part: [grid, width], of a layer norm
// [grid, 2, width], gain then bias. An RMS norm has neither bias nor mean.
#define FORWARD(CENTERED, NAME)                                                                                       \
  extern "C" __global__ void __launch_bounds__(256, 3)                                                                \
      NAME(const float* x, const VALUE* h, const float* gain, const float* bias, float* x_out, VALUE* n, float* mean, \
           float* rstd, float branch_scale, float out_scale, i64 rows, int width) {                                   \
    if (packs_whole(width) && aligned(x) && aligned(h) && aligned(gain) && aligned(bias) && aligned(x_out) &&         \
        aligned(n)) {                                                                                                 \
      norm_forward<VALUE, CENTERED, true>(x, h, gain, bias, x_out, n, mean, rstd, branch_scale, out_scale, rows,      \
                                          width);                                                                     \
    } else {                                                                                                          \
      norm_forward<VALUE, CENTERED, false>(x, h, gain, bias, x_out, n, mean, rstd, branch_scale, out_scale, rows,     \
                                           width);                                                                    \
    }                                                                                                                 \
  }
#define BACKWARD(CENTERED, NAME)                                                                                      \
  extern "C" __global__ void __launch_bounds__(512) NAME(                                                             \
      const VALUE* dn, const float* dx_in, const float* x, const float* mean, const float* rstd, const float* gain,   \
      float* dx_out, VALUE* dh, float* part, float branch_scale, float out_scale, i64 rows, int width) {              \
    __shared__ float gathered[128 * BACKWARD_HELD * PACK];                                                            \
    if (packs_whole(width) && aligned(dn) && aligned(dx_in) && aligned(x) && aligned(gain) && aligned(dx_out) &&      \
        aligned(dh) && aligned(part)) {                                                                               \
      norm_backward<VALUE, CENTERED, true>(dn, dx_in, x, mean, rstd, gain, dx_out, dh, part, gathered, branch_scale,  \
                                           out_scale, rows, width);                                                   \
    } else {                                                                                                          \
      norm_backward<VALUE, CENTERED, false>(dn, dx_in, x, mean, rstd, gain, dx_out, dh, part, gathered, branch_scale, \
                                            out_scale, rows, width);                                                  \
    }                                                                                                                 \
  }

FORWARD(false, add_rmsnorm_forward)
BACKWARD(false, rmsnorm_backward)
FORWARD(true, add_layernorm_forward)
BACKWARD(true, layernorm_backward)
