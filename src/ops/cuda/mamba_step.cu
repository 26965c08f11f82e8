// One token of each sequence through the inner part of a Mamba layer: its convolution, and after the projections to step
// size, B and C the step of the state with the gate.

#define TAPS 4
#define STATES 16
#define CHANNELS 8

// y = silu(sum_k w_k x_{t-3+k} + bias) and the tail moves on by one. grid (ceil(channels / 128), b), block 128. x with a
// stride between sequences; tail [b, 3, channels], oldest first; w [channels, 4] and bias fp32; y [b, channels].
extern "C" __global__ void __launch_bounds__(128)
    conv_step(const VALUE* x, i64 x_stride, VALUE* tail, const float* w, const float* bias, VALUE* y, int channels) {
  let_next_start();
  await_previous();
  const int channel = blockIdx.x * 128 + threadIdx.x;
  if (channel >= channels) return;
  const i64 sequence = blockIdx.y;
  VALUE* kept = tail + sequence * (TAPS - 1) * channels + channel;
  VALUE inputs[TAPS];
#pragma unroll
  for (int i = 0; i < TAPS - 1; ++i) inputs[i] = kept[i * channels];
  inputs[TAPS - 1] = x[sequence * x_stride + channel];
  float sum = bias[channel];
#pragma unroll
  for (int i = 0; i < TAPS; ++i) sum = fmaf(w[channel * TAPS + i], widen(inputs[i]), sum);
#pragma unroll
  for (int i = 0; i < TAPS - 1; ++i) kept[i * channels] = inputs[i + 1];
  narrow(y[sequence * channels + channel], sum * sigmoid<VALUE>(sum));
}

__device__ __forceinline__ float sixteen_sum(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) x += __shfl_xor_sync(ALL, x, offset);
  return x;
}

// h = exp(step A) h + step x B; y = h C + D x, gated by silu(z). Sixteen threads have a channel: each one state, and a
// sixteenth of the product that gives the step size. A block has CHANNELS channels of EACH sequences, all of whose values
// are asked for before the first is used.
//
// grid (ceil(channels / CHANNELS), ceil(b / EACH)), block CHANNELS * 16. x [b, channels]; projected [b, rank + 32]; w
// [channels, rank]; z with a stride between sequences; bias, a_log [channels, 16] and skip fp32; h [b, channels, 16] fp32,
// in place; gated and, unless null, memory (before the gate) [b, channels].
#define EACH 4
// Of a rank that a thread takes before the first product.
#define HELD 8

extern "C" __global__ void __launch_bounds__(CHANNELS* STATES)
    scan_step(const VALUE* x, const VALUE* projected, const VALUE* w, const VALUE* z, i64 z_stride, const float* bias,
              const float* a_log, const float* skip, float* h, VALUE* gated, VALUE* memory, int sequences,
              int channels, int rank) {
  const int state = threadIdx.x % STATES;
  const int channel = blockIdx.x * CHANNELS + threadIdx.x / STATES;
  const bool inside = channel < channels;
  const i64 c = inside ? channel : channels - 1;
  const float rate = -expf(a_log[c * STATES + state]) * 1.4426950408889634f;
  const float shift = bias[c], through = skip[c];
  const int first = blockIdx.y * EACH, width = rank + 2 * STATES;
  float weights[HELD];
#pragma unroll
  for (int i = 0; i < HELD; ++i) weights[i] = state + i * STATES < rank ? widen(w[c * rank + state + i * STATES]) : 0.0f;
  let_next_start();
  await_previous();
  float before[EACH], in[EACH], open[EACH], bs[EACH], cs[EACH], part[EACH];
#pragma unroll
  for (int s = 0; s < EACH; ++s) {
    // Past the last sequence, it once more: nothing of it is written.
    const i64 sequence = min(first + s, sequences - 1);
    const VALUE* row = projected + sequence * width;
    before[s] = h[(sequence * channels + c) * STATES + state];
    in[s] = widen(x[sequence * channels + c]);
    open[s] = widen(z[sequence * z_stride + c]);
    bs[s] = widen(row[rank + state]);
    cs[s] = widen(row[rank + STATES + state]);
    part[s] = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
      const int at = state + i * STATES;
      if (at < rank) part[s] = fmaf(weights[i], widen(row[at]), part[s]);
    }
    for (int at = state + HELD * STATES; at < rank; at += STATES)
      part[s] = fmaf(widen(w[c * rank + at]), widen(row[at]), part[s]);
  }
#pragma unroll
  for (int s = 0; s < EACH; ++s) {
    // Rounded as the product of the two is where a prompt is read.
    const float raw = rounded<VALUE>(sixteen_sum(part[s])) + shift;
    const float step = raw > 20.0f ? raw : log1pf(expf(raw));
    const float after = fmaf(exp2_fast(step * rate), before[s], step * in[s] * bs[s]);
    const float y = sixteen_sum(after * cs[s]) + through * in[s];
    if (!inside || first + s >= sequences) continue;
    const i64 to = (i64)(first + s) * channels + c;
    h[to * STATES + state] = after;
    if (state == 0) {
      float gate_input = y;
      if (memory) {
        narrow(memory[to], y);
        gate_input = rounded<VALUE>(y);
      }
      narrow(gated[to], gate_input * open[s] * sigmoid<VALUE>(open[s]));
    }
  }
}
