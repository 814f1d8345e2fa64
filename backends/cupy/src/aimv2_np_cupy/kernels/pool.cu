// ops.attention of the pooling head (layers.attention_pool): one query (H, E) for all images, keys
// and values (B, M, H·E), the result (B, H·E); softmax(q kᵀ / sqrt(E)) v over M keys.
//
// Grid (H, B), blocks of WARPS · 32 threads, E at most MAX_E. A token's keys (and values) begin
// `token_stride` numbers after those of the one before, an image's `image_stride`. Warps take KEYS
// keys by turns, each with a maximum and sums of its own; at the end these are put together:
//
//     keys  0 1 2 3 | 4 5 6 7 | ...           lane l of a warp owns channels l, l + 32, l + 64, ...
//     warp     0    |    1    | ... 0 | 1     of the query, of each key and of the sum of values
#include "common.cuh"

const int WARPS = 8, KEYS = 4, MAX_E = 256, OWNED = MAX_E / LANES;

extern "C" __global__ void __launch_bounds__(WARPS* LANES)
    pool(const Storage* query, const Storage* keys, const Storage* values, Storage* out, int M,
         int E, long long token_stride, long long image_stride) {
  __shared__ float warp_peak[WARPS], warp_total[WARPS], warp_sum[WARPS][MAX_E];
  const int head = blockIdx.x, image = blockIdx.y;
  const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
  keys += image * image_stride + head * E;
  values += image * image_stride + head * E;

  float q[OWNED], sum[OWNED] = {}, peak = negative_infinity(), total = 0;
  for (int i = 0; i < OWNED; i++) {
    const int e = lane + i * LANES;
    q[i] = e < E ? to_float(query[head * E + e]) * (LOG2_E / sqrtf(E)) : 0;
  }

  for (int first = warp * KEYS; first < M; first += WARPS * KEYS) {
    float score[KEYS], new_peak = peak;
    for (int j = 0; j < KEYS; j++) {  // beyond the end the last key again: it moves no maximum
      const Storage* key = keys + min(first + j, M - 1) * token_stride;
      float dot = 0;
      for (int i = 0; i < OWNED; i++) {
        const int e = lane + i * LANES;
        if (e < E) dot += q[i] * to_float(key[e]);
      }
      score[j] = sum_of_lanes<LANES>(dot);
      new_peak = fmaxf(new_peak, score[j]);
    }
    const float base = finite_peak(new_peak);
    const float shrink = exp2f(peak - base);  // what was summed under the old maximum
    peak = new_peak;
    total *= shrink;
    for (int i = 0; i < OWNED; i++) sum[i] *= shrink;
    for (int j = 0; j < KEYS && first + j < M; j++) {
      const Storage* value = values + (first + j) * token_stride;
      const float p = exp2f(score[j] - base);
      total += p;
      for (int i = 0; i < OWNED; i++) {
        const int e = lane + i * LANES;
        if (e < E) sum[i] += p * to_float(value[e]);
      }
    }
  }

  if (lane == 0) warp_peak[warp] = peak, warp_total[warp] = total;
  for (int i = 0; i < OWNED; i++) warp_sum[warp][lane + i * LANES] = sum[i];
  __syncthreads();
  for (int w = 0; w < WARPS; w++) peak = fmaxf(peak, warp_peak[w]);
  const float base = finite_peak(peak);
  for (int e = threadIdx.x; e < E; e += WARPS * LANES) {
    float all = 0, sum_e = 0;
    for (int w = 0; w < WARPS; w++) {
      const float weight = exp2f(warp_peak[w] - base);
      all += weight * warp_total[w];
      sum_e += weight * warp_sum[w][e];
    }
    const long long row = static_cast<long long>(image) * gridDim.x + head;
    out[row * E + e] = from_float<Storage>(sum_e / (all == 0 ? 1 : all));
  }
}
