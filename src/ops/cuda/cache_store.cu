// One token of each sequence: its packed projection q heads | k heads | v heads [b, ..] is taken apart, queries and keys
// are rotated by their position's angles, and keys and values go to their slot of the cache. Halves of a head are paired,
// as in rope.cu.

// grid (ceil((query heads + 2 key heads) * half / 128), b), block 128. cos and sin [positions, head_dim / 2] or null; q [b,
// query heads, head_dim]; k and v with strides between sequences, heads and slots.
extern "C" __global__ void __launch_bounds__(128)
    cache_store(const VALUE* packed, const float* cos, const float* sin, const i64* positions, VALUE* q, VALUE* k,
                VALUE* v, i64 packed_stride, i64 sequence_stride, i64 head_stride, i64 slot_stride, int slots,
                int query_heads, int key_heads, int head_dim) {
  let_next_start();
  await_previous();
  const int half = head_dim / 2, item = blockIdx.x * 128 + threadIdx.x;
  int head = item / half;
  const int element = item % half;
  if (head >= query_heads + 2 * key_heads) return;
  const i64 sequence = blockIdx.y, position = positions[sequence];
  const VALUE* from = packed + sequence * packed_stride + (i64)head * head_dim + element;
  float a = widen(from[0]), b = widen(from[half]);
  if (cos && head < query_heads + key_heads) {
    const float c = cos[position * half + element], s = sin[position * half + element];
    const float turned = a * c - b * s;
    b = a * s + b * c;
    a = turned;
  }
  VALUE* to;
  if (head < query_heads) {
    to = q + (sequence * query_heads + head) * head_dim;
  } else {
    head -= query_heads;
    const bool of_keys = head < key_heads;
    to = (of_keys ? k : v) + sequence * sequence_stride + (of_keys ? head : head - key_heads) * head_stride +
         position % slots * slot_stride;
  }
  narrow(to[element], a);
  narrow(to[element + half], b);
}
