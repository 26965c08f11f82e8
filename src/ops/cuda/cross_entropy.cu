// Cross-entropy of rows of logits, and its gradient in the place of the logits: loss = logsumexp - logit[target] in
// nats, logits
// <- (softmax - onehot) * scale. A block has one row. A row that fits is held in registers, in the dtype that it came
// in, and read once; a longer one, or one that does not come in packs, is read a second time for the gradient.

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
// Below every finite logit, yet its differences are no NaN.
#define LOWEST (-3.0e38f)

// Packs of a thread: the registers of 64 values of bf16.
template <class T>
struct Held;
template <>
struct Held<bf16> {
  static constexpr int packs = 8;
};
template <>
struct Held<float> {
  static constexpr int packs = 4;
};

// sum exp(x - max) over what a thread has seen, in the base 2: `max` is that of x log2(e).
struct Mass {
  float max;
  float sum;
  __device__ __forceinline__ void add(float max_, float sum_) {
    const float top = fmaxf(max, max_);
    sum = sum * exp2_fast(max - top) + sum_ * exp2_fast(max_ - top);
    max = top;
  }
};

template <class T>
__device__ __forceinline__ void add_pack(Mass& mass, const Pack<T>& pack, int count) {
  float v[PACK];
  pack.get(v);
  float top = LOWEST;
#pragma unroll
  for (int e = 0; e < PACK; ++e) {
    v[e] = e < count ? v[e] * LOG2E : LOWEST;
    top = fmaxf(top, v[e]);
  }
  const float max = fmaxf(mass.max, top);
  float sum = 0.0f;
#pragma unroll
  for (int e = 0; e < PACK; ++e) sum += e < count ? exp2_fast(v[e] - max) : 0.0f;
  mass.sum = mass.sum * exp2_fast(mass.max - max) + sum;
  mass.max = max;
}

// log2 of the sum of exp over the row, the same in every thread.
__device__ __forceinline__ float row_log2(Mass mass) {
  __shared__ Mass warps[32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const float max = __shfl_xor_sync(ALL, mass.max, offset);
    const float sum = __shfl_xor_sync(ALL, mass.sum, offset);
    mass.add(max, sum);
  }
  const int lane = threadIdx.x % 32;
  if (lane == 0) warps[threadIdx.x / 32] = mass;
  __syncthreads();
  mass.max = lane < blockDim.x / 32 ? warps[lane].max : LOWEST;
  mass.sum = lane < blockDim.x / 32 ? warps[lane].sum : 0.0f;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const float max = __shfl_xor_sync(ALL, mass.max, offset);
    const float sum = __shfl_xor_sync(ALL, mass.sum, offset);
    mass.add(max, sum);
  }
  return mass.max + log2f(mass.sum);
}

// `at` is the first element of the pack; `hit` that of the target in the row.
template <class T, bool VECTOR>
__device__ __forceinline__ void write_gradient(T* to, const Pack<T>& pack, float total, float scale, int at, int hit,
                                               int count) {
  float v[PACK];
  pack.get(v);
#pragma unroll
  for (int e = 0; e < PACK; ++e) v[e] = exp2_fast(v[e] * LOG2E - total) * scale;
  if ((u32)(hit - at) < PACK) {
#pragma unroll
    for (int e = 0; e < PACK; ++e) v[e] -= hit - at == e ? scale : 0.0f;
  }
  write_pack<VECTOR>(to, v, count);
}

template <class T>
__device__ __forceinline__ void held_row(T* row, float* loss, float scale, int vocab, int hit, bool gradient) {
  constexpr int HELD = Held<T>::packs;
  const int packs = vocab / PACK;
  Pack<T> pack[HELD];
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int k = threadIdx.x + i * blockDim.x;
    if (k < packs) pack[i].read(row + (i64)k * PACK);
  }
  const float logit = threadIdx.x == 0 ? widen(row[hit]) : 0.0f;
  Mass mass = {LOWEST, 0.0f};
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    if (threadIdx.x + i * blockDim.x < packs) add_pack(mass, pack[i], PACK);
  }
  // All have read the row when this returns.
  const float total = row_log2(mass);
  if (threadIdx.x == 0) *loss = total * LN2 - logit;
  if (!gradient) return;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int k = threadIdx.x + i * blockDim.x;
    if (k < packs) write_gradient<T, true>(row + (i64)k * PACK, pack[i], total, scale, k * PACK, hit, PACK);
  }
}

template <class T, bool VECTOR>
__device__ __forceinline__ void long_row(T* row, float* loss, float scale, int vocab, int hit, bool gradient) {
  constexpr int AHEAD = 4;
  const int packs = (vocab + PACK - 1) / PACK;
  const float logit = threadIdx.x == 0 ? widen(row[hit]) : 0.0f;
  Mass mass = {LOWEST, 0.0f};
  for (int first = threadIdx.x; first < packs; first += AHEAD * blockDim.x) {
    Pack<T> pack[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      const int k = first + i * blockDim.x;
      if (k < packs) read_pack<VECTOR>(pack[i], row + (i64)k * PACK, vocab - k * PACK);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      const int k = first + i * blockDim.x;
      if (k < packs) add_pack(mass, pack[i], VECTOR ? PACK : vocab - k * PACK);
    }
  }
  const float total = row_log2(mass);
  if (threadIdx.x == 0) *loss = total * LN2 - logit;
  if (!gradient) return;
  for (int first = threadIdx.x; first < packs; first += AHEAD * blockDim.x) {
    Pack<T> pack[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      const int k = first + i * blockDim.x;
      if (k < packs) read_pack<VECTOR>(pack[i], row + (i64)k * PACK, vocab - k * PACK);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      const int k = first + i * blockDim.x;
      if (k < packs) {
        write_gradient<T, VECTOR>(row + (i64)k * PACK, pack[i], total, scale, k * PACK, hit, vocab - k * PACK);
      }
    }
  }
}

// A row whose target is negative counts for nothing.
template <class T>
__device__ __forceinline__ void token_losses(T* logits, const i64* targets, float* loss, float scale, i64 rows,
                                             int vocab, bool gradient) {
  const i64 index = blockIdx.x;
  T* row = logits + index * vocab;
  const i64 target = targets[index];
  if (target < 0) {
    if (threadIdx.x == 0) loss[index] = 0.0f;
    if (!gradient) return;
    for (int k = threadIdx.x; k < vocab; k += blockDim.x) narrow(row[k], 0.0f);
    return;
  }
  const bool vector = packs_whole(vocab) && aligned(logits);
  if (vector && vocab <= Held<T>::packs * PACK * (int)blockDim.x) {
    held_row<T>(row, loss + index, scale, vocab, (int)target, gradient);
  } else if (vector) {
    long_row<T, true>(row, loss + index, scale, vocab, (int)target, gradient);
  } else {
    long_row<T, false>(row, loss + index, scale, vocab, (int)target, gradient);
  }
}

// grid rows; any block of whole warps.
extern "C" __global__ void __launch_bounds__(1024)
    cross_entropy(VALUE* logits, const i64* targets, float* loss, float scale, i64 rows, int vocab, int gradient) {
  token_losses<VALUE>(logits, targets, loss, scale, rows, vocab, gradient != 0);
}
