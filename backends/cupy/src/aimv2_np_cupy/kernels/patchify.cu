// ops.cut_patches: one row (C·P·P,) per patch, from float pixels (B, C, Y, X) or, with the
// normalisation of the preprocessor as byte · scale + offset per channel, from images of bytes
// (B, Y, X, C). What lies beyond the last whole patch is left out.
//
// One block per patch, of any size, in the order of the rows: B·(Y / P)·(X / P) of them. Writes are
// contiguous, reads are runs of P (or P·C) pixels.
#include "common.cuh"

// `pixel(b, c, y, x)` reads one number.
template <class Pixel>
__device__ inline void cut_patch(Pixel pixel, Storage* rows, int C, int Y, int X, int P) {
  const int across = X / P, down = Y / P;
  const int patch = blockIdx.x;  // b · down · across + row · across + column
  const int b = patch / (down * across);
  const int top = patch / across % down * P, left = patch % across * P;
  Storage* row = rows + static_cast<long long>(patch) * C * P * P;
  for (int i = threadIdx.x; i < C * P * P; i += blockDim.x) {  // i = (c · P + y) · P + x
    const int c = i / (P * P), y = i / P % P, x = i % P;
    row[i] = from_float<Storage>(pixel(b, c, top + y, left + x));
  }
}

extern "C" __global__ void patchify(const float* pixels, Storage* rows, int C, int Y, int X,
                                    int P) {
  auto pixel = [=](long long b, int c, int y, int x) {
    return pixels[((b * C + c) * Y + y) * X + x];
  };
  cut_patch(pixel, rows, C, Y, X, P);
}

extern "C" __global__ void patchify_bytes(const unsigned char* images, const float* scale,
                                          const float* offset, Storage* rows, int C, int Y, int X,
                                          int P) {
  auto pixel = [=](long long b, int c, int y, int x) {
    return fmaf(images[((b * Y + y) * X + x) * C + c], scale[c], offset[c]);
  };
  cut_patch(pixel, rows, C, Y, X, P);
}
