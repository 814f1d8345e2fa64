// What the kernels share. Arrays hold `Storage` (float, __half or __nv_bfloat16: one compilation
// for each), all arithmetic is in float. Axis letters are those of aimv2_np/ops.py.
#ifndef AIMV2_NP_COMMON
#define AIMV2_NP_COMMON

#include "ptx.cuh"

typedef STORAGE Storage;

const int LANES = 32;  // threads of a warp
const unsigned ALL_LANES = 0xffffffffu;
const float LOG2_E = 1.4426950408889634f;  // exp(x) = exp2(x · log2 e), and exp2 is an instruction

// WIDTH neighbours, read and written as one, or, where they are more than 16 bytes, as two.
template <int WIDTH, class T = Storage>
struct __align__(WIDTH * sizeof(T) < 16 ? WIDTH * sizeof(T) : 16) Pack {
  T at[WIDTH];
};
const int WIDEST = 16 / sizeof(Storage);  // 16 bytes are the most that one instruction reads

template <int WIDTH, class T> __device__ inline Pack<WIDTH, T> load(const T* from) {
  return *reinterpret_cast<const Pack<WIDTH, T>*>(from);
}
template <int WIDTH> __device__ inline void store(Storage* to, const Pack<WIDTH>& pack) {
  *reinterpret_cast<Pack<WIDTH>*>(to) = pack;
}

// Whether rows of `width` numbers that begin here can be read WIDEST at a time.
__device__ inline bool is_wide(const void* rows, int width) {
  return width % WIDEST == 0 && reinterpret_cast<unsigned long long>(rows) % 16 == 0;
}

// The sum or maximum over neighbouring lanes, given to each: 32 of them are a whole warp. fmaxf
// passes over NaN; the exponentials that follow bring it back.
template <int COUNT> __device__ inline float sum_of_lanes(float x) {
  for (int step = COUNT / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
  return x;
}
template <int COUNT> __device__ inline float max_of_lanes(float x) {
  for (int step = COUNT / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
  return x;
}

// What to subtract from scores before exp2: their maximum, or 0 where all are -inf (ops.softmax).
__device__ inline float finite_peak(float peak) { return peak == negative_infinity() ? 0 : peak; }

#endif
