"""A conformance pack: what a port in any language runs on, what must come out, how far it may err.

    inputs.safetensors     test inputs, as write_inputs writes them
    expected.safetensors   "{case}/{activation}" in float64; what raw images and texts become
    tolerances.json        {"{case}/{activation}": {"float32": {"overall": ..., "worst": ...}, ...}}
    model.json             configuration, cases, parameters
    README.md              the formulae of the model and of the comparison (conformance_page.py)

A project vendors the folder that `export` writes. `check` is the comparison that its README
describes, with formulae of its own; only other layouts of arrays it reads as the verifier does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, VerificationError
from ..layers import merge_heads
from ..ops import Array
from ..weights.files import open_source, parse_json_object, shown
from ..weights.safetensors_file import read_safetensors
from ..weights.stored import StoredTensor
from .asserts import Ported, as_candidate, check_required, only
from .candidate import Candidate, images_apart
from .conformance_export import (
    DTYPES,
    EXPECTED,
    FORMAT,
    INPUTS,
    MODEL,
    TOLERANCES,
    VERSION,
    export,
)
from .inputs import RAW, Inputs, read_inputs
from .measure import MERGED
from .shapes import ShapeMismatch, reconciled

__all__ = ["Failure", "Pack", "check", "export", "open_pack"]

_REMEDY = "'aimv2-np verify export MODEL --out FOLDER' writes one"


@dataclass(frozen=True)
class Failure:
    """An activation that is wrong: its key in the pack, and in which way."""

    key: str
    says: str

    def __str__(self) -> str:
        return f"{self.key}: {self.says}"


def check(
    folder: str | os.PathLike[str],
    outputs: Ported,
    *,
    dtype: str = "float32",
    taps: str | Iterable[str] | None = None,
    require: str | Iterable[str] = (),
) -> list[Failure]:
    """What is wrong with a port's outputs, in the order of computation; nothing if it is right.

    `outputs`, `taps` and `require` are as in `assert_matches`; no function. What the pack has no
    values for is passed over, and so is what the port does not give, unless it is required: "*" is
    all that the pack has.

    Raises:
        VerificationError: no such pack, nothing in common with it, or less than is required.
    """
    return open_pack(folder).check(outputs, dtype=dtype, taps=taps, require=require)


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack's files, read; of the expected values one array at a time, when it is compared."""

    folder: Path
    about: dict[str, Any]  # model.json
    inputs: Inputs
    expected: dict[str, StoredTensor]
    tolerances: dict[str, Any]

    def check(
        self,
        outputs: Ported,
        *,
        dtype: str = "float32",
        taps: str | Iterable[str] | None = None,
        require: str | Iterable[str] = (),
    ) -> list[Failure]:
        """As the function `check`."""
        if dtype not in DTYPES:
            raise VerificationError(
                f"dtype {dtype!r:.80}: a pack has tolerances for {', '.join(DTYPES)}"
            )
        port = as_candidate(outputs, self.inputs.cases, dtype=dtype)
        port = replace(
            port, cases={**port.cases, RAW: images_apart(port, len(self.inputs.sources))}
        )
        port = port if taps is None else only(port, taps)
        check_required(port, self._known(), require)
        given = {f"{case}/{name}" for case in port.cases for name in port.names(case)}
        common = [key for key in self.expected if key in given]
        if not common:
            raise VerificationError(
                f"{port.name} gives nothing that {self.folder} has values for, such as "
                f"{shown(next(iter(self.expected)))}"
            )
        says = {key: self._wrong(key, port, dtype) for key in common}
        return [Failure(key, said) for key, said in says.items() if said]

    def _wrong(self, key: str, port: Candidate, dtype: str) -> str:
        """What is wrong with one activation, or ""."""
        case, _, name = key.partition("/")
        true, allowed = np.asarray(self.expected[key].plain()), self.tolerances[key][dtype]
        found = np.asarray(port.get(case, name))
        if found.dtype.kind not in "biuf":
            return f"{found.dtype}, expected real numbers"
        try:
            found = self._laid_out(case, name, found, true.shape)
        except ShapeMismatch as error:
            return str(error)
        if allowed is None:
            return ""
        if case == RAW:
            errors = {"largest": float(np.abs(np.subtract(found, true, dtype=np.float64)).max())}
        else:
            real = self._real(case, name, true)
            errors = _errors(_vectors(found, real), _vectors(true, real))
        said = (
            f"{which} {error:.3g} (allowed {allowed[which]:.3g})"
            for which, error in errors.items()
            if not error <= allowed[which]  # NaN is wrong
        )
        return ", ".join(said)

    def _real(self, case: str, name: str, true: Array) -> Array | None:
        """Which tokens count, (K, T): those up to the first end token; None where all do."""
        ids = next(c.input_ids for c in self.inputs.cases if c.name == case)
        if ids is None or not name.startswith("text.") or true.ndim < 3:
            return None
        ids = np.asarray(ids)[:, : true.shape[-2]]  # (K, T, D) or (K, H, T, T)
        ends = ids == self.about["config"]["text"]["eos_token_id"]
        return np.cumsum(ends, axis=1) - ends == 0

    def _laid_out(self, case: str, name: str, found: Array, shape: tuple[int, ...]) -> Array:
        """An activation in the expected shape, heads side by side.

        Raises:
            ShapeMismatch: it cannot be read so.
        """
        if name.startswith("pixel_values") and found.ndim in (3, 4):
            whole = self._cut(found if found.ndim == 4 else found[None], shape)
            return np.asarray(reconciled("pixel_values", whole, (1, *shape))[0][0])
        if case == RAW:
            return reconciled(name, self._unpadded(name, found, shape), shape)[0]
        tower, config = name.partition(".")[0], self.about["config"]
        sizes = config.get(tower, config)
        grid = None
        if tower == "vision":
            pixels: Any = next(c.pixel_values for c in self.inputs.cases if c.name == case)
            grid = tuple(n // sizes["patch_size"] for n in pixels.shape[2:])
        if not name.endswith(MERGED):
            return reconciled(name, found, shape, grid)[0]
        batch, tokens, width = shape
        heads = sizes["num_attention_heads"]
        apart = batch, heads, tokens, width // heads
        return np.asarray(merge_heads(reconciled(name, found, apart, grid)[0]))

    def _cut(self, found: Array, shape: tuple[int, ...]) -> Array:
        """An image without the pixels beyond its last whole patch."""
        if self.about["preprocessing"]["do_center_crop"]:
            return found
        channels, height, width = shape
        last = found.shape[3] == channels != found.shape[1]
        return found[:, :height, :width] if last else found[:, :, :height, :width]

    def _unpadded(self, name: str, found: Array, shape: tuple[int, ...]) -> Array:
        """Tokens without columns of padding beyond those that are expected."""
        if found.ndim != len(shape):
            return found
        fill = self.about["tokenizer"]["pad_token_id"] if name == "input_ids" else 0
        more = found[..., shape[-1] :]
        return found[..., : shape[-1]] if (more == fill).all() else found

    def _known(self) -> dict[str, list[str]]:
        """What the pack has values for, by case."""
        known: dict[str, list[str]] = {}
        for key in self.expected:
            case, _, name = key.partition("/")
            known.setdefault(case, []).append(name)
        return known


def _vectors(values: Array, real: Array | None) -> Array:
    """One per row, (R, W); `real` (K, T) says which tokens count."""
    values = np.atleast_1d(np.asarray(values, np.float64))
    if real is not None:
        values = values if values.ndim == 3 else values.swapaxes(1, 2)  # (K, T, H, T)
        values = values[real]
    return values.reshape(-1, values.shape[-1])


def _errors(found: Array, true: Array) -> dict[str, float]:
    """As the README says."""
    with np.errstate(all="ignore"):
        size = np.sqrt(np.mean(np.sum(true**2, axis=-1))) or 1.0
        off = np.sqrt(np.sum((found - true) ** 2, axis=-1))
        overall = np.sqrt(np.mean(off**2))
        return {"overall": float(overall / size), "worst": float(off.max() / size)}


# ---------------------------------------------------------------------------- reading


def open_pack(folder: str | os.PathLike[str]) -> Pack:
    """Open a pack.

    Raises:
        VerificationError: no such folder, no pack, or one of another version; says what to do.
    """
    path = Path(folder)
    try:
        about, tolerances = (_json(path / name) for name in (MODEL, TOLERANCES))
        expected = read_safetensors(path / EXPECTED).tensors
    except CheckpointError as error:
        raise VerificationError(f"{path}: no conformance pack: {error}; {_REMEDY}") from error
    if about.get(FORMAT) != VERSION:
        raise VerificationError(
            f"{path}: {MODEL} has the format {shown(about.get(FORMAT))}, this version of aimv2-np "
            f"reads {VERSION}; {_REMEDY}"
        )
    for key in expected:
        if not set(DTYPES) <= set(tolerances.get(key, ())):
            raise VerificationError(
                f"{path}: {TOLERANCES} says nothing of {shown(key)}: these files belong to "
                f"different packs; {_REMEDY}"
            )
    return Pack(path, about, read_inputs(path / INPUTS), expected, tolerances)


def _json(path: Path) -> dict[str, Any]:
    source = open_source(path)
    return parse_json_object(source.read(0, source.size), str(path))
