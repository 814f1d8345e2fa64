// Enough of CUDA to run the kernels on a CPU: one std::thread per CUDA thread, one block at a time.
// It stands in for kernels/ptx.cuh (hence the guard) and for the words that NVRTC knows by itself.
//
// What it shows: indexing, the layouts of fragments as the PTX manual draws them, masks, running
// sums, waits that were forgotten (a copy arrives only in `wait_for_copies`), unaligned addresses.
// What it does not: speed, the GPU's own rounding inside a tensor core and in exp2f, and
// races that happen not to happen here. A warp's instruction waits for all 32 lanes, so a kernel in
// which they part ways hangs.
#define AIMV2_NP_PTX

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // one block at a time, so one of each is enough
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

using std::min;

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
static thread_local Dim3 threadIdx, blockIdx;
static Dim3 blockDim, gridDim;

// ---- Threads that wait for one another

// All of a group arrive, the last one does something, then all go on.
class Meeting {
 public:
  explicit Meeting(unsigned size) : size_(size) {}
  template <class Last> void arrive(Last last) {
    const unsigned round = round_.load();
    if (arrived_.fetch_add(1) + 1 < size_) return round_.wait(round);
    last();
    arrived_.store(0);
    round_.fetch_add(1);
    round_.notify_all();
  }

 private:
  const unsigned size_;
  std::atomic<unsigned> arrived_{0}, round_{0};
};

struct Warp {
  Meeting meeting{32};
  alignas(16) unsigned char given[32 * 64], result[32 * 16];
};
static thread_local Meeting* block_meeting;
static thread_local Warp* warp;

inline void __syncthreads() {
  block_meeting->arrive([] {});
}

// One instruction of a warp: `compute(given, result)` sees what all 32 lanes gave.
template <class Result, class Given, class Compute>
Result in_warp(const Given& mine, Compute compute) {
  static_assert(sizeof(Given) <= 64 && sizeof(Result) <= 16);
  const unsigned lane = threadIdx.x % 32;
  auto* given = reinterpret_cast<Given*>(warp->given);
  auto* result = reinterpret_cast<Result*>(warp->result);
  given[lane] = mine;
  warp->meeting.arrive([&] { compute(given, result); });
  return result[lane];
}

inline float __shfl_xor_sync(unsigned, float x, int mask) {
  return in_warp<float>(x, [mask](const float* given, float* result) {
    for (int lane = 0; lane < 32; lane++) result[lane] = given[lane ^ mask];
  });
}
inline float __shfl_sync(unsigned, float x, int source) {
  return in_warp<float>(x, [source](const float* given, float* result) {
    for (int lane = 0; lane < 32; lane++) result[lane] = given[source];
  });
}

// ---- Number formats

inline float negative_infinity() { return -std::numeric_limits<float>::infinity(); }

struct __half {
  std::uint16_t bits;
};
struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(__half x) {
  const int exponent = x.bits >> 10 & 31, digits = x.bits & 1023;
  float size = exponent == 0 ? std::ldexp(digits, -24) : std::ldexp(digits + 1024, exponent - 25);
  if (exponent == 31) size = digits ? std::nanf("") : std::numeric_limits<float>::infinity();
  return x.bits & 0x8000 ? -size : size;
}
inline float to_float(__nv_bfloat16 x) {
  const std::uint32_t bits = std::uint32_t(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

template <class To> To from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
template <> inline __half from_float<__half>(float x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (std::isnan(x)) return {0x7fff};
  if (size >= 65520) return {std::uint16_t(sign | 0x7c00)};
  const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
  const int units = std::nearbyint(std::ldexp(size, 10 - exponent));  // of the last binary digit
  return {std::uint16_t(sign | ((exponent + 14) * 1024 + units))};
}
template <> inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (std::isnan(x)) return {0x7fff};
  return {std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// ---- The instructions of ptx.cuh

inline float exp2_approximate(float x) { return exp2f(x); }

inline void expect_aligned(const void* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % 16 == 0) return;
  std::fprintf(stderr, "an address is not a multiple of 16\n");
  std::abort();
}

struct Copy {
  void* shared;
  const void* global;
  bool inside;
};
static thread_local std::vector<Copy> copies;

inline void copy_16_bytes_async(void* shared, const void* global, bool inside) {
  expect_aligned(shared), expect_aligned(global);
  copies.push_back({shared, global, inside});
}
inline void wait_for_copies() {
  for (const Copy& copy : copies)
    if (copy.inside) std::memcpy(copy.shared, copy.global, 16);
    else std::memset(copy.shared, 0, 16);
  copies.clear();
}

typedef std::array<unsigned, 4> Registers;

// Element (row, column) of matrix i is number `column` of what lane 8·i + row points to.
template <bool TRANSPOSED> void load_matrices_as(unsigned (&to)[4], const void* row) {
  expect_aligned(row);
  auto from = static_cast<const std::uint16_t*>(row);
  const Registers mine = in_warp<Registers>(from, [](auto* rows, Registers* result) {
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 4; i++) {
        const int g = lane / 4, t = lane % 4;
        auto element = [&](int row, int column) {
          return TRANSPOSED ? rows[8 * i + column][row] : rows[8 * i + row][column];
        };
        result[lane][i] = element(g, 2 * t) | unsigned(element(g, 2 * t + 1)) << 16;
      }
  });
  std::copy(mine.begin(), mine.end(), to);
}
inline void load_matrices(unsigned (&to)[4], const void* row) { load_matrices_as<false>(to, row); }
inline void load_matrices_transposed(unsigned (&to)[4], const void* row) {
  load_matrices_as<true>(to, row);
}

template <class Half> unsigned two_in_one(float first, float second) {
  return from_float<Half>(first).bits | unsigned(from_float<Half>(second).bits) << 16;
}

// From the PTX manual, for lane 4g + t: a[0] is row g, a[1] row g + 8, columns 2t and 2t + 1; a[2]
// and a[3] the same rows, columns 2t + 8 and 2t + 9; b0 is column g, rows 2t and 2t + 1, b1 rows
// 2t + 8 and 2t + 9; c[0] and c[1] are row g, columns 2t and 2t + 1; c[2] and c[3] row g + 8.
template <class Half>
void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  struct Given {
    unsigned a[4], b[2];
    float c[4];
  };
  typedef std::array<float, 4> Sums;
  const Given mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  const Sums sums = in_warp<Sums>(mine, [](const Given* given, Sums* result) {
    float left[16][16], right[16][8];
    auto half = [](unsigned two, int i) { return to_float(Half{std::uint16_t(two >> 16 * i)}); };
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < 2; i++) {
        const int g = lane / 4, t = lane % 4;
        for (int j = 0; j < 4; j++)
          left[g + j % 2 * 8][2 * t + i + j / 2 * 8] = half(given[lane].a[j], i);
        for (int j = 0; j < 2; j++) right[2 * t + i + j * 8][g] = half(given[lane].b[j], i);
      }
    for (int lane = 0; lane < 32; lane++)
      for (int j = 0; j < 4; j++) {
        const int row = lane / 4 + j / 2 * 8, column = lane % 4 * 2 + j % 2;
        float sum = given[lane].c[j];
        for (int k = 0; k < 16; k++) sum += left[row][k] * right[k][column];
        result[lane][j] = sum;
      }
  });
  std::copy(sums.begin(), sums.end(), c);
}

// ---- Launching

// Runs `kernel` in every block of the grid, on `threads` threads.
template <class Kernel> void run_grid(const Kernel& kernel, Dim3 grid, unsigned threads) {
  gridDim = grid;
  blockDim.x = threads;
  Meeting meeting(threads);
  std::vector<Warp> warps((threads + 31) / 32);
  auto run = [&](unsigned thread) {
    threadIdx.x = thread;
    block_meeting = &meeting;
    warp = &warps[thread / 32];
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
      for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
          kernel();
          copies.clear();
          __syncthreads();  // the next block uses the same shared memory
        }
  };
  std::vector<std::thread> running;
  for (unsigned thread = 0; thread < threads; thread++) running.emplace_back(run, thread);
  for (std::thread& thread : running) thread.join();
}
