// Rotary positions while a packed projection, q heads | k heads | v heads, is taken apart; and the packed gradient put
// together again. Halves of a head are paired: [a cos - b sin | a sin + b cos], in fp32. Without tables nothing is
// rotated.

// Heads of a thread, the same elements of each: the angles are read once for all, and all heads before the first is
// used.
#define HEADS 4

// A thread's row, first head and first element in the half of a head, with the elements left from there.
struct Place {
  i64 row;
  int head;
  int element;
  int count;

  __device__ __forceinline__ Place(int heads, int half) {
    const int per_head = (half + PACK - 1) / PACK;
    const Deal deal(1, (heads + HEADS - 1) / HEADS * per_head);
    int place;
    deal.at(0, row, place);
    head = place / per_head;
    element = (place - head * per_head) * PACK;
    head *= HEADS;
    count = half - element;
  }
};

// The part a head belongs to.
template <class T>
struct Parts {
  T* q;
  T* k;
  T* v;
  i64 q_stride, k_stride, v_stride;
  int heads_q, heads_k;

  // Address of a head of a row, null where the part is missing.
  __device__ __forceinline__ T* at(i64 row, int head, int head_dim) const {
    if (head < heads_q) return q ? q + row * q_stride + head * head_dim : nullptr;
    head -= heads_q;
    if (head < heads_k) return k ? k + row * k_stride + head * head_dim : nullptr;
    head -= heads_k;
    return v ? v + row * v_stride + head * head_dim : nullptr;
  }
  __device__ __forceinline__ int heads() const { return heads_q + 2 * heads_k; }
  __device__ __forceinline__ bool turns(int head) const { return head < heads_q + heads_k; }
};

struct Angles {
  float cos[PACK], sin[PACK];

  template <bool VECTOR>
  __device__ __forceinline__ void read(const float* cosines, const float* sines, const Place& place, int time,
                                       int half) {
    const i64 at = (i64)((u32)place.row % (u32)time) * half + place.element;
    read_values<VECTOR>(cos, cosines + at, place.count);
    read_values<VECTOR>(sin, sines + at, place.count);
  }
  // (a, b) by the angles, or back by them.
  __device__ __forceinline__ void turn(float (&a)[PACK], float (&b)[PACK], float direction) const {
#pragma unroll
    for (int e = 0; e < PACK; ++e) {
      const float turned = a[e] * cos[e] - direction * b[e] * sin[e];
      b[e] = direction * a[e] * sin[e] + b[e] * cos[e];
      a[e] = turned;
    }
  }
};

// One way or the other: SPLIT takes the packed rows apart, else they are put together.
template <class T, bool SPLIT, bool VECTOR>
__device__ __forceinline__ void rope(T* packed, const float* cos, const float* sin, const Parts<T>& parts,
                                     i64 packed_stride, i64 rows, int time, int head_dim) {
  const int half = head_dim / 2;
  const int heads = parts.heads();
  const Place place(heads, half);
  if (place.row >= rows) return;
  T* row = packed + place.row * packed_stride;
  Pack<T> first[HEADS], second[HEADS];
#pragma unroll
  for (int i = 0; i < HEADS; ++i) {
    const int head = place.head + i;
    first[i].clear();
    second[i].clear();
    if (head < heads) {
      const T* from = SPLIT ? row + head * head_dim : parts.at(place.row, head, head_dim);
      if (from) {
        read_pack<VECTOR>(first[i], from + place.element, place.count);
        read_pack<VECTOR>(second[i], from + place.element + half, place.count);
      }
    }
  }
  Angles angles;
  if (cos && parts.turns(place.head)) angles.read<VECTOR>(cos, sin, place, time, half);
#pragma unroll
  for (int i = 0; i < HEADS; ++i) {
    const int head = place.head + i;
    if (head < heads) {
      float a[PACK], b[PACK];
      first[i].get(a);
      second[i].get(b);
      if (cos && parts.turns(head)) angles.turn(a, b, SPLIT ? 1.0f : -1.0f);
      T* to;
      if constexpr (SPLIT) {
        to = parts.at(place.row, head, head_dim) + place.element;
      } else {
        to = row + head * head_dim + place.element;
      }
      write_pack<VECTOR>(to, a, place.count);
      write_pack<VECTOR>(to + half, b, place.count);
    }
  }
}

// grid ceil(rows * ceil(heads of all parts / 4) * packs of half a head / 256), block 256; cos and sin [time, head_dim /
// 2] may be null.
extern "C" __global__ void __launch_bounds__(256)
    rope_split_forward(VALUE* packed, const float* cos, const float* sin, VALUE* q, VALUE* k, VALUE* v,
                       i64 packed_stride, i64 rows, int time, int heads_q, int heads_k, int head_dim) {
  const i64 width_q = (i64)heads_q * head_dim, width_k = (i64)heads_k * head_dim;
  const Parts<VALUE> parts = {q, k, v, width_q, width_k, width_k, heads_q, heads_k};
  if (packs_whole(head_dim / 2) && packs_whole(packed_stride) && aligned(packed) && aligned(cos) && aligned(sin) &&
      aligned(q) && aligned(k) && aligned(v)) {
    rope<VALUE, true, true>(packed, cos, sin, parts, packed_stride, rows, time, head_dim);
  } else {
    rope<VALUE, true, false>(packed, cos, sin, parts, packed_stride, rows, time, head_dim);
  }
}

// A gradient that is null counts as zeros.
extern "C" __global__ void __launch_bounds__(256)
    rope_split_backward(VALUE* dq, VALUE* dk, VALUE* dv, const float* cos, const float* sin, VALUE* packed,
                        i64 q_stride, i64 k_stride, i64 v_stride, i64 packed_stride, i64 rows, int time, int heads_q,
                        int heads_k, int head_dim) {
  const Parts<VALUE> parts = {dq, dk, dv, q_stride, k_stride, v_stride, heads_q, heads_k};
  if (packs_whole(head_dim / 2) && packs_whole(packed_stride) && packs_whole(q_stride) && packs_whole(k_stride) &&
      packs_whole(v_stride) && aligned(packed) && aligned(cos) && aligned(sin) && aligned(dq) && aligned(dk) &&
      aligned(dv)) {
    rope<VALUE, false, true>(packed, cos, sin, parts, packed_stride, rows, time, head_dim);
  } else {
    rope<VALUE, false, false>(packed, cos, sin, parts, packed_stride, rows, time, head_dim);
  }
}
