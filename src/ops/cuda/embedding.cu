// Gradient of an embedding without atomics: dw[token] += sum of the rows of dx that read it. The rows come sorted by
// token, as a list of tokens and the row of dx of each, and are cut into pieces of PIECE however long a token's run is.
// A piece adds the runs that lie inside it to dw; what it has of a run that reaches over its edge it leaves in `part`,
// and the second kernel joins those in order.

#define PIECE 32
// Rows loaded together.
#define AHEAD 8
#define QUAD 4

template <bool VECTOR>
__device__ __forceinline__ float4 read_quad(const float* p, int count) {
  if constexpr (VECTOR) return *(const float4*)p;
  float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  v.x = p[0];
  if (count > 1) v.y = p[1];
  if (count > 2) v.z = p[2];
  if (count > 3) v.w = p[3];
  return v;
}

template <bool VECTOR>
__device__ __forceinline__ void write_quad(float* p, const float4& v, int count) {
  if constexpr (VECTOR) {
    *(float4*)p = v;
  } else {
    p[0] = v.x;
    if (count > 1) p[1] = v.y;
    if (count > 2) p[2] = v.z;
    if (count > 3) p[3] = v.w;
  }
}

__device__ __forceinline__ float4 operator+(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// token[i] and row[i] are those of position i - 1 and i of the piece; -1 outside the list.
template <bool VECTOR>
__device__ __forceinline__ void add_piece(const i64* token, const i64* row, const float* dx, float* dw, float* part,
                                          int count, int width) {
  const int column = (blockIdx.y * blockDim.x + threadIdx.x) * QUAD;
  if (column >= width) return;
  const int left = width - column;
  float* edges = part + (i64)blockIdx.x * 2 * width + column;
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  // Of the current run.
  bool open = token[0] == token[1];
  for (int first = 0; first < count; first += AHEAD) {
    float4 v[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      if (first + i < count) v[i] = read_quad<VECTOR>(dx + row[first + i] * width + column, left);
    }
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      const int k = first + i;
      if (k < count) {
        sum = sum + v[i];
        const i64 now = token[k + 1];
        const bool more = now == token[k + 2];
        if (!more || k == count - 1) {
          if (open) {
            write_quad<VECTOR>(edges, sum, left);
          } else if (more) {
            write_quad<VECTOR>(edges + width, sum, left);
          } else {
            float* to = dw + now * width + column;
            write_quad<VECTOR>(to, read_quad<VECTOR>(to, left) + sum, left);
          }
          sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
          open = false;
        }
      }
    }
  }
}

// part: [pieces, 2, width], first what belongs to a run begun before the piece, second what begins a run that goes on
// after it. grid (pieces, ceil(width / 1024)), block 256.
extern "C" __global__ void __launch_bounds__(256) embedding_pieces(const float* dx, const i64* tokens, const i64* order,
                                                                   float* dw, float* part, i64 rows, int width) {
  __shared__ i64 token[PIECE + 2], row[PIECE];
  const i64 start = (i64)blockIdx.x * PIECE;
  const int count = (int)min((i64)PIECE, rows - start);
  if (threadIdx.x < PIECE + 2) {
    const i64 at = start + threadIdx.x - 1;
    token[threadIdx.x] = at >= 0 && at < rows ? tokens[at] : -1;
  }
  if (threadIdx.x < count) row[threadIdx.x] = order[start + threadIdx.x];
  __syncthreads();
  if (width % QUAD == 0 && aligned(dx) && aligned(dw) && aligned(part)) {
    add_piece<true>(token, row, dx, dw, part, count, width);
  } else {
    add_piece<false>(token, row, dx, dw, part, count, width);
  }
}

template <bool VECTOR>
__device__ __forceinline__ float4 add_edges(const float* part, int pieces, int width, int column) {
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (column >= width) return sum;
  const int left = width - column;
  if (threadIdx.y == 0) sum = read_quad<VECTOR>(part + (i64)blockIdx.x * 2 * width + width + column, left);
#pragma unroll 4
  for (int i = 1 + threadIdx.y; i <= pieces; i += blockDim.y) {
    sum = sum + read_quad<VECTOR>(part + ((i64)blockIdx.x + i) * 2 * width + column, left);
  }
  return sum;
}

// The block of the piece where a run of several pieces begins joins the run.
// grid (pieces, ceil(width / 128)), block (32, 8).
extern "C" __global__ void __launch_bounds__(256)
    embedding_joins(const i64* tokens, const float* part, float* dw, i64 rows, int width) {
  __shared__ float4 sums[8][32];
  const i64 start = (i64)blockIdx.x * PIECE;
  const i64 next = start + PIECE;
  if (next >= rows) return;
  const i64 token = tokens[next];
  if (tokens[next - 1] != token) return;
  if (start > 0 && tokens[start - 1] == token) return;
  // Pieces after this one that the run reaches.
  int pieces = 0;
  for (;;) {
    const i64 at = next + ((i64)pieces + threadIdx.y * 32 + threadIdx.x) * PIECE;
    const int reached = __syncthreads_count(at < rows && tokens[at] == token);
    pieces += reached;
    if (reached < 256) break;
  }
  const int column = (blockIdx.y * 32 + threadIdx.x) * QUAD;
  const bool vector = width % QUAD == 0 && aligned(part) && aligned(dw);
  sums[threadIdx.y][threadIdx.x] =
      vector ? add_edges<true>(part, pieces, width, column) : add_edges<false>(part, pieces, width, column);
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  float4 total = sums[0][threadIdx.x];
  for (int y = 1; y < 8; ++y) total = total + sums[y][threadIdx.x];
  float* to = dw + token * width + column;
  if (vector) {
    write_quad<true>(to, read_quad<true>(to, QUAD) + total, QUAD);
  } else {
    write_quad<false>(to, read_quad<false>(to, width - column) + total, width - column);
  }
}
