"""The models of gpu.py: random weights drawn by torch where it computes, and the same in ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from gpu_device import Bench
from sides import their_aimv2
from worker import NATIVE_SIZE_IN_CONFIG

from aimv2_np.config import VisionConfig
from aimv2_np.models import VisionEncoder
from aimv2_np.weights.layouts import detect_layout
from aimv2_np.weights.tree import build_params

__all__ = [
    "LIMITS", "Theirs", "drawn", "features", "off", "our_forward", "our_model", "our_params",
    "precision",
]  # fmt: skip

Array = Any
SHARPER = 2  # times queries and keys: at torch's scale attention is almost uniform
# How far from float32 a feature vector may be, as a part of its length: other computations are
# further away, roundings are not.
LIMITS = {"float32": 1e-4, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 0.1}


def drawn(config: VisionConfig, place: str, seed: int = 0) -> Any:
    """Transformers' vision tower in float32, with SDPA, as they initialise it but for SHARPER."""
    import torch

    theirs = their_aimv2()
    torch.manual_seed(seed)
    sizes = vars(config) | {"image_size": config.image_size or NATIVE_SIZE_IN_CONFIG}
    with torch.device(place):
        model = theirs.Aimv2VisionModel(theirs.Aimv2VisionConfig(**sizes)).eval()
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        for layer in model.encoder.layers:
            for projection in (layer.attention.q_proj, layer.attention.k_proj):
                projection.weight.mul_(SHARPER)
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(torch.randn_like(weight), alpha=0.25)
    return model.requires_grad_(False)


class Drawn:
    """Their weights by the original's names: what build_params asks of a Checkpoint."""

    def __init__(self, model: Any) -> None:
        self.tensors = dict(model.named_parameters())
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        self.layout, known = detect_layout(shapes, [])
        assert known == len(shapes), "transformers has parameters that we do not know"

    def thirds(self, name: str, dtype: np.dtype[Any]) -> tuple[Array, ...]:
        """Each as it is stored."""
        keys = (key for key, _ in self.layout.stored(name))
        return tuple(self.tensors[key].cpu().numpy().astype(dtype, copy=False) for key in keys)

    def array(self, name: str, dtype: np.dtype[Any]) -> Array:
        """Of a name that is stored as one."""
        (whole,) = self.thirds(name, dtype)
        return whole

    def release(self) -> None:
        """Nothing is mapped."""


def our_params(model: Any, config: VisionConfig, dtype: str = "float32") -> Any:
    """The same weights as our tree, on the host; blocks are read when they are asked for."""
    source: Any = Drawn(model)
    return build_params(source, config, np.dtype(dtype))


def our_model(bench: Bench, model: Any, config: VisionConfig, dtype: str) -> VisionEncoder:
    """The same weights, on the device in a dtype."""
    backend = bench.backend()
    return VisionEncoder(config, backend.prepare(our_params(model, config), dtype), backend, dtype)


def off(found: Array, true: Array) -> Array:
    """Errors of vectors as parts of their lengths, (..., D) to (...)."""
    found, true = np.asarray(found, np.float64), np.asarray(true, np.float64)
    lengths = np.linalg.norm(true, axis=-1)
    return np.linalg.norm(found - true, axis=-1) / np.where(lengths == 0, 1, lengths)


def precision(dtype: str) -> None:
    """What torch makes of products of float32 numbers, in layers and in the patch embedding."""
    import torch

    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


class Theirs:
    """Their model in a dtype, eager and compiled; all share its weights."""

    def __init__(self, bench: Bench, model: Any, dtype: str, whole: bool) -> None:
        import torch
        from torch._dynamo.utils import counters

        counters.clear()
        torch._dynamo.reset()  # or shapes of an earlier model count towards its limit
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # not a silent eager run
        self.bench, self.whole = bench, whole
        self.dtype = torch.float32 if dtype in ("float32", "tf32") else getattr(torch, dtype)
        self.eager = model if self.dtype == torch.float32 else copy.deepcopy(model).to(self.dtype)
        self.compiled = self._compiled()

    @property
    def graphs(self) -> int:
        """How many were compiled: one for each batch, or the model was broken into pieces."""
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])

    @property
    def weights(self) -> int:
        """Bytes."""
        return sum(p.numel() * p.element_size() for p in self.eager.parameters())

    def _compiled(self) -> Any:
        """As one, or one block for all: minutes less to compile, and no fusing across blocks."""
        import torch

        how: dict[str, Any] = {"backend": self.bench.compiler, "dynamic": False}
        if self.whole:
            return torch.compile(self.eager, **how)
        shared = {id(p): p for p in (*self.eager.parameters(), *self.eager.buffers())}
        model = copy.deepcopy(self.eager, shared)
        for layer in model.encoder.layers:
            layer.compile(**how)
        return model

    def forward(self, model: Any, pixels: Any) -> Callable[[], Any]:
        """A run from float32 pixels to features, without waiting for it."""
        import torch

        def run() -> Any:
            with torch.inference_mode():
                return model(pixels.to(self.dtype)).last_hidden_state

        return run


def features(bench: Bench, array: Any) -> Array:
    """Of theirs or ours, on the host in float32."""
    if hasattr(array, "cpu"):
        return array.float().cpu().numpy()
    if isinstance(array, np.ndarray):
        return array.astype(np.float32)
    return bench.backend().to_numpy(array)


def our_forward(model: VisionEncoder, pixels: Array) -> Callable[[], Any]:
    """A run of ours, from float32 pixels on the device to features there, likewise."""
    return lambda: model(pixels, as_numpy=False).last_hidden_state
