// The selective scan on a GPU. Layout [b, t, d], channels contiguous: a thread owns one channel of one row and keeps its
// 16 states in registers; neighbouring threads read neighbouring channels, and all of them the same B_t and C_t.
// States are saved every CHUNK steps; the backward pass recomputes those between.
//
// Gradients of B and C sum over channels: each warp writes its own sum, which are added afterwards in a fixed order, so
// that every run gives the same result.

#define STATES 16
#define CHUNK 16


__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

// grid (blocks of channels, rows); gate, skip and bias may be null.
// saved: [b, chunks, n, d]; last: [b, d, n].
extern "C" __global__ void scan_forward(const float* x, const float* delta, const float* a, const float* b,
                                        const float* c, const float* skip, const float* gate, const float* bias,
                                        float* y, float* last, float* saved, int use_softplus, int time,
                                        int channels) {
  const int d = blockIdx.x * blockDim.x + threadIdx.x;
  if (d >= channels) return;
  const long long row = blockIdx.y;
  const int chunks = (time + CHUNK - 1) / CHUNK;
  float h[STATES], rate[STATES];
#pragma unroll
  for (int n = 0; n < STATES; ++n) {
    h[n] = 0.0f;
    rate[n] = a[(long long)d * STATES + n];
  }
  const float shift = bias ? bias[d] : 0.0f;
  const float through = skip ? skip[d] : 0.0f;
  for (int t = 0; t < time; ++t) {
    if (t % CHUNK == 0) {
      float* to = saved + ((row * chunks + t / CHUNK) * STATES) * channels + d;
#pragma unroll
      for (int n = 0; n < STATES; ++n) to[(long long)n * channels] = h[n];
    }
    const long long at = (row * time + t) * channels + d;
    const float* bt = b + (row * time + t) * STATES;
    const float* ct = c + (row * time + t) * STATES;
    float step = delta[at] + shift;
    if (use_softplus) step = softplus(step);
    const float drive = step * x[at];
    float out = through * x[at];
#pragma unroll
    for (int n = 0; n < STATES; ++n) {
      h[n] = expf(step * rate[n]) * h[n] + drive * bt[n];
      out += h[n] * ct[n];
    }
    if (gate) {
      const float z = gate[at];
      out *= z * sigmoid(z);
    }
    y[at] = out;
  }
#pragma unroll
  for (int n = 0; n < STATES; ++n) last[(row * channels + d) * STATES + n] = h[n];
}

// As above, from the gradient dy. da: [b, d, n]; dskip, dbias: [b, d]; dbc: [b, t, warps, 2 n], warps over channels.
extern "C" __global__ void scan_backward(const float* x, const float* delta, const float* a, const float* b,
                                         const float* c, const float* skip, const float* gate, const float* bias,
                                         const float* dy, const float* saved, float* dx, float* ddelta, float* da,
                                         float* dbc, float* dskip, float* dgate, float* dbias, int use_softplus,
                                         int time, int channels, int warps) {
  const int d = blockIdx.x * blockDim.x + threadIdx.x;
  // Every lane stays for the warp's sums; lanes past the last channel add zeros.
  const bool mine = d < channels;
  const long long row = blockIdx.y;
  const int lane = threadIdx.x % 32;
  const int warp = d / 32;
  const int chunks = (time + CHUNK - 1) / CHUNK;
  float rate[STATES], dh[STATES], drate[STATES];
#pragma unroll
  for (int n = 0; n < STATES; ++n) {
    rate[n] = mine ? a[(long long)d * STATES + n] : 0.0f;
    dh[n] = 0.0f;
    drate[n] = 0.0f;
  }
  const float shift = mine && bias ? bias[d] : 0.0f;
  const float through = mine && skip ? skip[d] : 0.0f;
  float sum_skip = 0.0f, sum_bias = 0.0f;
  float history[CHUNK + 1][STATES];
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    const int start = chunk * CHUNK;
    const int end = min(start + CHUNK, time);
    if (mine) {
      const float* from = saved + ((row * chunks + chunk) * STATES) * channels + d;
#pragma unroll
      for (int n = 0; n < STATES; ++n) history[0][n] = from[(long long)n * channels];
      for (int t = start; t < end; ++t) {
        const long long at = (row * time + t) * channels + d;
        const float* bt = b + (row * time + t) * STATES;
        float step = delta[at] + shift;
        if (use_softplus) step = softplus(step);
        const float drive = step * x[at];
#pragma unroll
        for (int n = 0; n < STATES; ++n) {
          history[t - start + 1][n] = expf(step * rate[n]) * history[t - start][n] + drive * bt[n];
        }
      }
    }
    for (int t = end - 1; t >= start; --t) {
      const long long at = (row * time + t) * channels + d;
      const float* bt = b + (row * time + t) * STATES;
      const float* ct = c + (row * time + t) * STATES;
      const float xt = mine ? x[at] : 0.0f;
      const float raw = mine ? delta[at] + shift : 0.0f;
      const float step = use_softplus ? softplus(raw) : raw;
      const float slope = use_softplus ? sigmoid(raw) : 1.0f;
      const float drive = step * xt;
      float g = mine ? dy[at] : 0.0f;
      const float* before = history[t - start];
      const float* after = history[t - start + 1];
      if (mine && gate) {
        const float z = gate[at];
        const float s = sigmoid(z);
        float open = through * xt;
#pragma unroll
        for (int n = 0; n < STATES; ++n) open += after[n] * ct[n];
        dgate[at] = g * open * s * (1.0f + z * (1.0f - s));
        g *= z * s;
      }
      float dstep = 0.0f, ddrive = 0.0f;
      float* sums = dbc + ((row * time + t) * warps + warp) * (2 * STATES);
#pragma unroll
      for (int n = 0; n < STATES; ++n) {
        float to_b = 0.0f, to_c = 0.0f;
        if (mine) {
          to_c = g * after[n];
          const float reach = dh[n] + g * ct[n];
          to_b = reach * drive;
          ddrive += reach * bt[n];
          const float carried = reach * expf(step * rate[n]);
          const float dexponent = carried * before[n];
          dstep += dexponent * rate[n];
          drate[n] += dexponent * step;
          dh[n] = carried;
        }
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2) {
          to_b += __shfl_down_sync(0xffffffffu, to_b, offset);
          to_c += __shfl_down_sync(0xffffffffu, to_c, offset);
        }
        if (lane == 0 && warp < warps) {
          sums[n] = to_b;
          sums[STATES + n] = to_c;
        }
      }
      if (mine) {
        sum_skip += g * xt;
        dx[at] = ddrive * step + g * through;
        const float total = (dstep + ddrive * xt) * slope;
        ddelta[at] = total;
        sum_bias += total;
      }
    }
  }
  if (!mine) return;
#pragma unroll
  for (int n = 0; n < STATES; ++n) da[(row * channels + d) * STATES + n] = drate[n];
  dskip[row * channels + d] = sum_skip;
  dbias[row * channels + d] = sum_bias;
}
