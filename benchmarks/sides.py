"""How each library loads a model and runs it. Nothing of theirs is imported before it is asked for.

A side is a library and a dtype, written numba-bfloat16. All get transformers' layout and the same
inputs, and return float32 features.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case

from aimv2_np.machine import cores

__all__ = ["CORES", "SIDES", "Loaded", "Side", "Task", "split", "their_aimv2", "torch_part"]

CORES = cores()["usable"] or 1
CALIBRATION = 8  # batches that NNCF sees, other random ones than the timed batch


@dataclass(frozen=True)
class Task:
    """What a side has to load: weights in a folder, in a dtype."""

    folder: Path
    case: Case
    dtype: str


@dataclass(frozen=True)
class Loaded:
    """A model that runs, and what it computes in by its own account."""

    forward: Callable[..., np.ndarray]
    computes: str


def _nothing(*_: Any) -> None:
    pass


# ---------------------------------------------------------------------------- ours


def _import_ours(backend: str) -> None:
    import aimv2_np
    from aimv2_np.backend import get_backend

    _ = aimv2_np.load
    get_backend(backend)


def _load_ours(task: Task, backend: str) -> Loaded:
    import aimv2_np

    model: Any = aimv2_np.load(task.folder, backend=backend, dtype=task.dtype)
    computes = _our_products(task.dtype) if backend == "numba" else "f32"
    if not task.case.has_text:
        return Loaded(lambda pixels: model(pixels).last_hidden_state, computes)
    parts = {
        "vision": model.image_features,
        "text": model.text_features,
        "lit": lambda pixels, ids: model(pixels, ids).logits_per_image,
    }
    return Loaded(parts[task.case.part], computes)


def _our_products(dtype: str) -> str:
    """What the kernels multiply on this machine, and for which instruction set they are."""
    from aimv2_np.numba_backend.formats import format_of
    from aimv2_np.numba_backend.isa import choose

    isa = choose()
    words = {"number": "f32", "bfloats": "bf16", "halves": "i16", "bytes": "i8"}
    return f"{words[format_of(isa, dtype).dot.partition('_')[0]]} ({isa.name})"


def _packed(task: Task) -> Path:
    return task.folder / f"packed-{task.dtype}"


def _pack(task: Task) -> None:
    """Write the folder that the side "packed" loads; not timed."""
    arguments = ["pack", task.folder, "--dtype", task.dtype, "--out", _packed(task)]
    subprocess.run([sys.executable, "-m", "aimv2_np", *map(str, arguments)], check=True)


def _load_packed(task: Task) -> Loaded:
    return _load_ours(Task(_packed(task), task.case, task.dtype), "numba")


# ---------------------------------------------------------------------------- transformers


def their_aimv2() -> Any:
    """Transformers' module of AIMv2, without torchvision.

    The model does not need it, it would count as memory, and PyPI's wheel cannot be imported
    beside the CPU build of torch.
    """
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    from transformers.models import aimv2

    return aimv2


def torch_part(task: Task, attention: str) -> Any:
    """The part of their model as a module from the inputs to one float32 tensor.

    Their text tower is causal only if it is told so: with a mask that adds -inf above the diagonal.
    Padding needs no mask, because it comes after the end token, whose feature is the text's.
    """
    import torch

    torch.set_num_threads(CORES)
    theirs, case, dtype = their_aimv2(), task.case, getattr(torch, task.dtype)
    load = (theirs.Aimv2Model if case.has_text else theirs.Aimv2VisionModel).from_pretrained
    model = load(task.folder, attn_implementation=attention, dtype=dtype).eval()
    causal = None
    if case.prompts:
        length = case.lit.text.max_position_embeddings
        causal = torch.full((1, 1, length, length), -torch.inf, dtype=dtype).triu(1)

    def features(pixels: Any) -> Any:
        if case.has_text:
            return model.get_image_features(pixels.to(dtype)).pooler_output
        return model(pixels.to(dtype)).last_hidden_state

    runs: dict[str, Callable[..., Any]] = {
        "vision": features,
        "text": lambda ids: model.get_text_features(ids, attention_mask=causal).pooler_output,
        "lit": lambda pixels, ids: (
            model(ids, pixels.to(dtype), attention_mask=causal).logits_per_image
        ),
    }

    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return runs[case.part](*inputs).float()

    return Part().eval()


def _load_torch(task: Task, attention: str, compiled: bool = False) -> Loaded:
    import torch

    module = torch_part(task, attention)
    if compiled:
        module = torch.compile(module)

    def forward(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            features: np.ndarray = module(*map(torch.from_numpy, inputs)).numpy()
        return features

    return Loaded(forward, {"float32": "f32", "bfloat16": "bf16"}[task.dtype])


def _exported(task: Task) -> tuple[Any, tuple[Any, ...]]:
    """Their model in float32 and an example of its inputs, for those who convert it."""
    import torch

    examples = tuple(map(torch.from_numpy, task.case.inputs()))
    return torch_part(Task(task.folder, task.case, "float32"), "sdpa"), examples


# ---------------------------------------------------------------------------- ONNX Runtime


def _load_onnxruntime(task: Task) -> Loaded:
    import onnxruntime
    import torch

    path = task.folder / "model.onnx"
    model, examples = _exported(task)
    torch.onnx.export(model, examples, path, dynamo=True, verbose=False)
    del model
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def forward(*inputs: np.ndarray) -> np.ndarray:
        features: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return features

    return Loaded(forward, "f32")


# ---------------------------------------------------------------------------- OpenVINO


def _load_openvino(task: Task) -> Loaded:
    import openvino

    model, examples = _exported(task)
    shapes = [tuple(example.shape) for example in examples]
    converted = openvino.convert_model(model, example_input=examples, input=shapes)
    del model
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": CORES}
    if task.dtype == "int8":  # what is left beside the integers: as OpenVINO likes
        converted = _quantized(converted, task.case)
    else:
        settings["INFERENCE_PRECISION_HINT"] = {"float32": "f32", "bfloat16": "bf16"}[task.dtype]
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    return Loaded(lambda *inputs: compiled(inputs)[0], _products(compiled))


def _quantized(model: Any, case: Case) -> Any:
    """Weights and activations in int8, by NNCF's post-training quantization for transformers."""
    import nncf

    seen = nncf.Dataset([case.inputs(seed) for seed in range(1, CALIBRATION + 1)])
    kind = nncf.ModelType.TRANSFORMER
    return nncf.quantize(model, seen, model_type=kind, subset_size=CALIBRATION)


def _products(compiled: Any) -> str:
    """What OpenVINO multiplies matrices in, from the model it runs: "f32 ×145"."""
    counts: dict[str, int] = {}
    for operation in compiled.get_runtime_model().get_ops():
        info = {key: value.astype(str) for key, value in operation.get_rt_info().items()}
        if info.get("layerType") in ("FullyConnected", "MatMul"):
            precision = info["runtimePrecision"]
            counts[precision] = counts.get(precision, 0) + 1
    return ", ".join(f"{name} ×{count}" for name, count in sorted(counts.items()))


# ---------------------------------------------------------------------------- all of them


@dataclass(frozen=True)
class Side:
    """A library: what it is called, what it can compute in, and how it is loaded."""

    title: str
    dtypes: tuple[str, ...]
    load: Callable[[Task], Loaded]
    packages: tuple[str, ...] = ()
    imports: Callable[[], Any] = _nothing  # before loading; only the start-up comparison asks
    prepare: Callable[[Task], None] = field(default=_nothing)  # once, in the parent


_ALL = ("float32", "bfloat16", "int8")
_TORCH = ("torch", "transformers")
SIDES = {
    "numba": Side(
        "aimv2_np, numba",
        _ALL,
        partial(_load_ours, backend="numba"),
        imports=partial(_import_ours, "numba"),
    ),
    "packed": Side(
        "aimv2_np, packed folder",
        _ALL,
        _load_packed,
        imports=partial(_import_ours, "numba"),
        prepare=_pack,
    ),
    "numpy": Side(
        "aimv2_np, numpy",
        ("float32",),
        partial(_load_ours, backend="numpy"),
        imports=partial(_import_ours, "numpy"),
    ),
    "transformers": Side(
        "transformers, eager",
        ("float32", "bfloat16"),
        partial(_load_torch, attention="eager"),
        _TORCH,
        imports=lambda: their_aimv2().Aimv2Model,
    ),
    "compile": Side(
        "transformers, torch.compile",
        ("float32", "bfloat16"),
        partial(_load_torch, attention="sdpa", compiled=True),
        _TORCH,
    ),
    "onnxruntime": Side(
        "ONNX Runtime",
        ("float32",),
        _load_onnxruntime,
        (*_TORCH, "onnxruntime", "onnx", "onnxscript"),
    ),
    "openvino": Side("OpenVINO", _ALL, _load_openvino, (*_TORCH, "openvino")),
}


def split(name: str) -> tuple[str, str]:
    """numba-bfloat16 → numba, bfloat16."""
    library, _, dtype = name.partition("-")
    return library, dtype
