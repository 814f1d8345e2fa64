// ops.normalize: bytes (Y, X, C) to float pixels (C, Y, X), by a table (C, 256) of what each byte
// stands for. The table is what the CPU uses, so the pixels are the same to the last bit.
//
// One block per row of the image, of any size: Y of them.
#include "common.cuh"

extern "C" __global__ void normalize(const unsigned char* image, const float* values,
                                     float* pixels, int C, int Y, int X) {
  const long long y = blockIdx.x;
  for (int i = threadIdx.x; i < C * X; i += blockDim.x) {  // i = c · X + x
    const int c = i / X, x = i % X;
    pixels[(c * static_cast<long long>(Y) + y) * X + x] = values[c * 256 + image[(y * X + x) * C + c]];
  }
}
