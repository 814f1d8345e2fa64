// ops.attention on the tensor cores, after FlashAttention-2 (arXiv 2307.08691): for each head of
// each packed sequence softmax(q kᵀ / sqrt(E)) v, with a running maximum and sum, so that no
// (N, N) array exists. Head widths 64 and 128, numbers of 16 bits.
//
//   q, k, v       the first number of each; all three lie in one array of `token_stride` numbers a
//                 token, a head `head_stride` after the one before (3·D and E in a fused (N, 3·D)
//                 array). Addresses and strides are multiples of 16 bytes.
//   out           (tokens, H·E)
//   cu_seqlens    sequence s has tokens cu_seqlens[s] up to cu_seqlens[s + 1]
//   seen          of these it sees the keys 0 to seen[s]; what follows is padding
//   causal        query i sees keys 0 to i only, if not 0
//
// Grid (ceil(longest / 64), H, sequences), blocks of 128 threads. A sequence's tiles begin at its
// own first token, so it gets what it gets alone, to the last bit.
//
//             64 keys           E channels      A warp multiplies with accumulators of 16 x 8: 8
//           ┌───────────┐        ┌────────┐     across its scores, E / 8 across its sums of values.
// 16 rows   │ warp 0    │ times  │ values │     Lane 4g + t holds of each
// of        │ warp 1    │        │ of the │       c[0] c[1]  row g      columns 2t, 2t + 1
// queries   │ warp 2    │        │ 64     │       c[2] c[3]  row g + 8  columns 2t, 2t + 1
// each      │ warp 3    │        │ keys   │     and of the left operand, 16 x 16, two in a register
//           └───────────┘        └────────┘       a[0] a[1]  rows g, g + 8  columns 2t, 2t + 1
//           scores, then         added to         a[2] a[3]  rows g, g + 8  columns 2t + 8, 2t + 9
//           shares: exp          the sums       so two accumulators side by side, rounded, are one
//                                               left operand: shares never leave the registers.
//
// Copies run while the tensor cores compute:
//
//     fetch      values 0          keys 1             values 1          keys 2 ...
//     compute    q · keys 0, exp   shares · values 0  q · keys 1, exp   shares · values 1 ...
//
// A row in shared memory is E numbers in pieces of 16 bytes. Piece c of row r lies at c ^ (r % 8),
// so that the 8 rows of one matrix of `load_matrices` are in different banks.
#include "common.cuh"

const int WARPS = 4, TILE = 64;  // TILE rows of queries, keys or values
const int PIECE = 8;             // numbers in 16 bytes
const int COLUMNS = TILE / 8;    // accumulators across the scores of a warp

// Blocks on a multiprocessor at once: 4 and 3 leave a thread 128 and 168 registers. That is enough
// for sm_80 and sm_90; for later ones ptxas would spill a few (reports/ptxas.txt).
#if __CUDA_ARCH__ < 1000
const int BLOCKS_64 = 4, BLOCKS_128 = 3;
#else
const int BLOCKS_64 = 3, BLOCKS_128 = 2;
#endif

template <int E> __device__ inline Storage* piece(Storage* tile, int row, int column) {
  return tile + row * E + (column ^ row % 8) * PIECE;
}

// Begin to copy TILE rows; zeros from row `count` on, so that no share of 0 meets what is not ours.
template <int E>
__device__ inline void fetch(Storage* tile, const Storage* rows, int count,
                             long long token_stride) {
  const int pieces = E / PIECE, column = threadIdx.x % pieces;
  for (int row = threadIdx.x / pieces; row < TILE; row += WARPS * LANES / pieces) {
    const Storage* from = rows + row * token_stride + column * PIECE;
    copy_16_bytes_async(piece<E>(tile, row, column), from, row < count);
  }
}

// scores (16, TILE) = queries (16, E) keysᵀ of one warp.
template <int E>
__device__ inline void multiply_keys(float (&scores)[COLUMNS][4],
                                     const unsigned (&queries)[E / 16][4], Storage* keys) {
  const int lane = threadIdx.x % LANES;
#pragma unroll
  for (int n = 0; n < COLUMNS; n++)
    for (int i = 0; i < 4; i++) scores[n][i] = 0;
#pragma unroll
  for (int e = 0; e < E / 16; e++)
#pragma unroll
    for (int n = 0; n < COLUMNS; n += 2) {  // matrices: 8 keys x 8 channels, channels first
      unsigned b[4];
      load_matrices(b, piece<E>(keys, n * 8 + lane / 16 * 8 + lane % 8, e * 2 + lane / 8 % 2));
      multiply_add<Storage>(scores[n], queries[e], b[0], b[1]);
      multiply_add<Storage>(scores[n + 1], queries[e], b[2], b[3]);
    }
}

// sums (16, E) += shares (16, TILE) values of one warp.
template <int E>
__device__ inline void multiply_values(float (&sums)[E / 8][4],
                                       const float (&shares)[COLUMNS][4], Storage* values) {
  const int lane = threadIdx.x % LANES;
#pragma unroll
  for (int m = 0; m < COLUMNS; m += 2) {
    const unsigned a[4] = {two_in_one<Storage>(shares[m][0], shares[m][1]),
                           two_in_one<Storage>(shares[m][2], shares[m][3]),
                           two_in_one<Storage>(shares[m + 1][0], shares[m + 1][1]),
                           two_in_one<Storage>(shares[m + 1][2], shares[m + 1][3])};
#pragma unroll
    for (int e = 0; e < E / 8; e += 2) {  // matrices: 8 keys x 8 channels, keys first, transposed
      unsigned b[4];
      load_matrices_transposed(b, piece<E>(values, m * 8 + lane % 16, e + lane / 16));
      multiply_add<Storage>(sums[e], a, b[0], b[1]);
      multiply_add<Storage>(sums[e + 1], a, b[2], b[3]);
    }
  }
}

template <int E>
__device__ inline void attention(const Storage* q, const Storage* k, const Storage* v,
                                 Storage* out, const int* cu_seqlens, const int* seen,
                                 long long token_stride, long long head_stride, int causal) {
  __shared__ __align__(128) Storage query_tile[TILE * E], keys[TILE * E], values[TILE * E];
  const int start = cu_seqlens[blockIdx.z], length = cu_seqlens[blockIdx.z + 1] - start;
  const int first_query = blockIdx.x * TILE;
  if (first_query >= length) return;  // the grid is as long as the longest sequence
  const int count = seen[blockIdx.z];  // keys
  const int head = blockIdx.y, warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
  const int row = first_query + warp * 16 + lane / 4;  // this lane's rows: this and row + 8
  const int column = lane % 4 * 2;                     // its columns in each accumulator
  const long long offset = start * token_stride + head * head_stride;
  q += offset, k += offset, v += offset;

  fetch<E>(query_tile, q + first_query * token_stride, length - first_query, token_stride);
  fetch<E>(keys, k, count, token_stride);
  wait_for_copies();
  __syncthreads();
  unsigned queries[E / 16][4];
#pragma unroll
  for (int e = 0; e < E / 16; e++)  // matrices: 8 queries x 8 channels, queries first
    load_matrices(queries[e], piece<E>(query_tile, warp * 16 + lane % 16, e * 2 + lane / 16));

  float sums[E / 8][4] = {}, total[2] = {};
  float peak[2] = {negative_infinity(), negative_infinity()};
  const float scale = LOG2_E / sqrtf(E);

  const int end = causal ? min(count, first_query + TILE) : count;
  for (int first = 0; first < end; first += TILE) {
    wait_for_copies();
    __syncthreads();  // the keys are here, and all have left the values of the last tile
    fetch<E>(values, v + first * token_stride, count - first, token_stride);
    float scores[COLUMNS][4];
    multiply_keys<E>(scores, queries, keys);

#pragma unroll
    for (int half = 0; half < 2; half++) {  // row + 8 · half: c[2 · half] and c[2 · half + 1]
      const int limit = causal ? min(count, row + 8 * half + 1) : count;
      if (first + TILE > limit)
#pragma unroll
        for (int i = 0; i < COLUMNS * 2; i++)
          if (first + i / 2 * 8 + column + i % 2 >= limit)
            scores[i / 2][half * 2 + i % 2] = negative_infinity();
      float new_peak = peak[half];
#pragma unroll
      for (int i = 0; i < COLUMNS * 2; i++)
        new_peak = fmaxf(new_peak, scores[i / 2][half * 2 + i % 2]);
      new_peak = max_of_lanes<4>(new_peak);  // four lanes hold a row
      const float base = finite_peak(new_peak) * scale;
      const float shrink = exp2_approximate(peak[half] * scale - base);
      peak[half] = new_peak;
      total[half] *= shrink;
#pragma unroll
      for (int i = 0; i < COLUMNS * 2; i++) {
        float& score = scores[i / 2][half * 2 + i % 2];  // becomes this key's share
        score = exp2_approximate(fmaf(score, scale, -base));
        total[half] += score;
      }
#pragma unroll
      for (int e = 0; e < E / 8; e++) {
        sums[e][half * 2] *= shrink;
        sums[e][half * 2 + 1] *= shrink;
      }
    }

    wait_for_copies();
    __syncthreads();  // the values are here, and all have left the keys
    if (first + TILE < end)
      fetch<E>(keys, k + (first + TILE) * token_stride, count - first - TILE, token_stride);
    multiply_values<E>(sums, scores, values);
  }

  const int after = cu_seqlens[blockIdx.z + 1];  // read again: one register less in the loop
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float all = sum_of_lanes<4>(total[half]);
    const float share = 1 / (all == 0 ? 1 : all);
    const int query = row + 8 * half;
    Storage* to = out + (static_cast<long long>(start + query) * gridDim.y + head) * E + column;
    if (start + query >= after) continue;
#pragma unroll
    for (int e = 0; e < E / 8; e++)
      *reinterpret_cast<unsigned*>(to + e * 8) = two_in_one<Storage>(
          sums[e][half * 2] * share, sums[e][half * 2 + 1] * share);
  }
}

extern "C" __global__ void __launch_bounds__(WARPS* LANES, BLOCKS_64)
    attention_64(const Storage* q, const Storage* k, const Storage* v, Storage* out,
                 const int* cu_seqlens, const int* seen, long long token_stride,
                 long long head_stride, int causal) {
  attention<64>(q, k, v, out, cu_seqlens, seen, token_stride, head_stride, causal);
}

extern "C" __global__ void __launch_bounds__(WARPS* LANES, BLOCKS_128)
    attention_128(const Storage* q, const Storage* k, const Storage* v, Storage* out,
                  const int* cu_seqlens, const int* seen, long long token_stride,
                  long long head_stride, int causal) {
  attention<128>(q, k, v, out, cu_seqlens, seen, token_stride, head_stride, causal);
}
