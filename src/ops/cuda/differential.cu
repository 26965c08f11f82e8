// Differential attention after its four attentions: d = [a11 | a12] - lambda [a21 | a22], heads = rmsnorm(d) * gain *
// c, and backwards. A pair of heads of one row, 2 E values, belongs to a group of lanes of a warp, as few as hold it in
// packs. The pair's two heads lie side by side in the result.
//
// Gradients of lambda and the gain sum over rows and pairs: every block adds its own, sum_rows the blocks.

#define EPSILON 1e-5f
#define THREADS 128

// Lanes of a pair: its packs and no more, up to a warp.
__device__ __forceinline__ int group_lanes(int head_dim) { return head_dim > 64 ? 32 : head_dim > 32 ? 16 : 8; }

__device__ __forceinline__ float group_sum(float x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
  return x;
}

// Two at once: neither waits for the other.
__device__ __forceinline__ void group_sums(float& x, float& y, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(ALL, x, offset);
    y += __shfl_xor_sync(ALL, y, offset);
  }
}

// Eight values from `at` of two heads taken as one; packs straddle heads only where they are read value by value.
template <bool VECTOR, class T>
__device__ __forceinline__ void read_pair(Pack<T>& pack, const T* first, const T* second, int at, int head_dim) {
  if constexpr (VECTOR) {
    pack.read(at < head_dim ? first + at : second + (at - head_dim));
  } else {
    float v[PACK];
#pragma unroll
    for (int e = 0; e < PACK; ++e) {
      const int k = at + e;
      v[e] = k < head_dim ? widen(first[k]) : k < 2 * head_dim ? widen(second[k - head_dim]) : 0.0f;
    }
    pack.set(v);
  }
}

template <bool VECTOR, class T>
__device__ __forceinline__ void write_pair(T* first, T* second, const float (&v)[PACK], int at, int head_dim) {
  if constexpr (VECTOR) {
    Pack<T> pack;
    pack.set(v);
    pack.write(at < head_dim ? first + at : second + (at - head_dim));
  } else {
#pragma unroll
    for (int e = 0; e < PACK; ++e) {
      const int k = at + e;
      if (k < head_dim) {
        narrow(first[k], v[e]);
      } else if (k < 2 * head_dim) {
        narrow(second[k - head_dim], v[e]);
      }
    }
  }
}

template <class T>
struct Four {
  T* a11;
  T* a12;
  T* a21;
  T* a22;
  i64 row_stride, head_stride;

  __device__ __forceinline__ bool vector() const {
    return packs_whole(row_stride) && packs_whole(head_stride) && aligned(a11) && aligned(a12) && aligned(a21) &&
           aligned(a22);
  }
};

template <class T, int HELD, bool VECTOR>
__device__ __forceinline__ void forward(const Four<const T>& in, float lambda, const float* gain, T* out, i64 rows,
                                        int pairs, int head_dim, float c) {
  const int lanes = group_lanes(head_dim);
  const int lane = threadIdx.x % lanes;
  const int width = 2 * head_dim;
  const i64 item = (i64)blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
  // Lanes past the last pair stay for the sums.
  const bool mine = item < rows * pairs;
  const i64 row = divide(item, (u32)pairs);
  const i64 from = row * in.row_stride + (item - row * pairs) * in.head_stride;
  Pack<T> plus[HELD], minus[HELD];
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int at = (lane + i * lanes) * PACK;
    plus[i].clear();
    minus[i].clear();
    if (mine && at < width) {
      read_pair<VECTOR>(plus[i], in.a11 + from, in.a12 + from, at, head_dim);
      read_pair<VECTOR>(minus[i], in.a21 + from, in.a22 + from, at, head_dim);
    }
  }
  float d[HELD][PACK];
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    float second[PACK];
    plus[i].get(d[i]);
    minus[i].get(second);
#pragma unroll
    for (int e = 0; e < PACK; ++e) {
      d[i][e] -= lambda * second[e];
      squares += d[i][e] * d[i][e];
    }
  }
  const float scale = c * rsqrtf(group_sum(squares, lanes) / width + EPSILON);
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int at = (lane + i * lanes) * PACK;
    if (mine && at < width) {
      float g[PACK];
      read_values<VECTOR>(g, gain + at, width - at);
#pragma unroll
      for (int e = 0; e < PACK; ++e) d[i][e] *= scale * g[e];
      write_pack<VECTOR>(out + item * width + at, d[i], width - at);
    }
  }
}

// With d^ = d rstd and u = dout * gain * c: dd = rstd (u - d^ mean(u d^)), of the first two attentions; that of the
// others is -lambda dd.
template <class T, int HELD, bool VECTOR>
__device__ __forceinline__ void backward(const T* dout, const Four<const T>& in, float lambda, const float* gain,
                                         const Four<T>& grads, float* part, float* gathered, i64 rows, int pairs,
                                         int head_dim, float c) {
  const int lanes = group_lanes(head_dim);
  const int lane = threadIdx.x % lanes;
  const int width = 2 * head_dim;
  const int groups = THREADS / lanes;
  const i64 items = rows * pairs;
  float dgain[HELD][PACK];
  float dlambda = 0.0f;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
#pragma unroll
    for (int e = 0; e < PACK; ++e) dgain[i][e] = 0.0f;
  }
  for (i64 first = (i64)blockIdx.x * groups; first < items; first += (i64)gridDim.x * groups) {
    const i64 item = first + threadIdx.x / lanes;
    const bool mine = item < items;
    const i64 row = divide(item, (u32)pairs);
    const i64 head = item - row * pairs;
    const i64 from = row * in.row_stride + head * in.head_stride;
    const i64 to = row * grads.row_stride + head * grads.head_stride;
    Pack<T> plus[HELD], minus[HELD], arriving[HELD];
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      const int at = (lane + i * lanes) * PACK;
      plus[i].clear();
      minus[i].clear();
      arriving[i].clear();
      if (mine && at < width) {
        read_pair<VECTOR>(plus[i], in.a11 + from, in.a12 + from, at, head_dim);
        read_pair<VECTOR>(minus[i], in.a21 + from, in.a22 + from, at, head_dim);
        read_pack<VECTOR>(arriving[i], dout + item * width + at, width - at);
      }
    }
    float d[HELD][PACK], u[HELD][PACK];
    float squares = 0.0f, product = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      const int at = (lane + i * lanes) * PACK;
      float second[PACK];
      plus[i].get(d[i]);
      minus[i].get(second);
      arriving[i].get(u[i]);
#pragma unroll
      for (int e = 0; e < PACK; ++e) {
        d[i][e] -= lambda * second[e];
        squares += d[i][e] * d[i][e];
      }
      if (at < width) {
        float g[PACK];
        read_values<VECTOR>(g, gain + at, width - at);
#pragma unroll
        for (int e = 0; e < PACK; ++e) product += u[i][e] * g[e] * d[i][e];
      }
    }
    group_sums(squares, product, lanes);
    const float scale = rsqrtf(squares / width + EPSILON);
    const float mean = product * (c * scale * scale * scale) / width;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      const int at = (lane + i * lanes) * PACK;
      if (mine && at < width) {
        float g[PACK], second[PACK];
        minus[i].get(second);
        read_values<VECTOR>(g, gain + at, width - at);
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
          const float scaled = u[i][e] * (c * scale);
          dgain[i][e] += scaled * d[i][e];
          d[i][e] = scaled * g[e] - d[i][e] * mean;
          dlambda -= d[i][e] * second[e];
        }
        write_pair<VECTOR>(grads.a11 + to, grads.a12 + to, d[i], at, head_dim);
#pragma unroll
        for (int e = 0; e < PACK; ++e) d[i][e] *= -lambda;
        write_pair<VECTOR>(grads.a21 + to, grads.a22 + to, d[i], at, head_dim);
      }
    }
  }
  // Partial row: [2 E] of the gain, then lambda.
  part += (i64)blockIdx.x * (width + 1);
  const int held = lanes * HELD * PACK;
  float* slot = gathered + threadIdx.x / lanes * held;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
#pragma unroll
    for (int e = 0; e < PACK; ++e) slot[(lane + i * lanes) * PACK + e] = dgain[i][e];
  }
  __syncthreads();
  for (int k = threadIdx.x; k < width; k += THREADS) {
    float sum = 0.0f;
    for (int group = 0; group < groups; ++group) sum += gathered[group * held + k];
    part[k] = sum;
  }
  __syncthreads();
  dlambda = warp_sum(dlambda);
  if (threadIdx.x % 32 == 0) gathered[threadIdx.x / 32] = dlambda;
  __syncthreads();
  if (threadIdx.x == 0) part[width] = (gathered[0] + gathered[1]) + (gathered[2] + gathered[3]);
}

// Packs of a pair that one lane holds.
#define MOST_HELD 2

// aij and gradients: [rows, pairs, head_dim] with strides; out: [rows, 2 pairs, head_dim]; head_dim <= 256.
// grid ceil(rows * pairs / (128 / lanes of a pair)), block 128.
extern "C" __global__ void __launch_bounds__(THREADS)
    da_forward(const VALUE* a11, const VALUE* a12, const VALUE* a21, const VALUE* a22, const float* lambda,
               const float* gain, VALUE* out, i64 row_stride, i64 head_stride, i64 rows, int pairs, int head_dim,
               float c) {
  const Four<const VALUE> in = {a11, a12, a21, a22, row_stride, head_stride};
  if (packs_whole(head_dim) && in.vector() && aligned(gain) && aligned(out) && head_dim <= 128) {
    forward<VALUE, 1, true>(in, *lambda, gain, out, rows, pairs, head_dim, c);
  } else {
    forward<VALUE, MOST_HELD, false>(in, *lambda, gain, out, rows, pairs, head_dim, c);
  }
}

// Any grid; part: [grid, 2 head_dim + 1].
extern "C" __global__ void __launch_bounds__(THREADS, 6)
    da_backward(const VALUE* dout, const VALUE* a11, const VALUE* a12, const VALUE* a21, const VALUE* a22,
                const float* lambda, const float* gain, VALUE* da11, VALUE* da12, VALUE* da21, VALUE* da22, float* part,
                i64 row_stride, i64 head_stride, i64 d_row_stride, i64 d_head_stride, i64 rows, int pairs, int head_dim,
                float c) {
  __shared__ float gathered[THREADS * MOST_HELD * PACK];
  const Four<const VALUE> in = {a11, a12, a21, a22, row_stride, head_stride};
  const Four<VALUE> grads = {da11, da12, da21, da22, d_row_stride, d_head_stride};
  if (packs_whole(head_dim) && in.vector() && grads.vector() && aligned(dout) && aligned(gain) && head_dim <= 128) {
    backward<VALUE, 1, true>(dout, in, *lambda, gain, grads, part, gathered, rows, pairs, head_dim, c);
  } else {
    backward<VALUE, MOST_HELD, false>(dout, in, *lambda, gain, grads, part, gathered, rows, pairs, head_dim, c);
  }
}
