"""A model in an ONNX file, run by ONNX Runtime, with every tensor that can be named.

A graph's own outputs come from the graph as it is; all else from one in which the tensors are
outputs, too, and so cannot be fused away.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import VerificationError
from ...ops import Array
from ..candidate import Candidate
from ..lanes import DTYPES, as_dtype
from ..locate import stream
from ..schemes import taken_apart
from ..walk import Case
from .onnx_tensors import tensors
from .running import INPUTS, Refused, Shelf, each_case, inputs_of

__all__ = ["candidate"]

_AXES = {"pixel_values": 4, "input_ids": 2, "attention_mask": 2}


def candidate(
    file: str | Path,
    cases: Sequence[Case],
    dtype: str | None = None,
    *,
    names: str | Path | None = None,
) -> Candidate:
    """What ONNX Runtime makes of the cases on a CPU.

    Graph inputs are found by name (pixel_values, input_ids, attention_mask), or as the only one of
    their kind. `dtype` is what most weights are stored in, if not given. `names`: as
    `read_candidate` takes it, for tensors.

    Raises:
        VerificationError: not such a file, inputs that cannot be told apart, or none of the cases
            can be run.
    """
    proto = _read(Path(file))
    named, inputs = tensors(proto.graph, names), _inputs(str(file), proto.graph)
    ends = {output.name for output in proto.graph.output}
    if not named:
        raise VerificationError(
            f"{file}: no tensor of it is known; its outputs are {', '.join(sorted(ends))}: name "
            'them as ours, or say which is which in a JSON file {"their name": "our name"}'
        )
    spare = {r: a for case in reversed(cases) for r, a in inputs_of(case).items()}
    parts: list[dict[str, Shelf]] = []
    notes: tuple[str, ...] = ()
    for inner in (False, True):
        wanted = {name: tensor for name, tensor in named.items() if (tensor not in ends) == inner}
        if wanted:
            session = _session(Path(file), proto, wanted.values())
            ran, notes = each_case(str(file), cases, _Runner(session, inputs, wanted, spare))
            parts.append(ran)
    ran_in_all = [c for c in parts[0] if all(c in part for part in parts)]
    found = {c: ChainMap[str, Array](*(part[c] for part in parts)) for c in ran_in_all}
    return Candidate(f"{file}, ONNX Runtime", found, as_dtype(dtype or _dtype(proto)), notes)


# ---------------------------------------------------------------------------- running


def _libraries() -> tuple[Any, Any]:
    try:
        return import_module("onnx"), import_module("onnxruntime")
    except ImportError as error:
        raise VerificationError(
            f"the candidate of an .onnx file needs onnx and onnxruntime: {error}; pip install onnx "
            "onnxruntime"
        ) from error


def _read(file: Path) -> Any:
    """The file's model, weights in other files left there."""
    onnx, _ = _libraries()
    try:
        proto = onnx.load(str(file), load_external_data=False)
    except OSError as error:
        raise VerificationError(f"{file}: cannot be read: {error.strerror}") from None
    except Exception as error:  # protobuf's own
        raise VerificationError(f"{file}: is no ONNX file: {error}") from None
    if not proto.graph.node:
        raise VerificationError(f"{file}: holds no ONNX graph")
    return proto


def _dtype(proto: Any) -> str:
    """What most weights are stored in."""
    onnx, _ = _libraries()
    T, count = onnx.TensorProto, dict.fromkeys(DTYPES, 0)
    known = {T.DOUBLE: "float64", T.FLOAT: "float32", T.BFLOAT16: "bfloat16", T.FLOAT16: "float16"}
    for weight in proto.graph.initializer:
        if weight.data_type in known:
            count[known[weight.data_type]] += math.prod(weight.dims)
    return max(count, key=count.__getitem__) if any(count.values()) else "float32"


def _session(file: Path, proto: Any, tensors: Iterable[str]) -> Any:
    """A session in which some tensors are outputs, besides the graph's own."""
    onnx, onnxruntime = _libraries()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, str(file.resolve().parent))
    own = {output.name for output in proto.graph.output}
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in own)
    try:
        return onnxruntime.InferenceSession(
            exposed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        said = " ".join(str(error).split())
        raise VerificationError(f"{file}: ONNX Runtime refuses it: {said:.400}") from None


# ---------------------------------------------------------------------------- inputs


class _Input(NamedTuple):
    """An input of a graph: its name there, which of INPUTS it is, dtype, sizes (0: any)."""

    name: str
    role: str
    dtype: Any
    shape: tuple[int, ...]


def _inputs(file: str, graph: Any) -> list[_Input]:
    """The graph's inputs, by name or by being the only one of a kind."""
    onnx, _ = _libraries()
    weights = {initializer.name for initializer in graph.initializer}
    given = {i.name: i.type.tensor_type for i in graph.input if i.name not in weights}
    roles = {name: name for name in given if name in INPUTS}
    for role in ("pixel_values", "input_ids"):
        alike = [n for n, t in given.items() if n not in roles and _fits(t, role)]
        if role not in roles.values() and len(alike) == 1:
            roles[alike[0]] = role
    wrong = [name for name, t in given.items() if name not in roles or not _fits(t, roles[name])]
    if wrong:
        said = ", ".join(f"{name} {_shape(given[name])}" for name in wrong)
        raise VerificationError(
            f"{file}: it cannot be told what the inputs are: {said}; expected pixel_values "
            "(floats, 4 axes), input_ids and attention_mask (integers, 2 axes): name them so when "
            "you export"
        )
    return [
        _Input(name, roles[name], onnx.helper.tensor_dtype_to_np_dtype(t.elem_type), _shape(t))
        for name, t in given.items()
    ]


def _fits(kind: Any, role: str) -> bool:
    """Whether a tensor's type is one of a role's."""
    onnx, _ = _libraries()
    floats = np.issubdtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), np.floating)
    floats = floats or kind.elem_type == onnx.TensorProto.BFLOAT16
    axes = len(kind.shape.dim) if kind.HasField("shape") else _AXES[role]
    return axes == _AXES[role] and (role == "attention_mask" or floats == (role == "pixel_values"))


def _shape(kind: Any) -> tuple[int, ...]:
    return tuple(axis.dim_value for axis in kind.shape.dim)


@dataclass(frozen=True)
class _Runner:
    """Runs a case, and gives some tensors by our names.

    A graph of both encoders needs images and texts: `spare` ones stand in for those that a case
    has not.
    """

    session: Any
    inputs: Sequence[_Input]
    named: Mapping[str, str]
    spare: Mapping[str, Array]

    def __call__(self, case: Case) -> Shelf:
        """A case's activations.

        Raises:
            Refused: it lacks an input, or the graph was exported for other shapes.
        """
        own = inputs_of(case)
        given = {**self.spare, **own}
        if "input_ids" in given and "attention_mask" not in own:
            given["attention_mask"] = np.ones_like(given["input_ids"])
        for needed in self.inputs:
            if needed.role not in given:
                raise Refused(f"the graph needs {needed.role}, which no case has")
        found = self._batched({i.role: given[i.role] for i in self.inputs})
        needs = {"image": "pixel_values", "text": "input_ids"}
        both = own.keys() >= set(needs.values())
        shelf = Shelf()
        shelf.update(
            taken_apart({n: a for n, a in found.items() if both or needs.get(stream(n)) in own})
        )
        return shelf

    def _batched(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """All at once, or one by one where the graph takes one image, or one text, and no more."""
        sizes = {len(array) for array in given.values()}
        single = all(i.shape[:1] == (1,) for i in self.inputs)
        if not single or sizes == {1} or {"pixel_values", "input_ids"} <= given.keys():
            return self._run(given)
        rows = [{r: a[i : i + 1] for r, a in given.items()} for i in range(max(sizes))]
        each = [self._run(row) for row in rows]
        return {name: np.concatenate([one[name] for one in each]) for name in self.named}

    def _run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        for i in self.inputs:
            shape = np.shape(given[i.role])
            if any(n not in (0, m) for n, m in zip(i.shape, shape, strict=bool(i.shape))):
                raise Refused(
                    f"the graph takes {i.role} {i.shape}, the case has {shape}; export it with "
                    "dynamic axes"
                )
        feeds = {i.name: np.asarray(given[i.role], i.dtype) for i in self.inputs}
        values = self.session.run(list(self.named.values()), feeds)
        return dict(zip(self.named, map(np.asarray, values), strict=True))
