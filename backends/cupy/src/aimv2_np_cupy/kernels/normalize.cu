// ops.normalize: bytes (B, Y, X, C) to float pixels (B, C, Y, X), by a table (C, 256) of what each
// byte stands for. The table is what the CPU uses, so the pixels are the same to the last bit.
//
// One block per row of an image, of any size: B·Y of them.
#include "common.cuh"

extern "C" __global__ void normalize(const unsigned char* images, const float* values,
                                     float* pixels, int C, int Y, int X) {
  const long long b = blockIdx.x / Y, y = blockIdx.x % Y;
  for (int i = threadIdx.x; i < C * X; i += blockDim.x) {  // i = c · X + x
    const int c = i / X, x = i % X;
    const unsigned char byte = images[((b * Y + y) * X + x) * C + c];
    pixels[((b * C + c) * Y + y) * X + x] = values[c * 256 + byte];
  }
}
