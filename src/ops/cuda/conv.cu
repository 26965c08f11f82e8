// Depthwise causal convolution over time, four taps, with a bias and a SiLU: y_t = silu(sum_k w_k x_{t-3+k} + bias),
// zeros before the first step; and backwards. x is [b, t, d] with a stride between steps, y and dy without gaps.
//
// A thread owns N neighbouring channels and walks STRIP steps of one batch row with the last inputs in registers; the
// steps before and after its strip that it needs too, three each, are read by its neighbour at about the same time and
// come from the cache. The backward pass recomputes the sum before the SiLU. Gradients of w and bias sum over time:
// every block adds its eight strips, sum_rows the blocks.

#define TAPS 4
#define STRIP 32
#define LANES 32
#define STRIPS 8

// N neighbouring channels of a step as they lie in memory.
template <class T, int N>
struct Group;

template <int N>
struct Group<bf16, N> {
  u32 word[N / 2];
  __device__ __forceinline__ void read(const bf16* p) {
    if constexpr (N == 4) {
      const uint2 both = *(const uint2*)p;
      word[0] = both.x, word[1] = both.y;
    } else {
      word[0] = *(const u32*)p;
    }
  }
  __device__ __forceinline__ void write(bf16* p) const {
    if constexpr (N == 4) {
      *(uint2*)p = make_uint2(word[0], word[1]);
    } else {
      *(u32*)p = word[0];
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) word[i] = 0;
  }
  __device__ __forceinline__ void get(float (&v)[N]) const {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      v[2 * i] = __uint_as_float(word[i] << 16);
      v[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
  }
  __device__ __forceinline__ void set(const float (&v)[N]) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) word[i] = round_pair(v[2 * i], v[2 * i + 1]);
  }
};

template <int N>
struct alignas(4 * N) Group<float, N> {
  float v[N];
  __device__ __forceinline__ void read(const float* p) { *this = *(const Group*)p; }
  __device__ __forceinline__ void write(float* p) const { *(Group*)p = *this; }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = 0.0f;
  }
  __device__ __forceinline__ void get(float (&to)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = v[i];
  }
  __device__ __forceinline__ void set(const float (&from)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = from[i];
  }
};

// Zeros where `inside` is false and past `count`.
template <bool VECTOR, class T, int N>
__device__ __forceinline__ void read_group(Group<T, N>& group, const T* p, int count, bool inside) {
  if constexpr (VECTOR) {
    group.clear();
    if (inside) group.read(p);
  } else {
    float v[N];
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = inside && i < count ? widen(p[i]) : 0.0f;
    group.set(v);
  }
}

template <bool VECTOR, class T, int N>
__device__ __forceinline__ void write_group(T* p, const float (&v)[N], int count) {
  if constexpr (VECTOR) {
    Group<T, N> group;
    group.set(v);
    group.write(p);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i < count) narrow(p[i], v[i]);
    }
  }
}

// What a thread owns.
template <int N>
struct Strip {
  int channel;
  // Channels left from there; none for threads past the edge.
  int count;
  // Index of its first step among all steps. Steps count from there, offsets within a strip fit 32 bits.
  i64 first;
  // Steps before it in its row, and from it to the row's end.
  int before;
  int left;

  __device__ __forceinline__ Strip(int batch, int time, int channels) {
    channel = (blockIdx.x * LANES + threadIdx.x) * N;
    const int in_row = (time + STRIP - 1) / STRIP;
    const i64 index = (i64)blockIdx.y * STRIPS + threadIdx.y;
    const i64 b = index / in_row;
    before = (int)(index - b * in_row) * STRIP;
    left = time - before;
    first = b * time + before;
    count = b < batch ? channels - channel : 0;
  }
};

template <int N>
struct Filter {
  float w[TAPS][N];
  float bias[N];

  __device__ __forceinline__ Filter(const float* weights, const float* biases, const Strip<N>& strip) {
#pragma unroll
    for (int c = 0; c < N; ++c) {
      const bool mine = c < strip.count;
#pragma unroll
      for (int k = 0; k < TAPS; ++k) w[k][c] = mine ? weights[(i64)(strip.channel + c) * TAPS + k] : 0.0f;
      bias[c] = mine && biases ? biases[strip.channel + c] : 0.0f;
    }
  }
};

// FULL: the strip and the steps around it that it needs lie inside the row, nothing is checked.
template <class T, int N, int STEPS, bool VECTOR, bool FULL>
__device__ __forceinline__ void walk_forward(const Strip<N>& strip, const Filter<N>& filter, const T* __restrict__ x,
                                             T* __restrict__ y, i64 x_stride, int channels) {
  static_assert(STRIP % STEPS == 0, "a full strip is made of whole groups");
  const T* from = x + strip.first * x_stride + strip.channel;
  T* to = y + strip.first * channels + strip.channel;
  const int stride = (int)x_stride;
  const int end = FULL ? STRIP : min(STRIP, strip.left);

  // recent[i] is the input of step t - 3 + i, t the first of the group.
  float recent[TAPS - 1 + STEPS][N];
  Group<T, N> next[STEPS];
#pragma unroll
  for (int i = 0; i < TAPS - 1; ++i) {
    Group<T, N> before;
    read_group<VECTOR>(before, from + (i - (TAPS - 1)) * stride, strip.count, strip.before > 0);
    before.get(recent[i]);
  }
#pragma unroll
  for (int i = 0; i < STEPS; ++i) read_group<VECTOR>(next[i], from + i * stride, strip.count, FULL || i < end);
#pragma unroll 1
  for (int first = 0; first < end; first += STEPS) {
#pragma unroll
    for (int i = 0; i < STEPS; ++i) next[i].get(recent[TAPS - 1 + i]);
    from += STEPS * stride;
    if (first + STEPS < end) {
#pragma unroll
      for (int i = 0; i < STEPS; ++i) {
        read_group<VECTOR>(next[i], from + i * stride, strip.count, FULL || first + STEPS + i < end);
      }
    }
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      float out[N];
#pragma unroll
      for (int c = 0; c < N; ++c) {
        float sum = filter.bias[c];
#pragma unroll
        for (int k = 0; k < TAPS; ++k) sum += filter.w[k][c] * recent[i + k][c];
        out[c] = sum * sigmoid<T>(sum);
      }
      if (FULL || first + i < end) write_group<VECTOR>(to + i * channels, out, strip.count);
    }
    to += STEPS * channels;
#pragma unroll
    for (int i = 0; i < TAPS - 1; ++i) {
#pragma unroll
      for (int c = 0; c < N; ++c) recent[i][c] = recent[STEPS + i][c];
    }
  }
}

template <class T, int N, int STEPS, bool VECTOR>
__device__ __forceinline__ void forward(const T* x, const float* w, const float* bias, T* y, i64 x_stride, int batch,
                                        int time, int channels) {
  const Strip<N> strip(batch, time, channels);
  if (strip.count <= 0) return;
  const Filter<N> filter(w, bias, strip);
  if (VECTOR && strip.left >= STRIP) {
    walk_forward<T, N, STEPS, VECTOR, VECTOR>(strip, filter, x, y, x_stride, channels);
  } else {
    walk_forward<T, N, STEPS, VECTOR, false>(strip, filter, x, y, x_stride, channels);
  }
}

// Gradients of the filter over a thread's strip.
template <int N>
struct Sums {
  float w[TAPS][N];
  float bias[N];

  __device__ __forceinline__ Sums() {
#pragma unroll
    for (int c = 0; c < N; ++c) {
      bias[c] = 0.0f;
#pragma unroll
      for (int k = 0; k < TAPS; ++k) w[k][c] = 0.0f;
    }
  }
  // x is the first of the four inputs of the step.
  __device__ __forceinline__ void add(const float (&g)[N], const float (*x)[N]) {
#pragma unroll
    for (int c = 0; c < N; ++c) {
      bias[c] += g[c];
#pragma unroll
      for (int k = 0; k < TAPS; ++k) w[k][c] += g[c] * x[k][c];
    }
  }
};

// The gradient g of the sum of a step from dy and the four inputs that it read.
template <class T, int N>
__device__ __forceinline__ void through_silu(float (&g)[N], const Group<T, N>& dy, const Filter<N>& filter,
                                             const float (*x)[N]) {
  dy.get(g);
#pragma unroll
  for (int c = 0; c < N; ++c) {
    float sum = filter.bias[c];
#pragma unroll
    for (int k = 0; k < TAPS; ++k) sum += filter.w[k][c] * x[k][c];
    const float s = sigmoid<T>(sum);
    g[c] = g[c] * s * (1.0f + sum * (1.0f - s));
  }
}

// dx_t = sum_k w_k g_{t+3-k}: a thread runs three steps ahead of the step that it writes.
template <class T, int N, int STEPS, bool VECTOR, bool FULL>
__device__ __forceinline__ void walk_backward(const Strip<N>& strip, const Filter<N>& filter, Sums<N>& sums,
                                              const T* __restrict__ dy, const T* __restrict__ x, T* __restrict__ dx,
                                              i64 x_stride, i64 dx_stride, int channels) {
  constexpr int AHEAD = TAPS - 1;
  const T* from_x = x + strip.first * x_stride + strip.channel;
  const T* from_dy = dy + strip.first * channels + strip.channel;
  T* to = dx + strip.first * dx_stride + strip.channel;
  const int stride = (int)x_stride;
  const int to_stride = (int)dx_stride;
  const int end = FULL ? STRIP : min(STRIP, strip.left);
  const int reach = FULL ? STRIP + AHEAD : min(STRIP + AHEAD, strip.left);

  // xs[i] is the input of step t - 3 + i and gs[i] the gradient of the same, t the first of a group.
  float xs[AHEAD + STEPS][N], gs[AHEAD + STEPS][N];
  Group<T, N> next_x[STEPS], next_dy[STEPS];
  {
    Group<T, N> early_x[2 * AHEAD], early_dy[AHEAD];
#pragma unroll
    for (int i = 0; i < 2 * AHEAD; ++i) {
      const int t = i - AHEAD;
      read_group<VECTOR>(early_x[i], from_x + t * stride, strip.count, t < 0 ? strip.before > 0 : FULL || t < reach);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; ++i)
      read_group<VECTOR>(early_dy[i], from_dy + i * channels, strip.count, FULL || i < reach);
    from_x += AHEAD * stride;
    from_dy += AHEAD * channels;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      read_group<VECTOR>(next_x[i], from_x + i * stride, strip.count, FULL || AHEAD + i < reach);
      read_group<VECTOR>(next_dy[i], from_dy + i * channels, strip.count, FULL || AHEAD + i < reach);
    }
    float early[2 * AHEAD][N];
#pragma unroll
    for (int i = 0; i < 2 * AHEAD; ++i) early_x[i].get(early[i]);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      through_silu<T, N>(gs[i], early_dy[i], filter, early + i);
      sums.add(gs[i], early + i);
#pragma unroll
      for (int c = 0; c < N; ++c) xs[i][c] = early[AHEAD + i][c];
    }
  }
#pragma unroll 1
  for (int written = 0; written < end; written += STEPS) {
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      next_x[i].get(xs[AHEAD + i]);
      through_silu<T, N>(gs[AHEAD + i], next_dy[i], filter, xs + i);
    }
    from_x += STEPS * stride;
    from_dy += STEPS * channels;
    if (written + STEPS < end) {
#pragma unroll
      for (int i = 0; i < STEPS; ++i) {
        const bool inside = FULL || written + AHEAD + STEPS + i < reach;
        read_group<VECTOR>(next_x[i], from_x + i * stride, strip.count, inside);
        read_group<VECTOR>(next_dy[i], from_dy + i * channels, strip.count, inside);
      }
    }
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      float out[N];
#pragma unroll
      for (int c = 0; c < N; ++c) {
        out[c] = 0.0f;
#pragma unroll
        for (int k = 0; k < TAPS; ++k) out[c] += filter.w[k][c] * gs[i + AHEAD - k][c];
      }
      if (FULL || written + i < end) write_group<VECTOR>(to + i * to_stride, out, strip.count);
      // Steps past this strip belong to the next one's sums.
      if (written + i + AHEAD < end) sums.add(gs[AHEAD + i], xs + i);
    }
    to += STEPS * to_stride;
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
#pragma unroll
      for (int c = 0; c < N; ++c) {
        xs[i][c] = xs[STEPS + i][c];
        gs[i][c] = gs[STEPS + i][c];
      }
    }
  }
}

template <class T, int N, int STEPS, bool VECTOR>
__device__ __forceinline__ void backward(const T* dy, const T* x, const float* w, const float* bias, T* dx, float* part,
                                         float* gathered, i64 x_stride, i64 dx_stride, int batch, int time,
                                         int channels) {
  const Strip<N> strip(batch, time, channels);
  Sums<N> sums;
  if (strip.count > 0) {
    const Filter<N> filter(w, bias, strip);
    if (VECTOR && strip.left >= STRIP + TAPS - 1) {
      walk_backward<T, N, STEPS, VECTOR, VECTOR>(strip, filter, sums, dy, x, dx, x_stride, dx_stride, channels);
    } else {
      walk_backward<T, N, STEPS, VECTOR, false>(strip, filter, sums, dy, x, dx, x_stride, dx_stride, channels);
    }
  }
  constexpr int VALUES = (TAPS + 1) * N * LANES;
  float* mine = gathered + threadIdx.y * VALUES + threadIdx.x;
#pragma unroll
  for (int c = 0; c < N; ++c) {
#pragma unroll
    for (int k = 0; k < TAPS; ++k) mine[(k * N + c) * LANES] = sums.w[k][c];
    mine[(TAPS * N + c) * LANES] = sums.bias[c];
  }
  __syncthreads();
  // Partial row: [d, 4] of w, then [d] of the bias.
  float* to = part + (i64)blockIdx.y * (TAPS + 1) * channels;
  for (int i = threadIdx.y * LANES + threadIdx.x; i < VALUES; i += LANES * STRIPS) {
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < STRIPS; ++s) sum += gathered[s * VALUES + i];
    const int k = i / (N * LANES);
    const int channel = (blockIdx.x * LANES + i % LANES) * N + i / LANES % N;
    if (channel < channels) to[k < TAPS ? (i64)channel * TAPS + k : (i64)TAPS * channels + channel] = sum;
  }
}

// Channels of a thread, steps loaded together, one such group ahead of the computation, and blocks that a
// multiprocessor is to hold: as timed on an H200.
#define CHANNELS 2
#define FORWARD_STEPS 8
#define FORWARD_BLOCKS 4
#define BACKWARD_STEPS 4
#define BACKWARD_BLOCKS 3

__device__ __forceinline__ bool whole(i64 extent) { return extent % CHANNELS == 0; }

// grid (ceil(channels / 64), ceil(batch * ceil(time / 32) / 8)), block (32, 8); bias may be null.
extern "C" __global__ void __launch_bounds__(256, FORWARD_BLOCKS)
    conv_forward(const VALUE* x, const float* w, const float* bias, VALUE* y, i64 x_stride, int batch, int time,
                 int channels) {
  if (whole(channels) && whole(x_stride) && aligned(x) && aligned(y)) {
    forward<VALUE, CHANNELS, FORWARD_STEPS, true>(x, w, bias, y, x_stride, batch, time, channels);
  } else {
    forward<VALUE, CHANNELS, FORWARD_STEPS, false>(x, w, bias, y, x_stride, batch, time, channels);
  }
}

// part: [grid.y, 5 channels].
extern "C" __global__ void __launch_bounds__(256, BACKWARD_BLOCKS)
    conv_backward(const VALUE* dy, const VALUE* x, const float* w, const float* bias, VALUE* dx, float* part,
                  i64 x_stride, i64 dx_stride, int batch, int time, int channels) {
  constexpr int N = CHANNELS, STEPS = BACKWARD_STEPS;
  __shared__ float gathered[STRIPS * (TAPS + 1) * N * LANES];
  if (whole(channels) && whole(x_stride) && whole(dx_stride) && aligned(dy) && aligned(x) && aligned(dx)) {
    backward<VALUE, N, STEPS, true>(dy, x, w, bias, dx, part, gathered, x_stride, dx_stride, batch, time, channels);
  } else {
    backward<VALUE, N, STEPS, false>(dy, x, w, bias, dx, part, gathered, x_stride, dx_stride, batch, time, channels);
  }
}
