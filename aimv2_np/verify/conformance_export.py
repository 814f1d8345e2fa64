"""Writing a conformance pack: test inputs, what must come out, and how far a port may be off."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import AIMv2Error, AIMv2Warning, VerificationError
from ..layers import merge_heads
from ..ops import Array
from ..weights.safetensors_file import read_safetensors
from ..weights.tree import expected_shapes
from ..writing import folder_written_whole
from .asserts import as_inputs, as_reference
from .conformance_page import page
from .inputs import RAW, Inputs, write_inputs
from .lanes import lanes, truth
from .locate import ALLOWED, noise_floor, real_tokens
from .measure import Distance, error_of
from .preprocess import LEVELS, rounding
from .raw import RawImage
from .walk import Case, State, keep, names_of, run, sections, short

__all__ = ["DTYPES", "EXPECTED", "FORMAT", "INPUTS", "MODEL", "TOLERANCES", "VERSION", "export"]

DTYPES = ("float32", "bfloat16", "float16")
INPUTS, EXPECTED, TOLERANCES = "inputs.safetensors", "expected.safetensors", "tolerances.json"
MODEL, README = "model.json", "README.md"
_FILES = {INPUTS, EXPECTED, TOLERANCES, MODEL, README}
FORMAT, VERSION = "aimv2_np.conformance", 1
_STORED = {"float64": "F64", "float32": "F32", "int64": "I64"}  # as safetensors calls them
_SHALLOW = ("embed", "norm", "head.context", "pooled")  # what is kept of a tower in every case

Tolerances = dict[str, dict[str, Any]]
Add = Callable[[str, Array], None]


def export(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    inputs: Inputs | Sequence[Case] | str | os.PathLike[str] | None = None,
    force: bool = False,
) -> None:
    """Write a pack; the folder appears when it is complete.

    `model` and `inputs` are as in `assert_matches`; by default there is one more case, "one". Of
    the weights one block is held at a time, of the activations one section's.

    Raises:
        VerificationError: the folder holds something; with `force` a pack is replaced.
        AIMv2Error: it cannot be written.
    """
    target = Path(folder)
    _check_target(target, force)
    pipeline = as_reference(model)
    given = as_inputs(pipeline, inputs)
    given = _with_one(given) if inputs is None else given
    try:
        with folder_written_whole(target) as made:
            _write(made, pipeline, given)
    except OSError as error:
        raise AIMv2Error(f"cannot write {target}: {error.strerror or error}") from error


def _write(made: Path, pipeline: Any, given: Inputs) -> None:
    """The files of a pack."""
    about = _about(pipeline, given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AIMv2Warning)  # one text is too long on purpose
        write_inputs(made / INPUTS, given, about["model"])
        with _tensors(made / EXPECTED) as add:
            tolerances = _calls(pipeline, given.cases, add) | _raw(pipeline, given, add)
        shapes = {key: t.shape for key, t in read_safetensors(made / EXPECTED).tensors.items()}
        texts = {
            TOLERANCES: _lines(tolerances),
            MODEL: json.dumps(about, indent=1) + "\n",
            README: page(pipeline, about, shapes),
        }
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")


def _with_one(inputs: Inputs) -> Inputs:
    """With the first image of a batch as a case, if else a batch would be shown in depth."""
    case = _smallest("vision", inputs.cases)
    if case is None or case.pixel_values is None or len(case.pixel_values) == 1:
        return inputs
    return replace(inputs, cases=[*inputs.cases, Case("one", case.pixel_values[:1])])


def _about(pipeline: Any, inputs: Inputs) -> dict[str, Any]:
    """What model.json holds."""
    tokenizer, processor = (getattr(pipeline, n, None) for n in ("tokenizer", "processor"))
    name = str(getattr(pipeline, "name", "without a name"))
    return {
        FORMAT: VERSION,
        "aimv2_np": __version__,
        "model": Path(name).absolute().name if os.path.exists(name) else name,
        "config": asdict(pipeline.config),
        "preprocessing": processor and asdict(processor),
        "tokenizer": tokenizer
        and {
            "max_length": tokenizer.max_length,
            "begin_token_id": int(tokenizer("").input_ids[0, 0]),
            "end_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "cases": [{"name": c.name, "interpolate": c.interpolate} for c in inputs.cases],
        "texts": inputs.texts,
        "parameters": expected_shapes(pipeline.config),
    }


def _lines(tolerances: Tolerances) -> str:
    """JSON with a line for each activation."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in tolerances.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


# ---------------------------------------------------------------------------- what is expected


def _calls(pipeline: Any, cases: Sequence[Case], add: Add) -> Tolerances:
    """Write what the cases' activations are; return how far others may be off."""
    model, tolerances = truth(pipeline), Tolerances()
    for case in cases:
        for values, noise in _measured(model, case, _wanted(model, case, cases)):
            for name, value in values.items():
                key = f"{case.name}/{name}"
                add(key, _merged(value, np.ndim(value) == 4 and not name.endswith("pattern")))
                tolerances[key] = {
                    dtype: _allowed(noise[dtype, name] | noise_floor(dtype)) for dtype in DTYPES
                }
    return tolerances


def _wanted(model: Any, case: Case, cases: Sequence[Case]) -> set[str]:
    """The activations that a pack keeps of a case.

    All of the first block, and what leaves each, of a tower's smallest case. Not the scores: their
    softmax shows them.
    """
    deep = {tower for tower in ("vision", "text") if case is _smallest(tower, cases)}

    def kept(name: str) -> bool:
        tower, part = name.partition(".")[0], short(name)
        if tower not in ("vision", "text"):
            return name not in ("pixel_values", "input_ids")
        if tower not in deep:
            return part in _SHALLOW and ".blocks." not in name
        inside = ".blocks." in name and ".blocks.0." not in name
        return part == "resid_post" if inside else not part.endswith("scores")

    return set(filter(kept, names_of(model, case)))


def _smallest(tower: str, cases: Sequence[Case]) -> Case | None:
    """The case with the fewest numbers for a tower; not all ports can resample positions."""
    sizes = [
        (case.interpolate, np.size(values), i)
        for i, case in enumerate(cases)
        if (values := case.pixel_values if tower == "vision" else case.input_ids) is not None
    ]
    return cases[min(sizes)[-1]] if sizes else None


def _measured(
    model: Any, case: Case, wanted: set[str]
) -> Iterator[tuple[dict[str, Array], dict[tuple[str, str], Distance]]]:
    """Section by section, activations in float64 and how far correct runs are from them."""
    correct = [(dtype, lane) for dtype in DTYPES for lane in lanes(model, dtype)]
    state, states = State(), [State() for _ in correct]
    with np.errstate(all="ignore"):
        for section in sections(model, case):
            values: dict[str, Array] = {}
            noise: dict[tuple[str, str], Distance] = {}
            see = keep(values, wanted)
            state = run(model, case, section, state, see, wants=wanted.__contains__)
            real = real_tokens(state)
            for i, (dtype, lane) in enumerate(correct):
                see = _against(values, real, noise, dtype, lane.see)
                states[i] = run(
                    lane.model, case, section, states[i], see, wants=wanted.__contains__
                )
            yield values, noise


def _against(
    truths: Mapping[str, Array],
    real: Array | None,
    noise: dict[tuple[str, str], Distance],
    dtype: str,
    see: Callable[[str, Array], Array],
) -> Callable[[str, Array], Array]:
    """Notes how far a correct run is from the truth."""

    def compared(name: str, value: Array) -> Array:
        value = see(name, value)
        if name in truths:
            off = error_of(name, value, truths[name], real)
            noise[dtype, name] = noise.get((dtype, name), off) | off
        return value

    return compared


def _allowed(noise: Distance) -> dict[str, float] | None:
    """What an error may be; None where a correct run is beyond all bounds."""
    if not np.isfinite(noise).all():
        return None
    return {name: float(f"{ALLOWED * size:.4g}") for name, size in noise._asdict().items()}


def _merged(value: Array, heads: bool) -> Array:
    """(B, H, N, E) to (B, N, D)."""
    return np.asarray(merge_heads(value) if heads else value)


def _raw(pipeline: Any, inputs: Inputs, add: Add) -> Tolerances:
    """Write what raw texts and images become; return how far others may be off."""
    tolerances = Tolerances()
    if inputs.texts:
        for name, ids in pipeline.tokenizer(inputs.texts)._asdict().items():
            add(f"{RAW}/{name}", ids)
            tolerances[f"{RAW}/{name}"] = {dtype: {"largest": 0} for dtype in DTYPES}
    for i, source in enumerate(inputs.sources):
        processor, patch = pipeline.processor, pipeline.vision.config.patch_size
        pixels = processor(source)[0]
        level = LEVELS * RawImage(source, processor).level() if processor.do_resize else 0.0
        if not processor.do_center_crop:  # what fills no patch, no model looks at
            pixels = pixels[
                :, : pixels.shape[1] // patch * patch, : pixels.shape[2] // patch * patch
            ]
        add(f"{RAW}/pixel_values_{i}", pixels)
        tolerances[f"{RAW}/pixel_values_{i}"] = {
            dtype: {"largest": float(f"{max(level, rounding(dtype, pixels)):.4g}")}
            for dtype in DTYPES
        }
    return tolerances


# ---------------------------------------------------------------------------- writing


@contextmanager
def _tensors(path: Path) -> Iterator[Add]:
    """Write a safetensors file array by array; none is kept."""
    header: dict[str, Any] = {}
    with tempfile.TemporaryFile(dir=path.parent) as data:

        def add(name: str, array: Array) -> None:
            begin, kind = data.tell(), array.dtype.name
            data.write(np.asarray(array, array.dtype.newbyteorder("<"), order="C").tobytes())
            offsets = [begin, data.tell()]
            header[name] = {
                "dtype": _STORED[kind], "shape": list(array.shape), "data_offsets": offsets,
            }  # fmt: skip

        yield add
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # so that the numbers lie on multiples of their size
        data.seek(0)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(data, file)


def _check_target(folder: Path, force: bool) -> None:
    """A folder may be new, empty, or with `force` a pack that holds nothing else."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise VerificationError(f"{folder}: exists and is no folder")
    if not folder.name or not folder.parent.is_dir():
        raise VerificationError(f"{folder}: expected a new folder's name in one that exists")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and there != _FILES:
        raise VerificationError(f"{folder}: holds other files; expected a new or an empty folder")
    if there and not force:
        raise VerificationError(f"{folder}: holds a pack already; force replaces it")
