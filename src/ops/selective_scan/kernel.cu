// The selective scan on a GPU. Layout [b, t, d], channels contiguous.
//
// A warp owns 16 channels of one row and walks through time alone. Lanes l, l ^ 8, l ^ 16 and l ^ 24 share two channels:
// l's "own" (l % 16) and the "other", which is that of l ^ 8. Each holds four states of both, so that a value of B or C
// read from shared memory serves two channels, and two shuffles finish a sum over states. What is computed once per
// channel and step (softplus, gates) is computed by the lane that owns the channel, for every second step.
//
// Where batch and channels give too few warps, time is cut into segments: a first kernel (scan_*_carry) takes each
// segment from zero to its end, and the main kernel starts each from what those before it left.
//
// Gradients of B and C sum over channels: tensor cores add a warp's lanes, then the block's warps are added, then the
// blocks, always in the same order, so that every run gives the same result.

#ifndef ELEMENT_BITS
#define ELEMENT_BITS 16
#endif
#ifndef WARPS
#define WARPS 4
#endif
#define LANES 32
#define STATES 16
// States of a lane, and channels of a warp.
#define QUARTER 4
#define WIDTH 16
// What a warp's states take, two channels a lane.
#define WARP_STATES (2 * QUARTER * LANES)
// Steps between saved states. A tile of inputs has as many.
#define CHUNK 16
// Steps whose work is in flight together.
#define GROUP 4
#define GROUPS (CHUNK / GROUP)
#define ALL 0xffffffffu
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

#if ELEMENT_BITS == 16
typedef unsigned short element;  // bf16
#else
typedef float element;
#endif

extern __shared__ float4 memory[];

#if ELEMENT_BITS == 16
__device__ __forceinline__ float widen(element v) { return __uint_as_float((unsigned)v << 16); }
__device__ __forceinline__ element narrow(float v) {
  element r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
  return r;
}
#else
__device__ __forceinline__ float widen(element v) { return v; }
__device__ __forceinline__ element narrow(float v) { return v; }
#endif
__device__ __forceinline__ float exp2_fast(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
__device__ __forceinline__ float reciprocal(float v) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}
// Keeps the compiler from branching on what it knows of a value.
__device__ __forceinline__ void hide(unsigned& v) { asm volatile("" : "+r"(v)); }
// Asynchronous copies to shared memory; zeros where not valid.
template <int BYTES>
__device__ __forceinline__ void copy(void* to, const void* from, bool valid) {
  const unsigned at = (unsigned)__cvta_generic_to_shared(to);
  if (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(valid ? 16 : 0) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(valid ? 4 : 0) : "memory");
  }
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
// d += a b on the tensor cores, [16, 8] by [8, 8], operands cut to tf32.
__device__ __forceinline__ void multiply_add(float (&d)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(__float_as_uint(a0)), "r"(__float_as_uint(a1)), "r"(__float_as_uint(a2)), "r"(__float_as_uint(a3)),
        "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

// log(1 + e) for e in [0, 1], to 3e-7 of itself; short chains of dependent operations.
__device__ __forceinline__ float log1p_unit(float e) {
  const float e2 = e * e;
  const float low = fmaf(fmaf(-2.44704694e-1f, e, 3.32711875e-1f), e2, fmaf(-4.99971271e-1f, e, 9.99999762e-1f));
  const float high = fmaf(fmaf(-8.33649747e-3f, e, 4.33708504e-2f), e2, fmaf(-1.06677905e-1f, e, 1.76754937e-1f));
  return fmaf(high, e2 * e2, low) * e;
}

// One array's values for CHUNK steps: of a warp's channels, or B and C side by side.
template <int COLUMNS>
struct Rows {
  element v[CHUNK][COLUMNS];
};
typedef Rows<WIDTH> Inputs;
typedef Rows<2 * STATES> Pairs;

// Which pieces of Rows a lane moves: 16 bytes each where every row begins on such an address, else the fewest.
template <int COLUMNS, bool WIDE>
struct Piece {
  static constexpr int BYTES = WIDE ? 16 : 4;
  static constexpr int VALUES = BYTES / sizeof(element), OF_ROW = COLUMNS / VALUES, ROWS = LANES / OF_ROW;
};
struct Mover {
  bool wide;
  int row, at;
};

template <int COLUMNS>
__device__ __forceinline__ Mover mover_of(bool wide, int lane) {
  typedef Piece<COLUMNS, true> Wide;
  typedef Piece<COLUMNS, false> Narrow;
  if (wide) return {true, lane / Wide::OF_ROW, lane % Wide::OF_ROW * Wide::VALUES};
  return {false, lane / Narrow::OF_ROW, lane % Narrow::OF_ROW * Narrow::VALUES};
}

// `from`: where the lane's first piece lies. Zeros for rows past `rows`, and everywhere where not inside.
template <int COLUMNS, bool WIDE>
__device__ __forceinline__ void fetch_pieces(Rows<COLUMNS>& to, const element* from, long long stride, int rows,
                                             bool inside, const Mover& m) {
  typedef Piece<COLUMNS, WIDE> Mine;
#pragma unroll
  for (int i = 0; i < CHUNK; i += Mine::ROWS) {
    copy<Mine::BYTES>(&to.v[m.row + i][m.at], from + i * stride, inside && m.row + i < rows);
  }
}

template <int COLUMNS>
__device__ __forceinline__ void fetch_rows(Rows<COLUMNS>& to, const element* from, long long stride, int rows,
                                           bool inside, const Mover& m) {
  if (m.wide) {
    fetch_pieces<COLUMNS, true>(to, from, stride, rows, inside, m);
  } else {
    fetch_pieces<COLUMNS, false>(to, from, stride, rows, inside, m);
  }
}

// The way back.
__device__ __forceinline__ void store_rows(const Inputs& from, element* to, long long stride, int rows, bool inside,
                                           const Mover& m) {
  if (!inside) return;
  if (m.wide) {
#pragma unroll
    for (int i = 0; i < CHUNK; i += Piece<WIDTH, true>::ROWS) {
      if (m.row + i < rows) *(float4*)(to + i * stride) = *(const float4*)&from.v[m.row + i][m.at];
    }
  } else {
#pragma unroll 1
    for (int i = 0; i < CHUNK; i += Piece<WIDTH, false>::ROWS) {
      if (m.row + i < rows) *(unsigned*)(to + i * stride) = *(const unsigned*)&from.v[m.row + i][m.at];
    }
  }
}

// B and C of a chunk to fp32.
__device__ __forceinline__ void widen_pairs(float (*to)[2 * STATES], const Pairs& from, int lane) {
#pragma unroll
  for (int i = 0; i < CHUNK; i += 4) {
    const int row = i + lane / 8, at = lane % 8 * 4;
    *(float4*)&to[row][at] = make_float4(widen(from.v[row][at]), widen(from.v[row][at + 1]),
                                         widen(from.v[row][at + 2]), widen(from.v[row][at + 3]));
  }
}

__device__ __forceinline__ void read4(float (&to)[QUARTER], const float* from) {
  const float4 v = *(const float4*)from;
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

__device__ __forceinline__ void store_states(float* to, const float (&h)[2][QUARTER], int lane) {
#pragma unroll
  for (int q = 0; q < 2; ++q) ((float4*)to)[q * LANES + lane] = make_float4(h[q][0], h[q][1], h[q][2], h[q][3]);
}

__device__ __forceinline__ void load_states(float (&h)[2][QUARTER], const float* from, int lane) {
#pragma unroll
  for (int q = 0; q < 2; ++q) read4(h[q], from + (q * LANES + lane) * 4);
}

__device__ __forceinline__ void zero_states(float (&h)[2][QUARTER]) {
#pragma unroll
  for (int i = 0; i < 2 * QUARTER; ++i) h[i / QUARTER][i % QUARTER] = 0.0f;
}

__device__ __forceinline__ bool aligned16(const void* p, long long stride) {
  return ((unsigned long long)p | (unsigned long long)(stride * (long long)sizeof(element))) % 16 == 0;
}

// What tells a scan with softplus from one without, so that no inner loop branches on it.
struct Softplus {
  float low, share;
};

__device__ __forceinline__ Softplus softplus_of(int used) {
  return used ? Softplus{0.0f, 1.0f} : Softplus{-__uint_as_float(0x7f800000u), 0.0f};
}

__device__ __forceinline__ float masked(float v, unsigned mask) { return __uint_as_float(__float_as_uint(v) & mask); }

__device__ __forceinline__ float step_of(float raw, Softplus softplus, bool inside) {
  const float soft = log1p_unit(exp2_fast(-fabsf(raw) * LOG2E));
  const float step = fmaf(soft, softplus.share, fmaxf(raw, softplus.low));
  return inside ? step : 0.0f;
}

// The warp's place: 16 channels of a row, a segment of time.
struct Place {
  int lane, at, second, quarter, warp, warps, base, own, other, segment, segments, first, last, chunks;
  long long row;
};

__device__ __forceinline__ Place place_of(int time, int channels, int segment_chunks) {
  Place p;
  p.lane = threadIdx.x % LANES;
  p.at = p.lane % WIDTH;
  p.second = p.lane / WIDTH;
  p.quarter = p.lane / 8 * QUARTER;
  p.warp = blockIdx.x * WARPS + threadIdx.x / LANES;
  p.warps = (channels + WIDTH - 1) / WIDTH;
  p.base = p.warp * WIDTH;
  p.own = p.base + p.at;
  p.other = p.base + (p.at ^ 8);
  p.row = blockIdx.y;
  p.chunks = (time + CHUNK - 1) / CHUNK;
  p.segment = blockIdx.z;
  p.segments = (p.chunks + segment_chunks - 1) / segment_chunks;
  p.first = p.segment * segment_chunks;
  p.last = min(p.first + segment_chunks, p.chunks);
  return p;
}

// Decay rates in powers of two; zero past the last channel.
__device__ __forceinline__ void load_rates(float (&rate)[2][QUARTER], const float* a, const Place& p, int channels) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    const int d = q ? p.other : p.own;
    if (d < channels) {
      read4(rate[q], a + (long long)d * STATES + p.quarter);
    } else {
      rate[q][0] = rate[q][1] = rate[q][2] = rate[q][3] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < QUARTER; ++j) rate[q][j] *= LOG2E;
  }
}

// States before the first step, [b, d, n]; zero past the last channel.
__device__ __forceinline__ void load_initial(float (&h)[2][QUARTER], const float* initial, const Place& p,
                                             int channels) {
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    const int d = q ? p.other : p.own;
    if (d < channels) read4(h[q], initial + (p.row * channels + d) * STATES + p.quarter);
  }
}

// The state after one more segment (forward), or the gradient before it (backward).
__device__ __forceinline__ void join(float (&h)[2][QUARTER], const float (&rate)[2][QUARTER], const float* carry,
                                     const float* steps, long long slot, const Place& p) {
  float end[2][QUARTER];
  load_states(end, carry + (slot * p.warps + p.warp) * WARP_STATES, p.lane);
  const float* total = steps + (slot * p.warps + p.warp) * WIDTH;
#pragma unroll
  for (int i = 0; i < 2 * QUARTER; ++i) {
    const int q = i / QUARTER, j = i % QUARTER;
    h[q][j] = fmaf(exp2_fast(total[q ? p.at ^ 8 : p.at] * rate[q][j]), h[q][j], end[q][j]);
  }
}

// The sum over two of the four lanes: of the own channel, from both lanes' parts of it.
__device__ __forceinline__ float gather(float own, float other) { return own + __shfl_xor_sync(ALL, other, 8); }

// The sums over all four of two steps: a lane below 16 gets the first step's, the others the second's.
__device__ __forceinline__ float gather(float first, float second, int is_second) {
  return (is_second ? second : first) + __shfl_xor_sync(ALL, is_second ? first : second, 16);
}

#define FORWARD_STAGES 3
#define RING (2 * GROUP)
struct ForwardShared {
  Inputs x[FORWARD_STAGES], delta[FORWARD_STAGES], z[FORWARD_STAGES];
  Pairs bc[FORWARD_STAGES];
  // Of the running group of steps and the next: B and C, and each channel's step and drive (step times x).
  float pairs[RING][2 * STATES];
  float2 scalars[RING][WIDTH];
};

// MAIN: the whole scan of a segment. Otherwise only its end from a zero state, and the sum of its steps.
template <bool MAIN>
__device__ __forceinline__ void forward(const element* x, const element* delta, const float* a, const element* b,
                                        int b_stride, const element* c, int c_stride, const float* skip,
                                        const element* z, int z_stride, const float* bias, const float* initial,
                                        element* y, float* last, float* saved, float* carry, float* steps,
                                        int use_softplus, int time, int channels, int segment_chunks) {
  const Place p = place_of(time, channels, segment_chunks);
  if (p.warp >= p.warps) return;
  ForwardShared& shared = ((ForwardShared*)memory)[threadIdx.x / LANES];
  const int lane = p.lane;
  const bool mine = p.own < channels;
  const bool gated = MAIN && z;
  // Without a gate its factor is one.
  unsigned gate_mask = gated ? ~0u : 0u;
  hide(gate_mask);
  const unsigned gate_fill = ~gate_mask & __float_as_uint(1.0f);
  const Mover m = mover_of<WIDTH>(aligned16(x, channels) && aligned16(delta, channels) &&
                                      (!MAIN || aligned16(y, channels)) && (!gated || aligned16(z, z_stride)),
                                  lane);
  const Mover pair_m = mover_of<2 * STATES>(true, lane);
  const bool inside = p.base + m.at < channels;

  float h[2][QUARTER], rate[2][QUARTER];
  zero_states(h);
  load_rates(rate, a, p, channels);
  if (MAIN && initial) load_initial(h, initial, p, channels);
  if (MAIN) {
    for (int s = 0; s < p.segment; ++s) join(h, rate, carry, steps, p.row * (p.segments - 1) + s, p);
  }
  const float shift = mine && bias ? bias[p.own] : 0.0f;
  const float through = mine && skip ? skip[p.own] : 0.0f;
  const Softplus softplus = softplus_of(use_softplus);
  float total = 0.0f;

  // Where this lane's pieces lie: of the chunk that is fetched next, and of the one that is stored next.
  const long long first_row = p.row * time + p.first * CHUNK;
  long long ahead = (first_row + m.row) * channels + p.base + m.at, at = ahead;
  const element* z_ahead = z + (first_row + m.row) * z_stride + p.base + m.at;
  const long long pair_stride = pair_m.at < STATES ? b_stride : c_stride;
  const element* pair_ahead =
      (pair_m.at < STATES ? b : c) + pair_m.at % STATES + (first_row + pair_m.row) * pair_stride;
  auto fetch = [&](int chunk) {
    if (chunk < p.last) {
      const int stage = chunk % FORWARD_STAGES, rows = time - chunk * CHUNK;
      fetch_rows(shared.x[stage], x + ahead, channels, rows, inside, m);
      fetch_rows(shared.delta[stage], delta + ahead, channels, rows, inside, m);
      if (gated) fetch_rows(shared.z[stage], z_ahead, z_stride, rows, inside, m);
      fetch_rows(shared.bc[stage], pair_ahead, pair_stride, rows, true, pair_m);
    }
    copies_commit();
    ahead += CHUNK * (long long)channels;
    z_ahead += CHUNK * (long long)z_stride;
    pair_ahead += CHUNK * pair_stride;
  };
  // The next group of steps is made ready in pieces between the steps of the running one, so that neither waits: what is
  // read, the exponentials, the rest; then it is written to the ring. The compiler keeps reads behind writes, so that
  // none of a group's reads may come after these.
  // A lane takes every second step of its own channel: two rows of values are as many as lanes.
  const int two_rows = p.second * WIDTH + p.at;
  float4 ready_pairs[GROUP / 4];
  float ready_steps[GROUP / 2], ready_drives[GROUP / 2], raws[GROUP / 2], opens[GROUP / 2], throughs[GROUP / 2];
  auto prepare = [&](int piece, int from, int t, int valid) {
    if (piece == 0) {
#pragma unroll
      for (int i = 0; i < GROUP / 2; ++i) {
        raws[i] = widen((&shared.delta[from].v[t + 2 * i][0])[two_rows]) + shift;
        ready_drives[i] = widen((&shared.x[from].v[t + 2 * i][0])[two_rows]);
      }
#pragma unroll
      for (int i = 0; i < GROUP; i += 4) {
        const element* pair = &shared.bc[from].v[t + i + lane / 8][lane % 8 * 4];
        ready_pairs[i / 4] = make_float4(widen(pair[0]), widen(pair[1]), widen(pair[2]), widen(pair[3]));
      }
    } else if (piece == 1) {
#pragma unroll
      for (int i = 0; i < GROUP / 2; ++i) ready_steps[i] = exp2_fast(-fabsf(raws[i]) * LOG2E);
    } else {
#pragma unroll
      for (int i = 0; i < GROUP / 2; ++i) {
        const float step = fmaf(log1p_unit(ready_steps[i]), softplus.share, fmaxf(raws[i], softplus.low));
        ready_steps[i] = t + 2 * i + p.second < valid ? step : 0.0f;
        ready_drives[i] *= ready_steps[i];
      }
    }
  };
  // Likewise the gates of the running group.
  auto open_gates = [&](int piece, const Inputs& gates, const Inputs& xs, int t) {
#pragma unroll
    for (int i = 0; i < GROUP / 2; ++i) {
      if (piece == 0) {
        raws[i] = widen((&gates.v[t + 2 * i][0])[two_rows]);
        throughs[i] = through * widen((&xs.v[t + 2 * i][0])[two_rows]);
      } else if (piece == 1) {
        opens[i] = 1.0f + exp2_fast(-raws[i] * LOG2E);
      } else {
        opens[i] = raws[i] * reciprocal(opens[i]);
        opens[i] = __uint_as_float((__float_as_uint(opens[i]) & gate_mask) | gate_fill);
      }
    }
  };
  auto publish = [&](int row) {
#pragma unroll
    for (int i = 0; i < GROUP; i += 4) *(float4*)&shared.pairs[row + i + lane / 8][lane % 8 * 4] = ready_pairs[i / 4];
#pragma unroll
    for (int i = 0; i < GROUP / 2; ++i)
      shared.scalars[row + 2 * i + p.second][p.at] = make_float2(ready_steps[i], ready_drives[i]);
    __syncwarp();
  };
  // What a step reads, one step ahead of its use, and its decays, so that no exponential is waited for.
  float bs[QUARTER], cs[QUARTER], decays[2][QUARTER];
  float2 own, other;
  const float* pair_base = &shared.pairs[0][p.quarter];
  const float2 *own_base = &shared.scalars[0][p.at], *other_base = &shared.scalars[0][p.at ^ 8];
  auto read = [&](int row) {
    own = own_base[row * WIDTH];
    other = other_base[row * WIDTH];
    read4(bs, pair_base + row * 2 * STATES);
    if (MAIN) read4(cs, pair_base + row * 2 * STATES + STATES);
  };
  auto decay = [&]() {
#pragma unroll
    for (int j = 0; j < QUARTER; ++j) {
      decays[0][j] = exp2_fast(own.x * rate[0][j]);
      decays[1][j] = exp2_fast(other.x * rate[1][j]);
    }
  };

  fetch(p.first);
  fetch(p.first + 1);
  copies_wait<1>();
  __syncwarp();
  int stage = p.first % FORWARD_STAGES, row = 0;
  for (int piece = 0; piece < 3; ++piece) prepare(piece, stage, 0, time - p.first * CHUNK);
  publish(row);
  read(row);
  decay();
  for (int chunk = p.first; chunk < p.last; ++chunk) {
    // All lanes have left the stage that is filled next.
    __syncwarp();
    fetch(chunk + 2);
    copies_wait<1>();
    __syncwarp();
    if (MAIN && saved) store_states(saved + ((p.row * p.chunks + chunk) * p.warps + p.warp) * WARP_STATES, h, lane);
    // The output takes the gate's place.
    Inputs& outputs = shared.z[stage];
    const Inputs& xs = shared.x[stage];
    const int next_stage = stage + 1 == FORWARD_STAGES ? 0 : stage + 1;
    const int valid = time - chunk * CHUNK;
#pragma unroll 1
    for (int t0 = 0; t0 < CHUNK; t0 += GROUP) {
      const int next_row = row ^ GROUP;
      const bool wraps = t0 + GROUP == CHUNK;
      const int next_from = wraps ? next_stage : stage, next_t = wraps ? 0 : t0 + GROUP;
      const int next_valid = wraps ? valid - CHUNK : valid;
      float outs[GROUP];
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        float now_c[QUARTER];
        float out[2] = {0.0f, 0.0f};
#pragma unroll
        for (int j = 0; j < QUARTER; ++j) {
          h[0][j] = fmaf(decays[0][j], h[0][j], own.y * bs[j]);
          h[1][j] = fmaf(decays[1][j], h[1][j], other.y * bs[j]);
          now_c[j] = cs[j];
        }
        if (!MAIN) total += own.x;
        if (i < 3) prepare(i, next_from, next_t, next_valid);
        if (i + 1 == GROUP) {
          if (MAIN) open_gates(0, outputs, xs, t0);
          publish(next_row);
        }
        read(i + 1 < GROUP ? row + i + 1 : next_row);
        decay();
        if (MAIN) {
#pragma unroll
          for (int j = 0; j < QUARTER; ++j) {
            out[0] = fmaf(h[0][j], now_c[j], out[0]);
            out[1] = fmaf(h[1][j], now_c[j], out[1]);
          }
          outs[i] = gather(out[0], out[1]);
        }
      }
      if (MAIN) {
        open_gates(1, outputs, xs, t0);
        open_gates(2, outputs, xs, t0);
#pragma unroll
        for (int i = 0; i < GROUP / 2; ++i) {
          const float sum = gather(outs[2 * i], outs[2 * i + 1], p.second);
          outputs.v[t0 + 2 * i + p.second][p.at] = narrow((throughs[i] + sum) * opens[i]);
        }
      }
      row = next_row;
    }
    stage = next_stage;
    if (MAIN) {
      __syncwarp();
      store_rows(outputs, y + at, channels, time - chunk * CHUNK, inside, m);
      at += CHUNK * (long long)channels;
    }
  }
  copies_wait<0>();
  if (!MAIN) {
    const long long slot = (p.row * (p.segments - 1) + p.segment) * p.warps + p.warp;
    store_states(carry + slot * WARP_STATES, h, lane);
    if (lane < WIDTH) steps[slot * WIDTH + lane] = total;
  } else if (p.last == p.chunks && last) {
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const int d = q ? p.other : p.own;
      if (d < channels) {
        *(float4*)&last[(p.row * channels + d) * STATES + p.quarter] = make_float4(h[q][0], h[q][1], h[q][2], h[q][3]);
      }
    }
  }
}

// "One block at least" lets the compiler take the registers that it needs to start loads and exponentials early. With
// a guess of its own at the number of blocks it saves registers, and the forward pass took 0.67 ms in place of 0.53.
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 1)
    scan_forward(const element* x, const element* delta, const float* a, const element* b, int b_stride,
                 const element* c, int c_stride, const float* skip, const element* z, int z_stride, const float* bias,
                 const float* initial, element* y, float* last, float* saved, float* carry, float* steps,
                 int use_softplus, int time, int channels, int segment_chunks) {
  forward<true>(x, delta, a, b, b_stride, c, c_stride, skip, z, z_stride, bias, initial, y, last, saved, carry, steps,
                use_softplus, time, channels, segment_chunks);
}

extern "C" __global__ void __launch_bounds__(WARPS* LANES, 1)
    scan_forward_carry(const element* x, const element* delta, const float* a, const element* b, int b_stride,
                       const float* bias, float* carry, float* steps, int use_softplus, int time, int channels,
                       int segment_chunks) {
  forward<false>(x, delta, a, b, b_stride, b, b_stride, nullptr, nullptr, 0, bias, nullptr, nullptr, nullptr, nullptr, carry,
                 steps, use_softplus, time, channels, segment_chunks);
}

#define BACKWARD_STAGES 2
struct CarryShared {
  Inputs delta[BACKWARD_STAGES], z[BACKWARD_STAGES], dy[BACKWARD_STAGES];
  Pairs bc[BACKWARD_STAGES];
  float pairs[CHUNK][2 * STATES];
  // Of each step and channel: the step, and the gradient of the ungated output.
  float2 scalars[CHUNK][WIDTH];
};

// The gradient that a segment, from a zero gradient at its end, hands to the one before it; and the sum of its steps.
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 1)
    scan_backward_carry(const element* delta, const float* a, const element* c, int c_stride, const element* z,
                        int z_stride, const float* bias, const element* dy, float* carry, float* steps,
                        int use_softplus, int time, int channels, int segment_chunks) {
  Place p = place_of(time, channels, segment_chunks);
  // The first segment hands on nothing.
  p.segment += 1;
  p.first += segment_chunks;
  p.last = min(p.last + segment_chunks, p.chunks);
  if (p.warp >= p.warps) return;
  CarryShared& shared = ((CarryShared*)memory)[threadIdx.x / LANES];
  const int lane = p.lane;
  const bool mine = p.own < channels;
  const Mover m = mover_of<WIDTH>(
      aligned16(delta, channels) && aligned16(dy, channels) && (!z || aligned16(z, z_stride)), lane);
  const Mover pair_m = mover_of<2 * STATES>(true, lane);
  const bool inside = p.base + m.at < channels;
  float dh[2][QUARTER], rate[2][QUARTER];
  zero_states(dh);
  load_rates(rate, a, p, channels);
  const float shift = mine && bias ? bias[p.own] : 0.0f;
  const Softplus softplus = softplus_of(use_softplus);
  unsigned gate_mask = z ? ~0u : 0u;
  hide(gate_mask);
  float total = 0.0f;
  auto fetch = [&](int chunk) {
    if (chunk >= p.first) {
      const int stage = chunk % BACKWARD_STAGES, rows = time - chunk * CHUNK;
      const long long row = p.row * time + chunk * CHUNK + m.row;
      const long long at = row * channels + p.base + m.at;
      fetch_rows(shared.delta[stage], delta + at, channels, rows, inside, m);
      fetch_rows(shared.dy[stage], dy + at, channels, rows, inside, m);
      if (z) fetch_rows(shared.z[stage], z + row * z_stride + p.base + m.at, z_stride, rows, inside, m);
      const long long pair_row = p.row * time + chunk * CHUNK + pair_m.row;
      fetch_rows(shared.bc[stage], c + pair_row * c_stride + pair_m.at % STATES, c_stride, rows, true, pair_m);
    }
    copies_commit();
  };
  fetch(p.last - 1);
  for (int chunk = p.last - 1; chunk >= p.first; --chunk) {
    __syncwarp();
    fetch(chunk - 1);
    copies_wait<1>();
    __syncwarp();
    const int stage = chunk % BACKWARD_STAGES;
    widen_pairs(shared.pairs, shared.bc[stage], lane);
#pragma unroll 1
    for (int t0 = p.second; t0 < CHUNK; t0 += 8) {
      float2 scalars[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int t = t0 + 2 * i;
        const float gate = widen(shared.z[stage].v[t][p.at]);
        const float silu = gate * reciprocal(1.0f + exp2_fast(-gate * LOG2E));
        const float open = masked(silu, gate_mask) + (gate_mask ? 0.0f : 1.0f);
        scalars[i] = make_float2(
            step_of(widen(shared.delta[stage].v[t][p.at]) + shift, softplus, chunk * CHUNK + t < time),
            widen(shared.dy[stage].v[t][p.at]) * open);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) shared.scalars[t0 + 2 * i][p.at] = scalars[i];
    }
    __syncwarp();
#pragma unroll 8
    for (int t = CHUNK - 1; t >= 0; --t) {
      float cs[QUARTER];
      read4(cs, &shared.pairs[t][p.quarter]);
      const float2 own = shared.scalars[t][p.at], other = shared.scalars[t][p.at ^ 8];
      total += own.x;
#pragma unroll
      for (int j = 0; j < QUARTER; ++j) {
        dh[0][j] = fmaf(own.y, cs[j], dh[0][j]) * exp2_fast(own.x * rate[0][j]);
        dh[1][j] = fmaf(other.y, cs[j], dh[1][j]) * exp2_fast(other.x * rate[1][j]);
      }
    }
  }
  copies_wait<0>();
  const long long slot = (p.row * (p.segments - 1) + p.segment - 1) * p.warps + p.warp;
  store_states(carry + slot * WARP_STATES, dh, lane);
  if (lane < WIDTH) steps[slot * WIDTH + lane] = total;
}

struct BackwardShared {
  Inputs x[BACKWARD_STAGES], delta[BACKWARD_STAGES], z[BACKWARD_STAGES], dy[BACKWARD_STAGES];
  Pairs bc[BACKWARD_STAGES];
  float pairs[CHUNK][2 * STATES];
  // Of each step and channel: the step, the drive (step times x), the gradient of the ungated output, and the slope of
  // the softplus.
  float4 scalars[CHUNK][WIDTH];
  // dy times the slope of the gate's silu; the silu.
  float2 gates[CHUNK][WIDTH];
  float states[GROUPS - 1][WARP_STATES];
  // Sums over channels, of dB and dC, each over four lanes; where: sums_at.
  float4 sums[CHUNK][16];
};

// Where lanes 8 q + 4 half .. + 3 put their sum of dB (kind 0) or dC (1): no two of what a warp writes together, or of
// what it reads together, meet in a bank.
__device__ __forceinline__ int sums_at(int half, int kind, int q) { return half * 8 + (kind ^ half) * 4 + q; }

// Adds 4 values of a lane over each four lanes: lane 4 i gets the sums over lanes 4 i .. 4 i + 3. The lanes' values are
// a matrix that the tensor cores multiply by columns of ones; `ones` are this lane's entries of those columns.
__device__ __forceinline__ float4 sum_four_lanes(const float (&v)[QUARTER], const float (&ones)[2]) {
  float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#if ELEMENT_BITS == 16
  multiply_add(d, v[0], v[2], v[1], v[3], ones[0], ones[1]);
#else
  // What the cut to tf32 leaves is added too.
  float high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    high[i] = __uint_as_float(__float_as_uint(v[i]) & 0xffffe000u);
    low[i] = v[i] - high[i];
  }
  multiply_add(d, high[0], high[2], high[1], high[3], ones[0], ones[1]);
  multiply_add(d, low[0], low[2], low[1], low[3], ones[0], ones[1]);
#endif
  return make_float4(d[0], d[1], d[2], d[3]);
}

// dbc: [blocks of channels, b t, 2 n]; da: [b segments, d, n]; dskip, dbias: [b segments, d].
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 1)
    scan_backward(const element* x, const element* delta, const float* a, const element* b, int b_stride,
                  const element* c, int c_stride, const float* skip, const element* z, int z_stride, const float* bias,
                  const element* dy, const float* saved, const float* carry, const float* steps, element* dx,
                  element* ddelta, element* dz, int dz_stride, element* y_again, float* dbc, float* da, float* dskip,
                  float* dbias, int use_softplus, int time, int channels, int segment_chunks) {
  const Place p = place_of(time, channels, segment_chunks);
  BackwardShared& shared = ((BackwardShared*)memory)[threadIdx.x / LANES];
  const int lane = p.lane;
  // Every warp stays for the block's sums; what lies past the last channel adds zeros.
  const bool mine = p.own < channels;
  const Mover m = mover_of<WIDTH>(aligned16(x, channels) && aligned16(delta, channels) && aligned16(dy, channels) &&
                                      aligned16(dx, channels) && aligned16(ddelta, channels) &&
                                      aligned16(y_again, channels) &&
                                      (!z || (aligned16(z, z_stride) && aligned16(dz, dz_stride))),
                                  lane);
  const Mover pair_m = mover_of<2 * STATES>(true, lane);
  const bool inside = p.base + m.at < channels;
  const long long pair_stride = pair_m.at < STATES ? b_stride : c_stride;
  const element* pair_at = (pair_m.at < STATES ? b : c) + pair_m.at % STATES;
  float dh[2][QUARTER], rate[2][QUARTER], drate[2][QUARTER];
  zero_states(dh);
  zero_states(drate);
  load_rates(rate, a, p, channels);
  const float ones[2] = {lane / 4 == 0 ? 1.0f : 0.0f, lane / 4 == 1 ? 1.0f : 0.0f};
  if (p.warp < p.warps) {
    for (int s = p.segments - 1; s > p.segment; --s)
      join(dh, rate, carry, steps, p.row * (p.segments - 1) + s - 1, p);
  }
  const float shift = mine && bias ? bias[p.own] : 0.0f;
  const float through = mine && skip ? skip[p.own] : 0.0f;
  float sum_skip = 0.0f, sum_bias = 0.0f;
  const Softplus softplus = softplus_of(use_softplus);
  unsigned gate_mask = z ? ~0u : 0u;
  hide(gate_mask);

  auto fetch = [&](int chunk) {
    if (chunk >= p.first) {
      const int stage = chunk % BACKWARD_STAGES, rows = time - chunk * CHUNK;
      const long long row = p.row * time + chunk * CHUNK + m.row;
      const long long at = row * channels + p.base + m.at;
      fetch_rows(shared.x[stage], x + at, channels, rows, inside, m);
      fetch_rows(shared.delta[stage], delta + at, channels, rows, inside, m);
      fetch_rows(shared.dy[stage], dy + at, channels, rows, inside, m);
      if (z) fetch_rows(shared.z[stage], z + row * z_stride + p.base + m.at, z_stride, rows, inside, m);
      const long long pair_row = p.row * time + chunk * CHUNK + pair_m.row;
      fetch_rows(shared.bc[stage], pair_at + pair_row * pair_stride, pair_stride, rows, true, pair_m);
    }
    copies_commit();
  };

  fetch(p.last - 1);
  for (int chunk = p.last - 1; chunk >= p.first; --chunk) {
    const int stage = chunk % BACKWARD_STAGES;
    float h[2][QUARTER];
    zero_states(h);
    if (p.warp < p.warps) {
      load_states(h, saved + ((p.row * p.chunks + chunk) * p.warps + p.warp) * WARP_STATES, lane);
    }
    __syncwarp();
    fetch(chunk - 1);
    copies_wait<1>();
    __syncwarp();
    widen_pairs(shared.pairs, shared.bc[stage], lane);
#pragma unroll 1
    for (int t0 = p.second; t0 < CHUNK; t0 += 8) {
      float4 scalars[4];
      float2 gates[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int t = t0 + 2 * i;
        const float xt = widen(shared.x[stage].v[t][p.at]);
        const float raw = widen(shared.delta[stage].v[t][p.at]) + shift;
        const float dyt = widen(shared.dy[stage].v[t][p.at]);
        const float gate = masked(widen(shared.z[stage].v[t][p.at]), gate_mask);
        // One reciprocal serves both sigmoids; the bound keeps the product finite.
        const float e = exp2_fast(-fabsf(raw) * LOG2E);
        const float below = 1.0f + e, gate_below = 1.0f + exp2_fast(fminf(-gate * LOG2E, 100.0f));
        const float both = reciprocal(below * gate_below);
        const float s = both * below;
        const float silu = gate * s;
        const float dsilu = masked(fmaf(silu, 1.0f - s, s), gate_mask);
        const float open = masked(silu, gate_mask) + (gate_mask ? 0.0f : 1.0f);
        const bool valid = chunk * CHUNK + t < time;
        const float step = fmaf(log1p_unit(e), softplus.share, fmaxf(raw, softplus.low));
        const float slope = fmaf(both * gate_below * (raw < 0.0f ? e : 1.0f), softplus.share, 1.0f - softplus.share);
        const float kept = valid ? step : 0.0f;
        scalars[i] = make_float4(kept, kept * xt, dyt * open, valid ? slope : 0.0f);
        gates[i] = make_float2(dyt * dsilu, open);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        shared.scalars[t0 + 2 * i][p.at] = scalars[i];
        shared.gates[t0 + 2 * i][p.at] = gates[i];
      }
    }
    __syncwarp();

    // The states where each group begins.
#pragma unroll 1
    for (int group = 0; group < GROUPS - 1; ++group) {
      store_states(shared.states[group], h, lane);
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        const int t = group * GROUP + i;
        float bs[QUARTER];
        read4(bs, &shared.pairs[t][p.quarter]);
        const float2 own = *(const float2*)&shared.scalars[t][p.at];
        const float2 other = *(const float2*)&shared.scalars[t][p.at ^ 8];
#pragma unroll
        for (int j = 0; j < QUARTER; ++j) {
          h[0][j] = fmaf(exp2_fast(own.x * rate[0][j]), h[0][j], own.y * bs[j]);
          h[1][j] = fmaf(exp2_fast(other.x * rate[1][j]), h[1][j], other.y * bs[j]);
        }
      }
    }

#pragma unroll 1
    for (int group = GROUPS - 1; group >= 0; --group) {
      const int t0 = group * GROUP;
      if (group < GROUPS - 1) load_states(h, shared.states[group], lane);
      // Of each step: the decays, the decayed states, the scalars of both channels.
      float decays[GROUP][2][QUARTER], decayed[GROUP][2][QUARTER];
      float4 own[GROUP], other[GROUP];
      float open[GROUP];
      float bs[QUARTER], cs[QUARTER];
      // Reads come a step before their use, and before the stores that the compiler would keep them behind.
      auto read = [&](int t) {
        read4(bs, &shared.pairs[t][p.quarter]);
        read4(cs, &shared.pairs[t][STATES + p.quarter]);
      };
      own[0] = shared.scalars[t0][p.at];
      other[0] = shared.scalars[t0][p.at ^ 8];
      read(t0);
#pragma unroll
      for (int i = 0; i < GROUP; ++i) {
        float now_b[QUARTER], now_c[QUARTER], to_c[QUARTER];
#pragma unroll
        for (int j = 0; j < QUARTER; ++j) now_b[j] = bs[j], now_c[j] = cs[j];
        if (i + 1 < GROUP) {
          own[i + 1] = shared.scalars[t0 + i + 1][p.at];
          other[i + 1] = shared.scalars[t0 + i + 1][p.at ^ 8];
          read(t0 + i + 1);
        }
        float out[2] = {0.0f, 0.0f};
#pragma unroll
        for (int j = 0; j < QUARTER; ++j) {
          decays[i][0][j] = exp2_fast(own[i].x * rate[0][j]);
          decays[i][1][j] = exp2_fast(other[i].x * rate[1][j]);
          decayed[i][0][j] = decays[i][0][j] * h[0][j];
          decayed[i][1][j] = decays[i][1][j] * h[1][j];
          h[0][j] = fmaf(own[i].y, now_b[j], decayed[i][0][j]);
          h[1][j] = fmaf(other[i].y, now_b[j], decayed[i][1][j]);
          out[0] = fmaf(h[0][j], now_c[j], out[0]);
          out[1] = fmaf(h[1][j], now_c[j], out[1]);
          to_c[j] = fmaf(other[i].z, h[1][j], own[i].z * h[0][j]);
        }
        open[i] = gather(out[0], out[1]);
        const float4 sums = sum_four_lanes(to_c, ones);
        if (lane % 4 == 0) shared.sums[t0 + i][sums_at(lane / 4 % 2, 1, lane / 8)] = sums;
      }
      float drives[2], dsteps[2];
#pragma unroll
      for (int i = GROUP - 1; i >= 0; --i) {
        float now_b[QUARTER], now_c[QUARTER], to_b[QUARTER];
#pragma unroll
        for (int j = 0; j < QUARTER; ++j) now_b[j] = bs[j], now_c[j] = cs[j];
        if (i > 0) read(t0 + i - 1);
        float ddrive[2] = {0.0f, 0.0f}, dstep[2] = {0.0f, 0.0f};
#pragma unroll
        for (int j = 0; j < QUARTER; ++j) {
          const float to_own = fmaf(own[i].z, now_c[j], dh[0][j]), to_other = fmaf(other[i].z, now_c[j], dh[1][j]);
          to_b[j] = fmaf(to_other, other[i].y, to_own * own[i].y);
          ddrive[0] = fmaf(to_own, now_b[j], ddrive[0]);
          ddrive[1] = fmaf(to_other, now_b[j], ddrive[1]);
          const float own_exponent = to_own * decayed[i][0][j], other_exponent = to_other * decayed[i][1][j];
          dh[0][j] = to_own * decays[i][0][j];
          dh[1][j] = to_other * decays[i][1][j];
          dstep[0] = fmaf(own_exponent, rate[0][j], dstep[0]);
          dstep[1] = fmaf(other_exponent, rate[1][j], dstep[1]);
          drate[0][j] = fmaf(own_exponent, own[i].x, drate[0][j]);
          drate[1][j] = fmaf(other_exponent, other[i].x, drate[1][j]);
        }
        drives[i % 2] = gather(ddrive[0], ddrive[1]);
        dsteps[i % 2] = gather(dstep[0], dstep[1]);
        const float4 sums = sum_four_lanes(to_b, ones);
        if (lane % 4 == 0) shared.sums[t0 + i][sums_at(lane / 4 % 2, 0, lane / 8)] = sums;

        if (i % 2 == 0) {
          // Two steps are done; each lane finishes one of them for its own channel.
          const int t = t0 + i + p.second;
          const float drive_total = gather(drives[0], drives[1], p.second);
          const float step_total = gather(dsteps[0], dsteps[1], p.second) * LN2;
          const float4 scalars = shared.scalars[t][p.at];
          const float2 gates = shared.gates[t][p.at];
          const float xt = widen(shared.x[stage].v[t][p.at]);
          const float before_gate = fmaf(through, xt, gather(open[i], open[i + 1], p.second));
          const float raw_total = fmaf(drive_total, xt, step_total) * scalars.w;
          // The results take the inputs' places.
          shared.dy[stage].v[t][p.at] = narrow(fmaf(drive_total, scalars.x, scalars.z * through));
          shared.delta[stage].v[t][p.at] = narrow(raw_total);
          shared.z[stage].v[t][p.at] = narrow(gates.x * before_gate);
          shared.x[stage].v[t][p.at] = narrow(gates.y * before_gate);
          sum_skip = fmaf(scalars.z, xt, sum_skip);
          sum_bias += raw_total;
        }
      }
    }

    // The block's warps together, in their order.
    __syncthreads();
    {
      const int rows = time - chunk * CHUNK;
      const long long row = p.row * time + chunk * CHUNK + m.row;
      const long long at = row * channels + p.base + m.at;
      store_rows(shared.dy[stage], dx + at, channels, rows, inside, m);
      store_rows(shared.delta[stage], ddelta + at, channels, rows, inside, m);
      if (z) store_rows(shared.z[stage], dz + row * dz_stride + p.base + m.at, dz_stride, rows, inside, m);
      if (y_again) store_rows(shared.x[stage], y_again + at, channels, rows, inside, m);
    }
    for (int i = threadIdx.x; i < CHUNK * 2 * STATES / 4; i += WARPS * LANES) {
      // Four states of dB or dC of a step.
      const int t = i / 8;
      float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
      for (int w = 0; w < WARPS; ++w) {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const float4 v = ((BackwardShared*)memory)[w].sums[t][sums_at(k, i % 8 / 4, i % 4)];
          sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
        }
      }
      if (chunk * CHUNK + t < time) {
        const long long row = (blockIdx.x * (long long)gridDim.y + p.row) * time + chunk * CHUNK + t;
        ((float4*)dbc)[row * 8 + i % 8] = sum;
      }
    }
    __syncthreads();
  }
  copies_wait<0>();
  const long long slot = p.row * p.segments + p.segment;
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    const int d = q ? p.other : p.own;
    if (d < channels) {
      *(float4*)&da[(slot * channels + d) * STATES + p.quarter] =
          make_float4(drate[q][0], drate[q][1], drate[q][2], drate[q][3]);
    }
  }
  sum_skip += __shfl_xor_sync(ALL, sum_skip, 16);
  sum_bias += __shfl_xor_sync(ALL, sum_bias, 16);
  if (mine && lane < WIDTH) {
    dskip[slot * channels + p.own] = sum_skip;
    dbias[slot * channels + p.own] = sum_bias;
  }
}

// Adds the partial sums of scan_backward in their order. Blocks of 256: first those of dB and dC, one thread a value
// (rows * 32 threads), then those of dA, dD and the bias, (16 + 2) d threads. Outputs may be null.
extern "C" __global__ void scan_backward_sums(const float* dbc, const float* da, const float* dskip, const float* dbias,
                                              element* db, int db_stride, element* dc, int dc_stride, float* da_out,
                                              float* dskip_out, float* dbias_out, int blocks, int slots, int rows,
                                              int channels) {
  const int pair_blocks = (int)(((long long)rows * 2 * STATES + blockDim.x - 1) / blockDim.x);
  if (blockIdx.x < pair_blocks) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)rows * 2 * STATES) return;
    float sum = 0.0f;
#pragma unroll 8
    for (int k = 0; k < blocks; ++k) sum += dbc[(long long)k * rows * 2 * STATES + i];
    const long long row = i / (2 * STATES);
    const int n = (int)(i % (2 * STATES));
    if (n < STATES) {
      db[row * db_stride + n] = narrow(sum);
    } else {
      dc[row * dc_stride + n - STATES] = narrow(sum);
    }
    return;
  }
  const int i = (blockIdx.x - pair_blocks) * blockDim.x + threadIdx.x;
  const float* from;
  float* to;
  int at, width;
  if (i < channels * STATES) {
    from = da, to = da_out, at = i, width = channels * STATES;
  } else if (i < channels * (STATES + 1)) {
    from = dskip, to = dskip_out, at = i - channels * STATES, width = channels;
  } else if (i < channels * (STATES + 2)) {
    from = dbias, to = dbias_out, at = i - channels * (STATES + 1), width = channels;
  } else {
    return;
  }
  if (!to) return;
  float sum = 0.0f;
  for (int k = 0; k < slots; ++k) sum += from[(long long)k * width + at];
  to[at] = sum;
}
