"""cuDNN's attention instead of ours, where it is installed: the extra `cudnn`.

For whole batches of long sequences on tensor cores, where cuDNN's kernels, written for each
architecture, are expected to be faster; FROM is reckoned, not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from aimv2_np.errors import first_line, warn

__all__ = ["FROM", "CudnnAttention", "installed"]

Array = Any
FROM = 512  # tokens of a sequence


def installed() -> CudnnAttention | None:
    """The library, if it is installed; it says so if it is and cannot be used."""
    if find_spec("cudnn") is None:
        return None
    try:
        import cudnn

        return CudnnAttention(cudnn)
    except Exception as error:  # its own kinds, for a missing library as for one too old
        said = first_line(error)
        warn(f"cuDNN is installed and cannot be used, our own attention runs instead: {said}")
        return None


class CudnnAttention:
    """Attention on the device that is current when it is made."""

    def __init__(self, cudnn: Any) -> None:
        self.cudnn, self.handle = cudnn, cudnn.create_handle()

    def prepared(
        self, xp: Any, qkv: Array, out: Array, batch: int, heads: int, causal: bool
    ) -> Callable[[int], None] | None:
        """What runs ops.attention of `qkv` (B·N, 3·D) into `out` (B·N, D), given a stream.

        None, and a warning, where cuDNN refuses the shape.
        """
        try:
            return self._prepared(xp, qkv, out, batch, heads, causal)
        except MemoryError:
            raise
        except Exception as error:
            warn(f"cuDNN refuses this attention, our own runs instead: {first_line(error)}")
            return None

    def _prepared(
        self, xp: Any, qkv: Array, out: Array, batch: int, heads: int, causal: bool
    ) -> Callable[[int], None]:
        cudnn, width = self.cudnn, out.shape[1]
        tokens, head = len(out) // batch, width // heads
        kind = getattr(cudnn.data_type, {"float16": "HALF", "bfloat16": "BFLOAT16"}[str(out.dtype)])
        graph = cudnn.pygraph(
            handle=self.handle,
            io_data_type=kind,
            intermediate_data_type=cudnn.data_type.FLOAT,
            compute_data_type=cudnn.data_type.FLOAT,
        )
        shape = [batch, heads, tokens, head]
        strides = [tokens * 3 * width, head, 3 * width, 1]
        parts = {
            name: graph.tensor(name=name, dim=shape, stride=strides, data_type=kind)
            for name in "qkv"
        }
        found, _ = graph.sdpa(
            name="attention", **parts, generate_stats=False, attn_scale=head**-0.5,
            use_causal_mask=causal,
        )  # fmt: skip
        found.set_output(True).set_dim(shape).set_stride([tokens * width, head, width, 1])
        graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        workspace = xp.empty(max(graph.get_workspace_size(), 1), "uint8")
        pointers = {part: qkv[:, i * width :].data.ptr for i, part in enumerate(parts.values())} | {
            found: out.data.ptr
        }

        def run(stream: int) -> None:
            cudnn.set_stream(handle=self.handle, stream=stream)
            graph.execute(pointers, workspace.data.ptr, handle=self.handle)

        return run
