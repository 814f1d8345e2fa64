// ops.rms_norm: w · x / sqrt(mean(x²) + eps), x and y (rows, D), w (D,). The residual stream is float
// whatever y and w are: rms_norm_stream reads it.
//
// One block per row, of 32, 64, ... or 1024 threads. The order of the sum depends on D, the block
// size and the alignment of the arrays alone, so a row comes out the same in any batch.
#include "common.cuh"

__device__ inline float sum_of_block(float x) {
  __shared__ float of_warp[LANES];
  x = sum_of_lanes<LANES>(x);
  if (threadIdx.x % LANES == 0) of_warp[threadIdx.x / LANES] = x;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / LANES; warp++) sum += of_warp[warp];
  return sum;
}

template <int WIDTH, class X>
__device__ inline void rms_norm_row(const X* x, const Storage* weight, Storage* y, int D,
                                    float eps) {
  const int first = threadIdx.x * WIDTH, step = blockDim.x * WIDTH;
  float sum = 0;
  for (int d = first; d < D; d += step) {
    const auto pack = load<WIDTH>(x + d);
    for (int i = 0; i < WIDTH; i++) sum += to_float(pack.at[i]) * to_float(pack.at[i]);
  }
  const float factor = 1 / sqrtf(sum_of_block(sum) / D + eps);
  for (int d = first; d < D; d += step) {  // the row comes from the cache this time
    const auto pack = load<WIDTH>(x + d);
    auto w = load<WIDTH>(weight + d);
    for (int i = 0; i < WIDTH; i++)
      w.at[i] = from_float<Storage>(to_float(pack.at[i]) * factor * to_float(w.at[i]));
    store<WIDTH>(y + d, w);
  }
}

template <class X>
__device__ inline void rms_norm_rows(const X* x, const Storage* weight, Storage* y, int D,
                                     float eps) {
  const bool wide = is_wide(x, D) && is_wide(weight, D) && is_wide(y, D);
  x += static_cast<long long>(blockIdx.x) * D;
  y += static_cast<long long>(blockIdx.x) * D;
  if (wide) rms_norm_row<WIDEST>(x, weight, y, D, eps);
  else rms_norm_row<1>(x, weight, y, D, eps);
}

extern "C" __global__ void rms_norm(const Storage* x, const Storage* weight, Storage* y, int D,
                                    float eps) {
  rms_norm_rows(x, weight, y, D, eps);
}

extern "C" __global__ void rms_norm_stream(const float* x, const Storage* weight, Storage* y,
                                           int D, float eps) {
  rms_norm_rows(x, weight, y, D, eps);
}
