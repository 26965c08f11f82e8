// y = silu(z) * m, every tensor with its own stride between rows, and backwards. All is read before it is written:
// outputs may lie on the inputs of the same shape.

// Packs of a thread, all loaded before the first is used.
#define EACH 2

template <class T, bool VECTOR>
__device__ __forceinline__ void forward(const T* z, const T* m, T* y, i64 z_stride, i64 m_stride, i64 y_stride,
                                        i64 rows, int width) {
  const Deal deal(EACH, (width + PACK - 1) / PACK);
  Pack<T> gate[EACH], memory[EACH];
  i64 row[EACH];
  int column[EACH];
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    deal.at(i, row[i], column[i]);
    column[i] *= PACK;
    if (row[i] < rows) {
      read_pack<VECTOR>(gate[i], z + row[i] * z_stride + column[i], width - column[i]);
      read_pack<VECTOR>(memory[i], m + row[i] * m_stride + column[i], width - column[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    if (row[i] < rows) {
      float g[PACK], v[PACK];
      gate[i].get(g);
      memory[i].get(v);
#pragma unroll
      for (int e = 0; e < PACK; ++e) v[e] *= g[e] * sigmoid<T>(g[e]);
      write_pack<VECTOR>(y + row[i] * y_stride + column[i], v, width - column[i]);
    }
  }
}

template <class T, bool VECTOR>
__device__ __forceinline__ void backward(const T* dy, const T* z, const T* m, T* dz, T* dm, i64 dy_stride, i64 z_stride,
                                         i64 m_stride, i64 dz_stride, i64 dm_stride, i64 rows, int width,
                                         bool accumulate) {
  const Deal deal(EACH, (width + PACK - 1) / PACK);
  Pack<T> arriving[EACH], gate[EACH], memory[EACH], other[EACH];
  i64 row[EACH];
  int column[EACH];
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    deal.at(i, row[i], column[i]);
    column[i] *= PACK;
    other[i].clear();
    if (row[i] < rows) {
      read_pack<VECTOR>(arriving[i], dy + row[i] * dy_stride + column[i], width - column[i]);
      read_pack<VECTOR>(gate[i], z + row[i] * z_stride + column[i], width - column[i]);
      read_pack<VECTOR>(memory[i], m + row[i] * m_stride + column[i], width - column[i]);
      if (accumulate) read_pack<VECTOR>(other[i], dm + row[i] * dm_stride + column[i], width - column[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    if (row[i] < rows) {
      float d[PACK], g[PACK], v[PACK], o[PACK];
      arriving[i].get(d);
      gate[i].get(g);
      memory[i].get(v);
      other[i].get(o);
#pragma unroll
      for (int e = 0; e < PACK; ++e) {
        const float s = sigmoid<T>(g[e]);
        const float open = g[e] * s;
        g[e] = d[e] * v[e] * (s + open * (1.0f - s));
        v[e] = d[e] * open + o[e];
      }
      write_pack<VECTOR>(dz + row[i] * dz_stride + column[i], g, width - column[i]);
      write_pack<VECTOR>(dm + row[i] * dm_stride + column[i], v, width - column[i]);
    }
  }
}

// grid ceil(rows * packs of a row / 512), block 256.
extern "C" __global__ void __launch_bounds__(256) gate_forward(const VALUE* z, const VALUE* m, VALUE* y, i64 z_stride,
                                                               i64 m_stride, i64 y_stride, i64 rows, int width) {
  if (packs_whole(width) && packs_whole(z_stride) && packs_whole(m_stride) && packs_whole(y_stride) && aligned(z) &&
      aligned(m) && aligned(y)) {
    forward<VALUE, true>(z, m, y, z_stride, m_stride, y_stride, rows, width);
  } else {
    forward<VALUE, false>(z, m, y, z_stride, m_stride, y_stride, rows, width);
  }
}

extern "C" __global__ void __launch_bounds__(256)
    gate_backward(const VALUE* dy, const VALUE* z, const VALUE* m, VALUE* dz, VALUE* dm, i64 dy_stride, i64 z_stride,
                  i64 m_stride, i64 dz_stride, i64 dm_stride, i64 rows, int width, int accumulate_dm) {
  if (packs_whole(width) && packs_whole(dy_stride) && packs_whole(z_stride) && packs_whole(m_stride) &&
      packs_whole(dz_stride) && packs_whole(dm_stride) && aligned(dy) && aligned(z) && aligned(m) && aligned(dz) &&
      aligned(dm)) {
    backward<VALUE, true>(dy, z, m, dz, dm, dy_stride, z_stride, m_stride, dz_stride, dm_stride, rows, width,
                          accumulate_dm != 0);
  } else {
    backward<VALUE, false>(dy, z, m, dz, dm, dy_stride, z_stride, m_stride, dz_stride, dm_stride, rows, width,
                           accumulate_dm != 0);
  }
}
