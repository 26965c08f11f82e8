// y = x Wᵀ for a few rows of x, bf16 with fp32 sums: what decoding does with every weight, once for each token. All of W
// is read and nothing is used twice, so that reading is all that counts.
//
// A block owns 16 outputs (or the 16 gates and 16 ups of an MLP) and its warps divide the inputs among them, SPAN at a
// time. Weights come to shared memory asynchronously, STAGES turns of a warp ahead and from before x is there; they take no
// registers meanwhile, so that the blocks of the next product find room beside these and read ahead too. In the tensor
// cores' product the outputs are the rows and x the columns. Which inputs stand side by side does not matter to a sum as
// long as both sides agree: a lane takes eight neighbouring inputs of a row, 16 bytes, and uses them in two products.

#define MOST_WARPS 8
#define ROWS 16
// Inputs of a warp's turn: 128 bytes of a row, eight pieces of 16.
#define SPAN 64
#define PIECES 8

extern __shared__ uint4 memory[];

// c [16 outputs, 8 rows of x] += a b.
__device__ __forceinline__ void multiply_add(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void copy(uint4* to, const bf16* from, bool valid) {
  const unsigned at = (unsigned)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

// A step of the residual stream in front of the product: x' = x + branch_scale h, and its root mean square norm times gain
// and out_scale is what is multiplied. Every block works it out, the first one writes x' down.
struct Residual {
  const float* x;
  const bf16* h;
  const float* gain;
  float* x_out;
  float branch_scale, out_scale;
};
#define EPSILON 1e-5f
// Packs of all rows that a thread holds.
#define HELD 4

// The normed rows, [rows, width] of bf16, at `to`. width a multiple of 256, rows * width at most HELD * 2048; a block of 256.
__device__ __forceinline__ void norm_rows(const Residual& r, int rows, int width, bf16* to) {
  __shared__ float sums[HELD][MOST_WARPS];
  const int per_row = width / PACK, packs = rows * per_row;
  float v[HELD][PACK], g[HELD][PACK];
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int p = threadIdx.x + i * MOST_WARPS * 32;
    if (p < packs) read_values<true>(g[i], r.gain + p % per_row * PACK, PACK);
  }
  await_previous();
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int p = threadIdx.x + i * MOST_WARPS * 32;
    float squares = 0.0f;
    if (p < packs) {
      read_values<true>(v[i], r.x + (i64)p * PACK, PACK);
      if (r.h) {
        float b[PACK];
        read_values<true>(b, r.h + (i64)p * PACK, PACK);
#pragma unroll
        for (int e = 0; e < PACK; ++e) v[i][e] += rounded<bf16>(r.branch_scale * b[e]);
        if (blockIdx.x == 0) write_pack<true>(r.x_out + (i64)p * PACK, v[i], PACK);
      }
#pragma unroll
      for (int e = 0; e < PACK; ++e) squares += v[i][e] * v[i][e];
    }
    if (i * MOST_WARPS * 32 < packs) {
      squares = warp_sum(squares);
      if (threadIdx.x % 32 == 0) sums[i][threadIdx.x / 32] = squares;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int p = threadIdx.x + i * MOST_WARPS * 32;
    if (p < packs) {
      const int row = p / per_row, first = row * per_row / 32, warps = per_row / 32;
      float squares = 0.0f;
      for (int w = first; w < first + warps; ++w) squares += sums[w / MOST_WARPS][w % MOST_WARPS];
      const float scale = rsqrtf(squares / width + EPSILON) * r.out_scale;
#pragma unroll
      for (int e = 0; e < PACK; ++e) v[i][e] *= scale * g[i][e];
      write_pack<true>(to + (i64)p * PACK, v[i], PACK);
    }
  }
  __syncthreads();
}

// Y: of the outputs, which are rounded to bf16 either way. TILES: eights of rows of x. HALVES: 2 for gates and ups. AHEAD:
// turns whose x is in registers. NORM: x is the norm of `residual`.
template <class Y, int TILES, int HALVES, int STAGES, int AHEAD, bool NORM>
struct Skinny {
  const bf16 *x, *w;
  Y* y;
  int rows, inputs, outputs;
  i64 x_stride;
  Residual residual;

  // Weights of a turn, and a lane's part of x.
  typedef uint4 Stage[HALVES * ROWS][PIECES];
  typedef uint4 Inputs[TILES][2];
  // Of each warp: its sums, in rows of one more than they need, so that columns lie in different banks.
  typedef float Sums[HALVES][ROWS][8 * TILES + 1];

  // Where a piece of a row lies: turned so that what a warp reads together lies in different banks.
  static __device__ __forceinline__ int turned(int row, int piece) { return piece ^ (row & 7); }
  static __device__ __forceinline__ int lane() { return threadIdx.x % 32; }
  static __device__ __forceinline__ int warp() { return threadIdx.x / 32; }
  static __device__ __forceinline__ int warps() { return blockDim.x / 32; }
  __device__ __forceinline__ int first() const { return blockIdx.x * ROWS; }
  __device__ __forceinline__ int turns() const { return (inputs + warps() * SPAN - 1) / (warps() * SPAN); }
  __device__ __forceinline__ int from(int turn) const { return (turn * warps() + warp()) * SPAN; }

  // Asks for the weights of a turn; past the last one for nothing.
  __device__ __forceinline__ void fetch(Stage& stage, int turn) const {
    if (turn < turns()) {
      const int piece = lane() % PIECES, k = from(turn) + piece * 8;
#pragma unroll
      for (int i = 0; i < HALVES * ROWS / 4; ++i) {
        const int row = i * 4 + lane() / PIECES;
        const int output = row / ROWS * outputs + min(first() + row % ROWS, outputs - 1);
        copy(&stage[row][turned(row, piece)], w + (i64)output * inputs + (k < inputs ? k : 0), k < inputs);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  // A lane's pieces of a turn are 2 (lane % 4) and the one behind it.
  __device__ __forceinline__ void read(Inputs& to, int turn) const {
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        const int k = from(turn) + (lane() % 4 * 2 + p) * 8, row = t * 8 + lane() / 4;
        to[t][p] = k < inputs && row < rows ? *(const uint4*)(x + row * x_stride + k) : make_uint4(0, 0, 0, 0);
      }
  }

  __device__ __forceinline__ void multiply(float (&c)[HALVES][TILES][4], const Stage& stage, const Inputs& v) const {
#pragma unroll
    for (int h = 0; h < HALVES; ++h)
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        const int row = h * ROWS + lane() / 4, piece = lane() % 4 * 2 + p;
        const uint4 low = stage[row][turned(row, piece)], high = stage[row + 8][turned(row + 8, piece)];
#pragma unroll
        for (int t = 0; t < TILES; ++t) {
          multiply_add(c[h][t], low.x, high.x, low.y, high.y, v[t][p].x, v[t][p].y);
          multiply_add(c[h][t], low.z, high.z, low.w, high.w, v[t][p].z, v[t][p].w);
        }
      }
  }

  // Adds up what the warps have and writes it.
  __device__ __forceinline__ void finish(const float (&c)[HALVES][TILES][4]) const {
    Sums* sums = (Sums*)memory;
    // The weights that lay there have been read.
    __syncthreads();
#pragma unroll
    for (int h = 0; h < HALVES; ++h)
#pragma unroll
      for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums[warp()][h][lane() / 4 + i / 2 * 8][t * 8 + lane() % 4 * 2 + i % 2] = c[h][t][i];
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * rows; i += blockDim.x) {
      const int output = i % ROWS, row = i / ROWS;
      if (first() + output >= outputs) continue;
      float total[HALVES];
#pragma unroll
      for (int h = 0; h < HALVES; ++h) {
        total[h] = 0.0f;
        for (int s = 0; s < warps(); ++s) total[h] += sums[s][h][output][row];
        total[h] = rounded<bf16>(total[h]);
      }
      // Gates and ups as if both had been to memory.
      if constexpr (HALVES == 2) total[0] = rounded<bf16>(total[0] * sigmoid<bf16>(total[0]) * total[1]);
      narrow(y[(i64)row * outputs + first() + output], total[0]);
    }
  }

  __device__ __forceinline__ void run() {
    Stage* stages = (Stage*)memory + warp() * STAGES;
    let_next_start();
#pragma unroll
    for (int i = 0; i < STAGES - 1; ++i) fetch(stages[i], i);
    if constexpr (NORM) {
      bf16* normed = (bf16*)((Stage*)memory + warps() * STAGES);
      norm_rows(residual, rows, inputs, normed);
      x = normed;
      x_stride = inputs;
    } else {
      await_previous();
    }
    Inputs arrived[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) read(arrived[i], i);
    float c[HALVES][TILES][4];
#pragma unroll
    for (int i = 0; i < HALVES * TILES * 4; ++i) c[i / (TILES * 4)][i / 4 % TILES][i % 4] = 0.0f;
    int now = 0, next = STAGES - 1;
    for (int start = 0; start < turns(); start += AHEAD) {
#pragma unroll
      for (int i = 0; i < AHEAD; ++i) {
        const int turn = start + i;
        if (turn >= turns()) break;
        fetch(stages[next], turn + STAGES - 1);
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 1) : "memory");
        __syncwarp();
        multiply(c, stages[now], arrived[i]);
        read(arrived[i], turn + AHEAD);
        now = now + 1 == STAGES ? 0 : now + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
        // A stage is filled again only when all lanes have read it.
        __syncwarp();
      }
    }
    finish(c);
  }
};

// grid ceil(outputs / 16), block whole warps, at most MOST_WARPS, shared STAGES * HALVES * 2048 bytes for each. x [rows,
// inputs] with a stride between rows, at most 8 * TILES rows; w [HALVES * outputs, inputs], gates first; y [rows, outputs];
// inputs and strides multiples of eight.
#define PRODUCT(NAME, Y, TILES, HALVES, STAGES, AHEAD)                                                  \
  extern "C" __global__ void __launch_bounds__(MOST_WARPS * 32, 2)                                      \
      NAME(const bf16* x, const bf16* w, Y* y, int rows, int inputs, int outputs, i64 x_stride) {       \
    Skinny<Y, TILES, HALVES, STAGES, AHEAD, false>{x, w, y, rows, inputs, outputs, x_stride, {}}.run(); \
  }
PRODUCT(skinny_linear_8, bf16, 1, 1, 5, 4)
PRODUCT(skinny_linear_16, bf16, 2, 1, 5, 2)
PRODUCT(skinny_logits_8, float, 1, 1, 5, 4)
PRODUCT(skinny_logits_16, float, 2, 1, 5, 2)
PRODUCT(skinny_swiglu_8, bf16, 1, 2, 3, 4)
PRODUCT(skinny_swiglu_16, bf16, 2, 2, 3, 2)

// The same of a norm: block MOST_WARPS warps, shared 2 * rows * inputs bytes more; x and x_out fp32 [rows, inputs], h bf16
// or null, gain fp32. At most 8 rows and HELD * 2048 values of x; inputs a multiple of 256.
#define NORMED_PRODUCT(NAME, HALVES, STAGES)                                                                         \
  extern "C" __global__ void __launch_bounds__(MOST_WARPS * 32, 2)                                                   \
      NAME(const float* x, const bf16* h, const float* gain, float* x_out, const bf16* w, bf16* y, float branch_scale, \
           float out_scale, int rows, int inputs, int outputs) {                                                     \
    const Residual residual = {x, h, gain, x_out, branch_scale, out_scale};                                          \
    Skinny<bf16, 1, HALVES, STAGES, 1, true>{nullptr, w, y, rows, inputs, outputs, 0, residual}.run();               \
  }
NORMED_PRODUCT(skinny_norm_linear, 1, 5)
NORMED_PRODUCT(skinny_norm_swiglu, 2, 3)
