// ops.cut_patches: float pixels (B, C, Y, X) to one row (C·P·P,) per patch. What lies beyond the last
// whole patch is left out.
//
// One block per patch, of any size, in the order of the rows: B·(Y / P)·(X / P) of them. Writes are
// contiguous, reads are runs of P pixels.
#include "common.cuh"

extern "C" __global__ void patchify(const float* pixels, Storage* rows, int C, int Y, int X,
                                    int P) {
  const int across = X / P, down = Y / P;
  const int patch = blockIdx.x;  // b · down · across + row · across + column
  const long long b = patch / (down * across);
  const int top = patch / across % down * P, left = patch % across * P;
  Storage* row = rows + static_cast<long long>(patch) * C * P * P;
  for (int i = threadIdx.x; i < C * P * P; i += blockDim.x) {  // i = (c · P + y) · P + x
    const int c = i / (P * P), y = i / P % P, x = i % P;
    row[i] = from_float<Storage>(pixels[((b * C + c) * Y + top + y) * X + left + x]);
  }
}
