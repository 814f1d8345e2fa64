"""What is asked of cuDNN, by a stand-in that computes what its graph describes, and when."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from addressed import Array

from aimv2_np import ops
from aimv2_np.errors import AIMv2Warning
from aimv2_np_cupy import cudnn_attention
from aimv2_np_cupy.cudnn_attention import CudnnAttention, installed

DTYPES = {"HALF": np.dtype(np.float16), "BFLOAT16": np.dtype(ml_dtypes.bfloat16)}


class Tensor:
    """A tensor of a graph: where it lies is known when the graph runs."""

    def __init__(
        self, dim: Any = None, stride: Any = None, data_type: Any = None, **_: Any
    ) -> None:
        self.dim, self.stride, self.kind = dim, stride, data_type

    def set_output(self, is_output: bool) -> Tensor:
        assert is_output
        return self

    def set_dim(self, dim: Any) -> Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: Any) -> Tensor:
        self.stride = stride
        return self

    def at(self, pointer: int, kind: str) -> Any:
        """The numbers there, as an array with these strides."""
        dtype = DTYPES[kind]
        last = sum((n - 1) * s for n, s in zip(self.dim, self.stride, strict=True))
        raw = (ctypes.c_char * ((last + 1) * dtype.itemsize)).from_address(pointer)
        flat = np.frombuffer(raw, dtype)
        strides = [s * dtype.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat, self.dim, strides)


class Graph:
    """cuDNN's graph of a single attention."""

    def __init__(self, handle: Any, io_data_type: str, **kinds: str) -> None:
        assert set(kinds.values()) == {"FLOAT"}
        self.kind, self.built = io_data_type, False

    def tensor(self, **how: Any) -> Tensor:
        return Tensor(**how)

    def sdpa(self, q: Tensor, k: Tensor, v: Tensor, attn_scale: float, use_causal_mask: bool,
             generate_stats: bool, name: str) -> tuple[Tensor, None]:  # fmt: skip
        assert not generate_stats
        self.given, self.scale, self.causal, self.out = (
            (q, k, v),
            attn_scale,
            use_causal_mask,
            Tensor(),
        )
        return self.out, None

    def build(self, heuristics: list[str]) -> None:
        self.built = True

    def get_workspace_size(self) -> int:
        return 0

    def execute(self, pointers: dict[Tensor, int], workspace: int, handle: Any) -> None:
        assert self.built
        q, k, v = (t.at(pointers[t], self.kind).astype(np.float64) for t in self.given)
        q *= self.scale * np.sqrt(q.shape[-1])  # ops.attention has the usual scale in it
        out = self.out.at(pointers[self.out], self.kind)
        out[...] = ops.attention(q, k, v, causal=self.causal).astype(out.dtype)


def stand_in() -> Any:
    module: Any = ModuleType("cudnn")
    module.streams = []
    module.create_handle = lambda: "handle"
    module.set_stream = lambda handle, stream: module.streams.append((handle, stream))
    module.data_type = SimpleNamespace(HALF="HALF", BFLOAT16="BFLOAT16", FLOAT="FLOAT")
    module.heur_mode = SimpleNamespace(A="A", FALLBACK="FALLBACK")
    module.pygraph = Graph
    return module


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_fused_rows_are_described_as_they_lie(dtype: Any, causal: bool) -> None:
    batch, tokens, heads, head = 2, 7, 3, 8
    width = heads * head
    rng = np.random.default_rng(0)
    qkv = rng.normal(size=(batch * tokens, 3 * width)).astype(dtype).view(Array)
    out = np.zeros((batch * tokens, width), dtype).view(Array)
    module = stand_in()
    xp = SimpleNamespace(empty=lambda n, kind: np.empty(n, kind).view(Array))
    CudnnAttention(module).prepared(xp, qkv, out, batch, heads, causal)(5)
    assert module.streams == [("handle", 5)]
    split = np.asarray(qkv, float).reshape(batch, tokens, 3, heads, head).transpose(2, 0, 3, 1, 4)
    right = ops.attention(*split, causal=causal).swapaxes(1, 2).reshape(out.shape)
    np.testing.assert_array_equal(np.asarray(out), right.astype(dtype))


def test_it_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", module := stand_in())
    monkeypatch.setattr(cudnn_attention, "find_spec", lambda name: name == "cudnn" or None)
    found = installed()
    assert found is not None
    assert found.cudnn is module
    monkeypatch.setattr(cudnn_attention, "find_spec", lambda name: None)
    assert installed() is None


def test_one_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in()

    def broken() -> None:
        raise RuntimeError("Unable to find symbol cudnnCreate\nmore")

    module.create_handle = broken
    monkeypatch.setitem(sys.modules, "cudnn", module)
    monkeypatch.setattr(cudnn_attention, "find_spec", lambda name: True)
    with pytest.warns(AIMv2Warning, match="our own attention runs instead: Unable to find symbol"):
        assert installed() is None
