// One query of each sequence over a cache of keys and values, bf16 with softmax and sums in fp32.
//
// A block has one sequence, one key head with the queries that share it, and a part of the positions; each of its warps
// takes every fourth sixteen of them. Keys and values come to shared memory asynchronously, STAGES sixteens of a warp at a
// time, and are multiplied on the tensor cores with the queries as rows. Warps keep their own maxima and sums; what they
// found is put together in the block, and the parts' by the last block of a head that is done.
//
// Compiled for a width of heads, WIDTH, and values of one head or, in differential attention, of both heads of a pair,
// VALUES.

#define WARPS 4
#define KEYS 16
#define QUERIES 16
#define STAGES 3
#define LOG2E 1.4426950408889634f
// Pieces of 16 bytes in a row of a head.
#define PIECES (WIDTH / 8)
#define COLUMNS (VALUES * WIDTH)

struct Stage {
  uint4 k[KEYS][PIECES];
  uint4 v[VALUES][KEYS][PIECES];
};

extern __shared__ uint4 memory[];

// Where a piece of a row lies: turned so that eight rows' pieces lie in different banks.
__device__ __forceinline__ int turned(int row, int piece) { return piece ^ (row & 7); }

__device__ __forceinline__ void copy(uint4* to, const bf16* from, bool valid) {
  const unsigned at = (unsigned)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(valid ? 16 : 0) : "memory");
}

__device__ __forceinline__ void multiply_add(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 by 8 matrices from the rows that lanes point to.
__device__ __forceinline__ void load_matrices(u32 (&r)[4], const uint4* row) {
  const unsigned at = (unsigned)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
__device__ __forceinline__ void load_transposed(u32 (&r)[4], const uint4* row) {
  const unsigned at = (unsigned)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// What is known of a row of queries: the largest score in powers of two, and the sum of what it is the measure of.
struct Softmax {
  float largest, sum;
};

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(ALL, x, 1);
  return x + __shfl_xor_sync(ALL, x, 2);
}

// Elements between sequences, heads and slots.
struct Strides {
  i64 sequence, head, slot;
};

// The heads of a block: of keys, of queries (the first and the step to the next), of values and of outputs.
struct Heads {
  int key, query, query_step, value, out;
};

// Plain: heads in their order. Differential: even key heads against even query heads, odd against odd, both with the
// values of their pair; outputs are the maps (1, v1), (1, v2), (2, v1), (2, v2) of all pairs, one after the other.
__device__ __forceinline__ Heads heads_of(int key_head, int group, int query_heads) {
  Heads h;
  h.key = key_head;
  if (VALUES == 1) {
    h.query = key_head * group;
    h.query_step = 1;
    h.value = key_head;
    h.out = h.query;
  } else {
    const int map = key_head % 2, pair = key_head / 2;
    h.query = 2 * pair * group + map;
    h.query_step = 2;
    h.value = 2 * pair;
    h.out = map * query_heads + pair * group;
  }
  return h;
}

// grid (parts at most, key heads, sequences), block 128, shared WARPS * STAGES * sizeof(Stage). q [b, query heads, WIDTH]; out [b,
// VALUES * query heads, WIDTH]. partial: for each block, QUERIES rows of COLUMNS; softmaxes: QUERIES for each. done: one
// zero for each sequence and key head, zero again afterwards.
extern "C" __global__ void __launch_bounds__(WARPS * 32)
    cached_attention(const bf16* q, const bf16* k, const bf16* v, const i64* positions, bf16* out, float* partial,
                     Softmax* softmaxes, int* done, i64 sequence_stride, i64 head_stride, i64 slot_stride, int slots,
                     int query_heads, int group, float scale) {
  let_next_start();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int part = blockIdx.x, key_heads = gridDim.y;
  const i64 sequence = blockIdx.z;
  const Heads heads = heads_of(blockIdx.y, group, query_heads);
  const Strides strides = {sequence_stride, head_stride, slot_stride};
  const i64 position = positions[sequence];
  const int seen = (int)min(position + 1, (i64)slots);
  // A block goes round as often as it must, and twice at least, which costs less than putting parts together; those that
  // are not needed for that have nothing to do.
  const int turns = (seen + WARPS * KEYS - 1) / (WARPS * KEYS);
  const int rounds = max(min(turns, 2), (turns + (int)gridDim.x - 1) / (int)gridDim.x);
  const int parts = (turns + rounds - 1) / rounds;
  if (part >= parts) return;
  const int first = part * rounds * WARPS * KEYS;
  const int end = min(seen, first + rounds * WARPS * KEYS);

  Stage* stages = (Stage*)memory + warp * STAGES;
  const bf16* k_rows = k + sequence * strides.sequence + heads.key * strides.head;
  const bf16* v_rows = v + sequence * strides.sequence + heads.value * strides.head;
  auto slot_of = [&](int round) { return first + (round * WARPS + warp) * KEYS; };
  auto fetch = [&](int round) {
    const int slot = slot_of(round);
    if (round < rounds && slot < end) {
      Stage& stage = stages[round % STAGES];
#pragma unroll
      for (int i = 0; i < KEYS * PIECES / 32; ++i) {
        const int row = (i * 32 + lane) / PIECES, piece = (i * 32 + lane) % PIECES;
        const bool valid = slot + row < end;
        const i64 from = (i64)(valid ? slot + row : slot) * strides.slot + piece * 8;
        copy(&stage.k[row][turned(row, piece)], k_rows + from, valid);
#pragma unroll
        for (int h = 0; h < VALUES; ++h)
          copy(&stage.v[h][row][turned(row, piece)], v_rows + h * strides.head + from, valid);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };

  float sums[COLUMNS / 8][4];
#pragma unroll
  for (int i = 0; i < COLUMNS / 8; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] = 0.0f;
  const float nothing = __uint_as_float(0xff800000u);
  Softmax rows[2] = {{nothing, 0.0f}, {nothing, 0.0f}};
  const float factor = scale * LOG2E;

  // What earlier steps have stored is there already, as are positions: a step ends with kernels that start in turn. The new
  // position's keys and values are there after the wait.
  const int newest = (int)(position % slots);
  bool early = true;
#pragma unroll
  for (int round = 0; round < STAGES - 1; ++round) {
    early = early && (newest < slot_of(round) || newest >= slot_of(round) + KEYS);
    if (early) fetch(round);
  }
  await_previous();
  if (!early) {
    // Again from the beginning: it happens to one warp of all.
#pragma unroll
    for (int round = 0; round < STAGES - 1; ++round) fetch(round);
  }
  // Queries as rows, those past the group zero.
  u32 query[WIDTH / 16][4];
  const bf16* q_rows = q + (sequence * query_heads + heads.query) * WIDTH;
#pragma unroll
  for (int piece = 0; piece < WIDTH / 16; ++piece)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i % 2 * 8, column = piece * 16 + lane % 4 * 2 + i / 2 * 8;
      query[piece][i] = row < group ? *(const u32*)(q_rows + row * heads.query_step * WIDTH + column) : 0u;
    }

  for (int round = 0; round < rounds; ++round) {
    fetch(round + STAGES - 1);
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 1) : "memory");
    __syncwarp();
    const int slot = slot_of(round);
    if (slot < end) {
      const Stage& stage = stages[round % STAGES];
      // Scores of 16 keys, as two eights of columns.
      float scores[2][4] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
#pragma unroll
      for (int piece = 0; piece < WIDTH / 16; ++piece) {
        const int row = lane % 8 + lane / 16 * 8, from = piece * 2 + lane / 8 % 2;
        u32 keys[4];
        load_matrices(keys, &stage.k[row][turned(row, from)]);
        multiply_add(scores[0], query[piece], keys[0], keys[1]);
        multiply_add(scores[1], query[piece], keys[2], keys[3]);
      }
      u32 weights[4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float s[4] = {scores[0][2 * i], scores[0][2 * i + 1], scores[1][2 * i], scores[1][2 * i + 1]};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int key = slot + lane % 4 * 2 + j % 2 + j / 2 * 8;
          s[j] = key < end ? s[j] * factor : nothing;
        }
        const float largest = fmaxf(rows[i].largest, quad_max(fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3]))));
        const float shrink = exp2_fast(rows[i].largest - largest);
#pragma unroll
        for (int j = 0; j < 4; ++j) s[j] = exp2_fast(s[j] - largest);
        rows[i].sum = rows[i].sum * shrink + quad_sum((s[0] + s[1]) + (s[2] + s[3]));
        rows[i].largest = largest;
        weights[i] = round_pair(s[0], s[1]);
        weights[2 + i] = round_pair(s[2], s[3]);
#pragma unroll
        for (int c = 0; c < COLUMNS / 8; ++c) {
          sums[c][2 * i] *= shrink;
          sums[c][2 * i + 1] *= shrink;
        }
      }
#pragma unroll
      for (int h = 0; h < VALUES; ++h)
#pragma unroll
        for (int piece = 0; piece < PIECES; piece += 2) {
          const int row = lane % 16, from = piece + lane / 16;
          u32 values[4];
          load_transposed(values, &stage.v[h][row][turned(row, from)]);
          multiply_add(sums[h * PIECES + piece], weights, values[0], values[1]);
          multiply_add(sums[h * PIECES + piece + 1], weights, values[2], values[3]);
        }
    }
    // The stage is filled again only when all lanes have read it.
    __syncwarp();
  }
  asm volatile("cp.async.wait_group 0;" ::: "memory");

  // The warps of the block, through shared memory.
  __syncthreads();
  float* found = (float*)memory;
  __shared__ Softmax of_warps[WARPS][QUERIES];
  __shared__ bool is_last;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i;
    if (lane % 4 == 0) of_warps[warp][row] = rows[i];
    if (row < group) {
#pragma unroll
      for (int c = 0; c < COLUMNS / 8; ++c)
        *(float2*)&found[(warp * QUERIES + row) * COLUMNS + c * 8 + lane % 4 * 2] =
            make_float2(sums[c][2 * i], sums[c][2 * i + 1]);
    }
  }
  __syncthreads();
  const i64 head = sequence * key_heads + blockIdx.y;
  const i64 slot_of_head = head * gridDim.x;
  for (int i = threadIdx.x; i < group * COLUMNS; i += WARPS * 32) {
    const int row = i / COLUMNS, column = i % COLUMNS;
    float largest = nothing, sum = 0.0f, value = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) largest = fmaxf(largest, of_warps[w][row].largest);
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      const float share = exp2_fast(of_warps[w][row].largest - largest);
      sum += of_warps[w][row].sum * share;
      value += found[(w * QUERIES + row) * COLUMNS + column] * share;
    }
    if (parts == 1) {
      const int to = heads.out + row + column / WIDTH * (query_heads / 2);
      narrow(out[(sequence * VALUES * query_heads + to) * WIDTH + column % WIDTH], value / sum);
    } else {
      const i64 at = (slot_of_head + part) * QUERIES + row;
      partial[at * COLUMNS + column] = value;
      if (column == 0) softmaxes[at] = {largest, sum};
    }
  }
  if (parts == 1) return;
  // The last block of a head to come here has all parts before it.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(&done[head], 1) == parts - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  // What each part counts, [group, parts], in the place of what was found.
  float* shares = found;
  for (int row = warp; row < group; row += WARPS) {
    float largest = nothing, sum = 0.0f;
    for (int p = lane; p < parts; p += 32)
      largest = fmaxf(largest, __ldcg(&softmaxes[(slot_of_head + p) * QUERIES + row].largest));
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) largest = fmaxf(largest, __shfl_xor_sync(ALL, largest, offset));
    for (int p = lane; p < parts; p += 32) {
      const Softmax* of_part = &softmaxes[(slot_of_head + p) * QUERIES + row];
      const float share = exp2_fast(__ldcg(&of_part->largest) - largest);
      shares[row * parts + p] = share;
      sum += __ldcg(&of_part->sum) * share;
    }
    sum = warp_sum(sum);
    for (int p = lane; p < parts; p += 32) shares[row * parts + p] /= sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < group * COLUMNS; i += WARPS * 32) {
    const int row = i / COLUMNS, column = i % COLUMNS;
    const float* from = partial + (slot_of_head * QUERIES + row) * COLUMNS + column;
    float value = 0.0f;
#pragma unroll 8
    for (int p = 0; p < parts; ++p)
      value = fmaf(__ldcg(from + (i64)p * QUERIES * COLUMNS), shares[row * parts + p], value);
    const int to = heads.out + row + column / WIDTH * (query_heads / 2);
    narrow(out[(sequence * VALUES * query_heads + to) * WIDTH + column % WIDTH], value);
  }
  if (threadIdx.x == 0) done[head] = 0;
}
