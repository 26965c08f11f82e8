// Shared by the elementwise kernels: this text stands before each of theirs. Plain CUDA C for NVRTC, no headers.
//
// Values live in memory as T, bf16 or fp32, and are computed in fp32. Work comes in packs of eight neighbouring values
// of a row, 16 bytes of bf16. A row whose width, stride or address does not allow such accesses is read value by value
// (VECTOR false); the last pack of a row may then hold fewer than eight.
//
// A module is compiled for one dtype of activations: entry points take VALUE, which stands in front of this text where
// there are any.

typedef long long i64;
typedef unsigned int u32;

struct bf16 {
  unsigned short bits;
};

#define PACK 8
#define ALL 0xffffffffu

__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float widen(float x) { return x; }

// Nearest, ties to even.
__device__ __forceinline__ u32 round_pair(float low, float high) {
  u32 out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

__device__ __forceinline__ void narrow(bf16& to, float x) { to.bits = (unsigned short)(round_pair(x, 0.0f) & 0xffffu); }
__device__ __forceinline__ void narrow(float& to, float x) { to = x; }

// x as it would be after a visit to memory.
template <class T>
__device__ __forceinline__ float rounded(float x) {
  T out;
  narrow(out, x);
  return widen(out);
}

// Eight values as they lie in memory: kept so until needed, bf16 takes half the registers.
template <class T>
struct Pack;

template <>
struct Pack<bf16> {
  uint4 word;
  __device__ __forceinline__ void read(const bf16* p) { word = *(const uint4*)p; }
  __device__ __forceinline__ void write(bf16* p) const { *(uint4*)p = word; }
  __device__ __forceinline__ void clear() { word = make_uint4(0, 0, 0, 0); }
  __device__ __forceinline__ void get(float (&v)[PACK]) const {
    const u32 w[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = __uint_as_float(w[i] << 16);
      v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    }
  }
  __device__ __forceinline__ void set(const float (&v)[PACK]) {
    word = make_uint4(round_pair(v[0], v[1]), round_pair(v[2], v[3]), round_pair(v[4], v[5]), round_pair(v[6], v[7]));
  }
};

template <>
struct Pack<float> {
  float4 low, high;
  __device__ __forceinline__ void read(const float* p) {
    low = ((const float4*)p)[0];
    high = ((const float4*)p)[1];
  }
  __device__ __forceinline__ void write(float* p) const {
    ((float4*)p)[0] = low;
    ((float4*)p)[1] = high;
  }
  __device__ __forceinline__ void clear() { low = high = make_float4(0.0f, 0.0f, 0.0f, 0.0f); }
  __device__ __forceinline__ void get(float (&v)[PACK]) const {
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  }
  __device__ __forceinline__ void set(const float (&v)[PACK]) {
    low = make_float4(v[0], v[1], v[2], v[3]);
    high = make_float4(v[4], v[5], v[6], v[7]);
  }
};

// The first `count` values of the eight at p, zeros after them.
template <bool VECTOR, class T>
__device__ __forceinline__ void read_pack(Pack<T>& pack, const T* p, int count) {
  if constexpr (VECTOR) {
    pack.read(p);
  } else {
    float v[PACK];
#pragma unroll
    for (int i = 0; i < PACK; ++i) v[i] = i < count ? widen(p[i]) : 0.0f;
    pack.set(v);
  }
}

template <bool VECTOR, class T>
__device__ __forceinline__ void write_pack(T* p, const float (&v)[PACK], int count) {
  if constexpr (VECTOR) {
    Pack<T> pack;
    pack.set(v);
    pack.write(p);
  } else {
#pragma unroll
    for (int i = 0; i < PACK; ++i) {
      if (i < count) narrow(p[i], v[i]);
    }
  }
}

template <bool VECTOR, class T>
__device__ __forceinline__ void read_values(float (&v)[PACK], const T* p, int count) {
  Pack<T> pack;
  read_pack<VECTOR>(pack, p, count);
  pack.get(v);
}

// Null is as good as aligned.
__device__ __forceinline__ bool aligned(const void* p) { return ((unsigned long long)p & 15) == 0; }
__device__ __forceinline__ bool packs_whole(i64 extent) { return extent % PACK == 0; }

__device__ __forceinline__ float exp2_fast(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

// In fp32 to the last bits, in bf16 with the fast exponential and reciprocal, whose errors vanish in the rounding.
template <class T>
__device__ __forceinline__ float sigmoid(float x);
template <>
__device__ __forceinline__ float sigmoid<float>(float x) {
  return 1.0f / (1.0f + expf(-x));
}
template <>
__device__ __forceinline__ float sigmoid<bf16>(float x) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(1.0f + exp2_fast(x * -1.4426950408889634f)));
  return out;
}

// Of kernels that are launched before the one in front of them has ended, on chips that can: what that one has written may
// be read only after await_previous; let_next_start allows the next one the same. Elsewhere both do nothing.
__device__ __forceinline__ void await_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// a / b, by the short division wherever it does; a is not negative.
__device__ __forceinline__ i64 divide(i64 a, u32 b) { return a >> 32 ? a / b : (i64)((u32)a / b); }

// Position of a thread's packs when rows of `per_row` packs are dealt out to blocks without a gap: a block owns
// blockDim.x * EACH packs in a row, of which a thread has every blockDim.x-th.
struct Deal {
  i64 row;
  u32 offset;
  u32 per_row;
  __device__ __forceinline__ Deal(int each, int per_row_) : per_row((u32)per_row_) {
    const i64 first = (i64)blockIdx.x * (blockDim.x * (u32)each);
    row = divide(first, per_row);
    offset = (u32)(first - row * per_row) + threadIdx.x;
  }
  // Pack `turn` of this thread: its row, and its place in the row.
  __device__ __forceinline__ void at(int turn, i64& in_row, int& place) const {
    const u32 k = offset + (u32)turn * blockDim.x;
    const u32 rows = k / per_row;
    in_row = row + rows;
    place = (int)(k - rows * per_row);
  }
};

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
  return x;
}

// Sums over rows end here: out = (accumulate ? out : 0) + sum of part[row], rows taken in an order that depends on
// nothing but their number. Columns below `split` go to out_a, the others to out_b. grid ceil(columns / 32), block (32,
// 32).
extern "C" __global__ void __launch_bounds__(1024)
    sum_rows(const float* part, float* out_a, float* out_b, i64 rows, int columns, int split, int accumulate) {
  __shared__ float tile[32][33];
  const int column = blockIdx.x * 32 + threadIdx.x;
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (column < columns) {
    i64 row = threadIdx.y;
    for (; row + 96 < rows; row += 128) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += part[(row + 32 * i) * columns + column];
    }
    for (; row < rows; row += 32) sum[0] += part[row * columns + column];
  }
  tile[threadIdx.y][threadIdx.x] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  __syncthreads();
  const float total = warp_sum(tile[threadIdx.x][threadIdx.y]);
  const int written = blockIdx.x * 32 + threadIdx.y;
  if (threadIdx.x != 0 || written >= columns) return;
  float* out = written < split ? out_a + written : out_b + (written - split);
  *out = (accumulate ? *out : 0.0f) + total;
}
