// AdamW over flat arenas in one launch, and the global gradient norm before it. Everything that changes from step to
// step lives in `state` on the device, so that a captured graph can be replayed: 0 learning rate, written by the
// caller; 1 step; 2 norm; 3 clip factor; 4 1 - beta1^t; 5 sqrt(1 - beta2^t).

#define LEARNING_RATE 0
#define STEP 1
#define NORM 2
#define CLIP 3
#define CORRECTION1 4
#define CORRECTION2_ROOT 5

// The same in every thread; at most 32 warps.
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double warps[32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? warps[threadIdx.x % 32] : 0.0;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
  return x;
}

// part: [grid]. The result depends on the grid, which must not change within a run.
extern "C" __global__ void __launch_bounds__(512) square_sums(const float* g, double* part, i64 n) {
  const i64 threads = (i64)gridDim.x * blockDim.x;
  const i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;
  constexpr int AHEAD = 4;
  float sum[AHEAD] = {0.0f, 0.0f, 0.0f, 0.0f};
  const i64 quads = aligned(g) ? n / 4 : 0;
  i64 k = thread;
  for (; k + (AHEAD - 1) * threads < quads; k += AHEAD * threads) {
    float4 v[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) v[i] = ((const float4*)g)[k + i * threads];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) sum[i] += (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
  }
  for (; k < quads; k += threads) {
    const float4 v = ((const float4*)g)[k];
    sum[0] += (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w);
  }
  for (i64 e = quads * 4 + thread; e < n; e += threads) sum[1] += g[e] * g[e];
  const double total = block_sum(((double)sum[0] + sum[1]) + ((double)sum[2] + sum[3]));
  if (threadIdx.x == 0) part[blockIdx.x] = total;
}

// One block. Counts the step.
extern "C" __global__ void __launch_bounds__(1024)
    norm_finish(const double* part, float* state, int parts, float max_norm, double beta1, double beta2) {
  double sum = 0.0;
  for (int i = threadIdx.x; i < parts; i += blockDim.x) sum += part[i];
  const float norm = (float)sqrt(block_sum(sum));
  if (threadIdx.x != 0) return;
  const float step = state[STEP] + 1.0f;
  const float ratio = max_norm / (norm + 1e-6f);
  state[STEP] = step;
  state[NORM] = norm;
  // A NaN stays one.
  state[CLIP] = max_norm <= 0.0f || ratio > 1.0f ? 1.0f : ratio;
  state[CORRECTION1] = (float)(1.0 - pow(beta1, (double)step));
  state[CORRECTION2_ROOT] = (float)sqrt(1.0 - pow(beta2, (double)step));
}

struct Rule {
  float clip;
  float beta1, rest1, beta2, rest2;
  float correction2_root, eps;
  // Of the first range and of the second.
  float keep[2], step[2];

  __device__ __forceinline__ void apply(float& p, float& g, float& m, float& v, bool second, bool zero) const {
    const float grad = g * clip;
    m = beta1 * m + rest1 * grad;
    v = beta2 * v + rest2 * grad * grad;
    const float size = second ? step[1] : step[0];
    p *= second ? keep[1] : keep[0];
    p -= size * m / (sqrtf(v) / correction2_root + eps);
    if (zero) g = 0.0f;
  }
};

// Elements before n_vector have multiplier and decay 0, the others 1. shadow, a copy of p in bf16, may be null.
// grid ceil(n / 1024), block 256.
extern "C" __global__ void __launch_bounds__(256)
    adamw(float* p, float* g, float* m, float* v, bf16* shadow, const float* state, i64 n, i64 n_vector,
          float multiplier0, float decay0, float multiplier1, float decay1, double beta1, double beta2, float eps,
          int zero_grad) {
  const i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (at >= n) return;
  const bool vector = at + 4 <= n && aligned(p) && aligned(g) && aligned(m) && aligned(v) && aligned(shadow);
  float ps[4], gs[4], ms[4], vs[4];
  if (vector) {
    const float4 p4 = *(const float4*)(p + at), g4 = *(const float4*)(g + at);
    const float4 m4 = *(const float4*)(m + at), v4 = *(const float4*)(v + at);
    ps[0] = p4.x, ps[1] = p4.y, ps[2] = p4.z, ps[3] = p4.w;
    gs[0] = g4.x, gs[1] = g4.y, gs[2] = g4.z, gs[3] = g4.w;
    ms[0] = m4.x, ms[1] = m4.y, ms[2] = m4.z, ms[3] = m4.w;
    vs[0] = v4.x, vs[1] = v4.y, vs[2] = v4.z, vs[3] = v4.w;
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool inside = at + e < n;
      ps[e] = inside ? p[at + e] : 0.0f;
      gs[e] = inside ? g[at + e] : 0.0f;
      ms[e] = inside ? m[at + e] : 0.0f;
      vs[e] = inside ? v[at + e] : 0.0f;
    }
  }
  const float rate = state[LEARNING_RATE];
  const float rate0 = rate * multiplier0, rate1 = rate * multiplier1;
  const float correction1 = state[CORRECTION1];
  const Rule rule = {state[CLIP],
                     (float)beta1,
                     (float)(1.0 - beta1),
                     (float)beta2,
                     (float)(1.0 - beta2),
                     state[CORRECTION2_ROOT],
                     eps,
                     {1.0f - rate0 * decay0, 1.0f - rate1 * decay1},
                     {rate0 / correction1, rate1 / correction1}};
#pragma unroll
  for (int e = 0; e < 4; ++e) rule.apply(ps[e], gs[e], ms[e], vs[e], at + e >= n_vector, zero_grad != 0);
  if (vector) {
    *(float4*)(p + at) = make_float4(ps[0], ps[1], ps[2], ps[3]);
    *(float4*)(m + at) = make_float4(ms[0], ms[1], ms[2], ms[3]);
    *(float4*)(v + at) = make_float4(vs[0], vs[1], vs[2], vs[3]);
    if (zero_grad) *(float4*)(g + at) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (shadow) *(uint2*)(shadow + at) = make_uint2(round_pair(ps[0], ps[1]), round_pair(ps[2], ps[3]));
    return;
  }
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    if (at + e < n) {
      p[at + e] = ps[e];
      m[at + e] = ms[e];
      v[at + e] = vs[e];
      if (zero_grad) g[at + e] = 0.0f;
      if (shadow) narrow(shadow[at + e], ps[e]);
    }
  }
}
