// What only a GPU has: number formats, and the instructions that C++ has no words for, each as one
// small function. The kernels use nothing else of the kind, so tests/host_shim stands in for this
// file by defining its guard. The layouts of fragments are those of the PTX manual, chapters
// "ldmatrix" and "Matrix Fragments for mma.m16n8k16"; attention.cu draws the ones it needs.
#ifndef AIMV2_NP_PTX
#define AIMV2_NP_PTX

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ inline float negative_infinity() { return __int_as_float(0xff800000); }

// 2 to the power of x as the one instruction, within 2^-22, which is ample for numbers of 16 bits;
// exp2f needs a few more, for results below 2^-126.
__device__ inline float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

// Storage to float is exact; float to storage rounds to the nearest, ties to even.
__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class To> __device__ inline To from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Copy 16 bytes to shared memory without waiting; zeros where `inside` is false (nothing is read).
// Both addresses are multiples of 16.
__device__ inline void copy_16_bytes_async(void* shared, const void* global, bool inside) {
  unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global),
               "r"(inside ? 16 : 0)
               : "memory");
}

// Until this thread's own copies have arrived; the others' are seen after __syncthreads.
__device__ inline void wait_for_copies() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

// Four 8 x 8 matrices of 16-bit numbers from shared memory into one register each. Lane 8·i + r
// gives the address of row r of matrix i. Lane 4·g + t gets (row g, columns 2t and 2t + 1) of each,
// or of its transpose.
__device__ inline void load_matrices(unsigned (&to)[4], const void* row) {
  unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}
__device__ inline void load_matrices_transposed(unsigned (&to)[4], const void* row) {
  unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

// Two numbers in one register, the first in the low half.
template <class Half> __device__ inline unsigned two_in_one(float first, float second) {
  union { Half number[2]; unsigned bits; } both = {{from_float<Half>(first),
                                                    from_float<Half>(second)}};
  return both.bits;
}

// c += a b on the tensor cores: (16, 8) += (16, 16) (16, 8), summed in float.
template <class Half>
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                    unsigned b1);
#define AIMV2_NP_MULTIPLY_ADD(HALF, NAME)                                                        \
  template <>                                                                                    \
  __device__ inline void multiply_add<HALF>(float (&c)[4], const unsigned (&a)[4], unsigned b0,  \
                                            unsigned b1) {                                       \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 "                  \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"             \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                \
  }
AIMV2_NP_MULTIPLY_ADD(__half, "f16")
AIMV2_NP_MULTIPLY_ADD(__nv_bfloat16, "bf16")

#endif
