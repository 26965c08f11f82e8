// y = x Wᵀ for a few rows of x, bf16 with fp32 sums: what decoding does with every weight, once for each token. All of W
// is read and nothing is used twice, so that reading is all that counts.
//
// A block owns 16 outputs (or the 16 gates and 16 ups of an MLP) and its warps divide the inputs among them. In the tensor
// cores' product the outputs are the rows and x the columns. Which inputs stand side by side does not matter to a sum as
// long as both sides agree: each lane reads eight neighbouring inputs of a row, 16 bytes, and uses them in two products.
// The first weights are asked for before x is there.

#define MOST_WARPS 16
#define ROWS 16
// Inputs of a warp's turn.
#define SPAN 32

// Of each warp: its sums, in rows of one more than they need, so that columns lie in different banks.
extern __shared__ float memory[];

// c [16 outputs, 8 rows of x] += a b.
__device__ __forceinline__ void multiply_add(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Read once and not kept near.
__device__ __forceinline__ uint4 stream(const bf16* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}

// TILES: eights of rows of x. HALVES: 2 for gates and ups. AHEAD: turns whose weights are in flight together.
template <int TILES, int HALVES, int AHEAD>
struct Skinny {
  const bf16 *x, *w;
  bf16* y;
  int rows, inputs, outputs;
  i64 x_stride;
  // Of a lane: its group of four, and its first input of a turn.
  int group, at;
  uint4 weights[AHEAD][HALVES][2];
  float c[HALVES][TILES][4];

  __device__ __forceinline__ int step() const { return blockDim.x / 32 * SPAN; }

  // Weights of the turns from k0 on.
  __device__ __forceinline__ void fetch(int k0) {
#pragma unroll
    for (int turn = 0; turn < AHEAD; ++turn) {
      const int k = k0 + turn * step() + at;
#pragma unroll
      for (int h = 0; h < HALVES; ++h)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int output = min((int)blockIdx.x * ROWS + group + 8 * i, outputs - 1);
          weights[turn][h][i] =
              k < inputs ? stream(w + (i64)(h * outputs + output) * inputs + k) : make_uint4(0, 0, 0, 0);
        }
    }
  }

  __device__ __forceinline__ void multiply(int k0) {
#pragma unroll
    for (int turn = 0; turn < AHEAD; ++turn) {
      const int k = k0 + turn * step() + at;
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
        const int row = t * 8 + group;
        const uint4 v = k < inputs && row < rows ? *(const uint4*)(x + row * x_stride + k) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int h = 0; h < HALVES; ++h) {
          const uint4 &low = weights[turn][h][0], &high = weights[turn][h][1];
          multiply_add(c[h][t], low.x, high.x, low.y, high.y, v.x, v.y);
          multiply_add(c[h][t], low.z, high.z, low.w, high.w, v.z, v.w);
        }
      }
    }
  }

  __device__ __forceinline__ void run() {
    typedef float Sums[HALVES][ROWS][8 * TILES + 1];
    Sums* sums = (Sums*)memory;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int first = blockIdx.x * ROWS;
    group = lane / 4;
    at = lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < HALVES * TILES * 4; ++i) c[i / (TILES * 4)][i / 4 % TILES][i % 4] = 0.0f;
    let_next_start();
    int k0 = warp * SPAN;
    fetch(k0);
    await_previous();
    while (k0 < inputs) {
      multiply(k0);
      k0 += AHEAD * step();
      if (k0 < inputs) fetch(k0);
    }
#pragma unroll
    for (int h = 0; h < HALVES; ++h)
#pragma unroll
      for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[warp][h][group + i / 2 * 8][t * 8 + lane % 4 * 2 + i % 2] = c[h][t][i];
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * rows; i += blockDim.x) {
      const int output = i % ROWS, row = i / ROWS;
      if (first + output >= outputs) continue;
      float total[HALVES];
#pragma unroll
      for (int h = 0; h < HALVES; ++h) {
        total[h] = 0.0f;
        for (int s = 0; s < warps; ++s) total[h] += sums[s][h][output][row];
      }
      bf16& to = y[(i64)row * outputs + first + output];
      if constexpr (HALVES == 2) {
        // As if both halves had been to memory.
        const float gate = rounded<bf16>(total[0]), up = rounded<bf16>(total[1]);
        narrow(to, gate * sigmoid<bf16>(gate) * up);
      } else {
        narrow(to, total[0]);
      }
    }
  }
};

// grid ceil(outputs / 16), block at most 512, whole warps, shared 16 * 17 floats for each (twice that for gates and ups). x [rows, inputs] with a stride between rows, at most 16 rows; w
// [outputs, inputs], y [rows, outputs]; inputs and strides multiples of eight.
extern "C" __global__ void __launch_bounds__(MOST_WARPS * 32)
    skinny_linear(const bf16* x, const bf16* w, bf16* y, int rows, int inputs, int outputs, i64 x_stride) {
  if (rows <= 8) {
    Skinny<1, 1, 8>{x, w, y, rows, inputs, outputs, x_stride}.run();
  } else {
    Skinny<2, 1, 4>{x, w, y, rows, inputs, outputs, x_stride}.run();
  }
}

// silu(gate) up of w [2 outputs, inputs], gates first. Block at most 256.
extern "C" __global__ void __launch_bounds__(MOST_WARPS * 16)
    skinny_swiglu(const bf16* x, const bf16* w, bf16* y, int rows, int inputs, int outputs, i64 x_stride) {
  if (rows <= 8) {
    Skinny<1, 2, 4>{x, w, y, rows, inputs, outputs, x_stride}.run();
  } else {
    Skinny<2, 2, 4>{x, w, y, rows, inputs, outputs, x_stride}.run();
  }
}
