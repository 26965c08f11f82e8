// act = silu(gate) * up over rows that hold gate and up side by side, and backwards. The backward pass recomputes act,
// which the caller may have dropped, in the same pass. Everything is read before it is written: outputs may lie on the
// inputs of the same shape.

// Packs of a thread, all loaded before the first is used.
#define EACH 2

template <class T, bool VECTOR>
__device__ __forceinline__ void forward(const T* h, T* act, i64 rows, int inner) {
  const Deal deal(EACH, (inner + PACK - 1) / PACK);
  Pack<T> gate[EACH], up[EACH];
  i64 row[EACH];
  int column[EACH];
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    deal.at(i, row[i], column[i]);
    column[i] *= PACK;
    if (row[i] < rows) {
      const T* from = h + row[i] * 2 * inner + column[i];
      read_pack<VECTOR>(gate[i], from, inner - column[i]);
      read_pack<VECTOR>(up[i], from + inner, inner - column[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    if (row[i] < rows) {
      float g[PACK], u[PACK];
      gate[i].get(g);
      up[i].get(u);
#pragma unroll
      for (int e = 0; e < PACK; ++e) u[e] *= g[e] * sigmoid<T>(g[e]);
      write_pack<VECTOR>(act + row[i] * inner + column[i], u, inner - column[i]);
    }
  }
}

template <class T, bool VECTOR>
__device__ __forceinline__ void backward(const T* dact, const T* h, const T* extra, T* dh, T* act, i64 extra_stride,
                                         i64 rows, int inner) {
  const Deal deal(EACH, (inner + PACK - 1) / PACK);
  Pack<T> gate[EACH], up[EACH], arriving[EACH], other[EACH];
  i64 row[EACH];
  int column[EACH];
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    deal.at(i, row[i], column[i]);
    column[i] *= PACK;
    other[i].clear();
    if (row[i] < rows) {
      const T* from = h + row[i] * 2 * inner + column[i];
      read_pack<VECTOR>(gate[i], from, inner - column[i]);
      read_pack<VECTOR>(up[i], from + inner, inner - column[i]);
      read_pack<VECTOR>(arriving[i], dact + row[i] * inner + column[i], inner - column[i]);
      if (extra) read_pack<VECTOR>(other[i], extra + row[i] * extra_stride + column[i], inner - column[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    if (row[i] < rows) {
      float g[PACK], u[PACK], d[PACK], o[PACK];
      gate[i].get(g);
      up[i].get(u);
      arriving[i].get(d);
      other[i].get(o);
#pragma unroll
      for (int e = 0; e < PACK; ++e) {
        const float s = sigmoid<T>(g[e]);
        const float open = g[e] * s;
        const float linear = u[e];
        u[e] = open * linear;
        g[e] = d[e] * linear * (s + open * (1.0f - s));
        d[e] = d[e] * open + o[e];
      }
      T* to = dh + row[i] * 2 * inner + column[i];
      write_pack<VECTOR>(to, g, inner - column[i]);
      write_pack<VECTOR>(to + inner, d, inner - column[i]);
      if (act) write_pack<VECTOR>(act + row[i] * inner + column[i], u, inner - column[i]);
    }
  }
}

// h: [rows, 2 inner], act: [rows, inner]. grid ceil(rows * packs of a row / 512), block 256.
extern "C" __global__ void __launch_bounds__(256) swiglu_forward(const VALUE* h, VALUE* act, i64 rows, int inner) {
  if (packs_whole(inner) && aligned(h) && aligned(act)) {
    forward<VALUE, true>(h, act, rows, inner);
  } else {
    forward<VALUE, false>(h, act, rows, inner);
  }
}

// extra, a gradient that reaches the linear half from elsewhere, and act may be null.
extern "C" __global__ void __launch_bounds__(256)
    swiglu_backward(const VALUE* dact, const VALUE* h, const VALUE* extra, VALUE* dh, VALUE* act, i64 extra_stride,
                    i64 rows, int inner) {
  if (packs_whole(inner) && packs_whole(extra_stride) && aligned(dact) && aligned(h) && aligned(extra) && aligned(dh) &&
      aligned(act)) {
    backward<VALUE, true>(dact, h, extra, dh, act, extra_stride, rows, inner);
  } else {
    backward<VALUE, false>(dact, h, extra, dh, act, extra_stride, rows, inner);
  }
}
