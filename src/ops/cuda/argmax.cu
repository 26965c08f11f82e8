// The place of the largest value of each row; of equal ones the first.

struct Best {
  float value;
  int place;
};

__device__ __forceinline__ Best better(Best a, Best b) {
  const bool second = b.value > a.value || (b.value == a.value && b.place < a.place);
  return second ? b : a;
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Best other = {__shfl_xor_sync(ALL, best.value, offset), __shfl_xor_sync(ALL, best.place, offset)};
    best = better(best, other);
  }
  return best;
}

// grid rows, block 1024. x [rows, columns].
extern "C" __global__ void __launch_bounds__(1024) argmax(const float* x, i64* places, int columns) {
  let_next_start();
  await_previous();
  __shared__ Best of_warps[32];
  const float* row = x + (i64)blockIdx.x * columns;
  Best best = {-__uint_as_float(0x7f800000u), 0x7fffffff};
#pragma unroll 4
  for (int i = threadIdx.x; i < columns; i += 1024) best = better(best, {row[i], i});
  best = warp_best(best);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  best = warp_best(of_warps[threadIdx.x]);
  if (threadIdx.x == 0) places[blockIdx.x] = min(best.place, columns - 1);
}
