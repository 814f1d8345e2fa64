// The middle of layers.swiglu_mlp: silu(gate) · up, silu as in ops.silu. One product makes both, so
// a row of the input holds the gate and then up, (rows, 2F); the result is (rows, F).
//
// One block per row, of any size.
#include "common.cuh"

template <int WIDTH>
__device__ inline void swiglu_row(const Storage* gate, const Storage* up, Storage* hidden, int F) {
  for (int f = threadIdx.x * WIDTH; f < F; f += blockDim.x * WIDTH) {
    Pack<WIDTH> g = load<WIDTH>(gate + f), u = load<WIDTH>(up + f);
    for (int i = 0; i < WIDTH; i++) {
      const float x = to_float(g.at[i]);  // exp(-x) may reach infinity; x / inf = 0 is the limit
      g.at[i] = from_float<Storage>(x / (1 + expf(-x)) * to_float(u.at[i]));
    }
    store<WIDTH>(hidden + f, g);
  }
}

extern "C" __global__ void swiglu(const Storage* gate_up, Storage* hidden, int F) {
  const bool wide = is_wide(gate_up, F) && is_wide(hidden, F);
  const Storage* gate = gate_up + static_cast<long long>(blockIdx.x) * 2 * F;
  hidden += static_cast<long long>(blockIdx.x) * F;
  if (wide) swiglu_row<WIDEST>(gate, gate + F, hidden, F);
  else swiglu_row<1>(gate, gate + F, hidden, F);
}
