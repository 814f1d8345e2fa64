// The sources of all kernels as one library for one dtype, and `launch`, which takes arguments as
// cuLaunchKernel does: an array of pointers to them. Built by host.py.
#include "cuda_on_host.hpp"

#include "common.cuh"

namespace in_rms_norm {
#include "rms_norm.cu"
}
namespace in_swiglu {
#include "swiglu.cu"
}
namespace in_normalize {
#include "normalize.cu"
}
namespace in_patchify {
#include "patchify.cu"
}
namespace in_pool {
#include "pool.cu"
}
namespace in_attention_plain {
#include "attention_plain.cu"
}
#ifdef SIXTEEN_BITS
namespace in_attention {
#include "attention.cu"
}
#endif

#include <utility>

template <class... A, std::size_t... I>
static void run(void (*kernel)(A...), void** args, Dim3 grid, unsigned threads,
                std::index_sequence<I...>) {
  run_grid([&] { kernel(*static_cast<A*>(args[I])...); }, grid, threads);
}
template <class... A>
static void run(void (*kernel)(A...), void** args, Dim3 grid, unsigned threads) {
  run(kernel, args, grid, threads, std::index_sequence_for<A...>());
}

// Returns whether there is such a kernel.
extern "C" bool launch(const char* name, unsigned x, unsigned y, unsigned z, unsigned threads,
                       void** args) {
#define LAUNCH(FILE, ENTRY)                                                              \
  if (!std::strcmp(name, #ENTRY)) return run(in_##FILE::ENTRY, args, {x, y, z}, threads), true;
  LAUNCH(rms_norm, rms_norm)
  LAUNCH(rms_norm, rms_norm_stream)
  LAUNCH(swiglu, swiglu)
  LAUNCH(patchify, patchify)
  LAUNCH(normalize, normalize)
  LAUNCH(pool, pool)
  LAUNCH(attention_plain, attention_plain)
#ifdef SIXTEEN_BITS
  LAUNCH(attention, attention_64)
  LAUNCH(attention, attention_128)
#endif
  return false;
}

// The formats of the shim themselves, to be judged by NumPy's.
extern "C" void to_floats(const Storage* from, float* to, int count) {
  for (int i = 0; i < count; i++) to[i] = to_float(from[i]);
}
extern "C" void from_floats(const float* from, Storage* to, int count) {
  for (int i = 0; i < count; i++) to[i] = from_float<Storage>(from[i]);
}
