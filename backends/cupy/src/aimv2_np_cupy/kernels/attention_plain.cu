// ops.attention on the ordinary cores, for float and for head widths that attention.cu does not
// have: softmax(q kᵀ / sqrt(E)) v for each head of each packed sequence. Arguments as in
// attention.cu, and E, at most MAX_E.
//
// Grid (ceil(longest / QUERIES), H, sequences), blocks of WARPS · 32 threads.
//
//     tile, shared: 32 keys, then the same 32 values;  a warp has ROWS query rows of its own
//     scores: lane l multiplies key l with each row    values: lane l owns channels l, l + 32, ...
//
// Channel e of row r of the tile lies at e ^ r, so that both ways to read it find 32 banks.
#include "common.cuh"

const int WARPS = 4, ROWS = 4, QUERIES = WARPS * ROWS, KEYS = LANES;
const int MAX_E = 256, OWNED = MAX_E / LANES;

typedef float Tile[KEYS][MAX_E];

// KEYS rows, in float; zeros beyond the channels (to whole chunks of 32) and beyond `count` rows.
__device__ inline void fill(Tile& tile, const Storage* rows, int count, int E, int chunks,
                            long long token_stride) {
  for (int i = threadIdx.x; i < KEYS * chunks * LANES; i += WARPS * LANES) {
    const int row = i / (chunks * LANES), e = i % (chunks * LANES);
    const bool inside = row < count && e < E;
    tile[row][e ^ row] = inside ? to_float(rows[row * token_stride + e]) : 0;
  }
}

extern "C" __global__ void __launch_bounds__(WARPS* LANES)
    attention_plain(const Storage* q, const Storage* k, const Storage* v, Storage* out,
                    const int* cu_seqlens, const int* seen, long long token_stride,
                    long long head_stride, int causal, int E) {
  __shared__ __align__(16) float queries[WARPS][MAX_E][ROWS];
  __shared__ Tile tile;
  const int start = cu_seqlens[blockIdx.z], length = cu_seqlens[blockIdx.z + 1] - start;
  const int first_query = blockIdx.x * QUERIES;
  if (first_query >= length) return;  // the grid is as long as the longest sequence
  const int head = blockIdx.y, warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
  const int first_row = first_query + warp * ROWS;
  const int chunks = (E + LANES - 1) / LANES;
  const long long offset = start * token_stride + head * head_stride;
  q += offset, k += offset, v += offset;

  for (int e = lane; e < chunks * LANES; e += LANES)
    for (int r = 0; r < ROWS; r++) {
      const bool inside = first_row + r < length && e < E;
      const float x = inside ? to_float(q[(first_row + r) * token_stride + e]) : 0;
      queries[warp][e][r] = x * (LOG2_E / sqrtf(E));
    }

  float peak[ROWS], total[ROWS] = {}, sum[ROWS][OWNED] = {};
  for (int r = 0; r < ROWS; r++) peak[r] = negative_infinity();
  const int count = seen[blockIdx.z], end = causal ? min(count, first_query + QUERIES) : count;
  for (int first = 0; first < end; first += KEYS) {
    fill(tile, k + first * token_stride, count - first, E, chunks, token_stride);
    __syncthreads();
    float score[ROWS] = {};
    for (int e = 0; e < chunks * LANES; e++)
      for (int r = 0; r < ROWS; r++) score[r] += queries[warp][e][r] * tile[lane][e ^ lane];
    for (int r = 0; r < ROWS; r++) {  // score[r] becomes this key's share in row r
      const int limit = causal ? min(count, first_row + r + 1) : count;
      if (first + lane >= limit) score[r] = negative_infinity();
      const float new_peak = fmaxf(peak[r], max_of_lanes<LANES>(score[r]));
      const float base = finite_peak(new_peak), shrink = exp2f(peak[r] - base);
      peak[r] = new_peak;
      score[r] = exp2f(score[r] - base);
      total[r] = total[r] * shrink + score[r];  // of this lane's keys
      for (int i = 0; i < OWNED; i++) sum[r][i] *= shrink;
    }
    __syncthreads();  // all have left the keys
    fill(tile, v + first * token_stride, count - first, E, chunks, token_stride);
    __syncthreads();
    for (int key = 0; key < KEYS; key++)
      for (int r = 0; r < ROWS; r++) {
        const float p = __shfl_sync(ALL_LANES, score[r], key);
#pragma unroll
        for (int i = 0; i < OWNED; i++)
          if (i < chunks) sum[r][i] += p * tile[key][(lane + i * LANES) ^ key];
      }
    __syncthreads();  // all have left the values
  }

  for (int r = 0; r < ROWS; r++) {
    const float all = sum_of_lanes<LANES>(total[r]);
    const long long row = static_cast<long long>(start + first_row + r) * gridDim.y + head;
    for (int i = 0; i < OWNED; i++) {
      const int e = lane + i * LANES;
      if (first_row + r < length && e < E)
        out[row * E + e] = from_float<Storage>(sum[r][i] / (all == 0 ? 1 : all));
    }
  }
}
