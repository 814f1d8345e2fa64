"""Activations that a program of any language wrote into a file.

    {case}/{activation}        one array each: "squares/vision.blocks.0.norm_1"

as .safetensors or .npz. With a single case its name may be left out. Only names, shapes and dtypes
are read at once; an array is read when it is compared, and not kept.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

import numpy as np

from ..errors import CheckpointError, VerificationError
from ..ops import Array
from ..weights.files import open_source, shown
from ..weights.safetensors_file import read_safetensors
from ..weights.stored import PARAMETER_DTYPES, StoredTensor, widened
from .candidate import Candidate
from .gather import Stored, by_case, gathered
from .lanes import DTYPES, as_dtype
from .walk import Case

__all__ = ["read_candidate"]

_EXPECTED = "expected a .safetensors or .npz file of arrays named {case}/{activation}"
_DOWNLOADED = re.compile(r"; (the download is probably incomplete; )?fetch it again$")
_BROKEN = (  # what a damaged archive raises
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, RuntimeError, MemoryError),
)
_SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read_candidate(
    path: str | Path,
    cases: Sequence[Case],
    *,
    names: str | Path | None = None,
    dtype: str | None = None,
    owner: object = None,
) -> Candidate:
    """The activations in a file, under our names.

    `names` is a built-in scheme ("transformers", "timm", "original", "onnx") or a JSON file
    {"their name": "our name"}; without it, names that are not ours are taken for those of the
    scheme that knows most of them. `dtype` is what the port computes in: without it, that of most
    numbers stored. `owner` lives as long as the arrays can be read: the file's temporary folder.

    Raises:
        VerificationError: no such file, not of these formats, or no activation of a case in it.
    """
    path = Path(path)
    arrays, metadata = _opened(path)
    given = by_case(str(path), arrays, [case.name for case in cases])
    said = metadata.get("dtype", "")  # as a saved trace has it
    stated = dtype or (said if said in DTYPES else None)
    found = gathered(str(path), given, cases, names, owner, stated=stated)
    return Candidate(str(path), found.cases, as_dtype(found.dtype), found.notes)


# ---------------------------------------------------------------------------- formats


def _opened(path: Path) -> tuple[dict[str, Stored], Mapping[str, str]]:
    """The arrays of a file by key, and its metadata; what it is its first bytes say.

    Raises:
        VerificationError: it cannot be read.
    """
    with _explained(path):
        start = open_source(path).read(0, 8)
    if start.startswith(b"PK"):
        return _npz(path), {}
    if start.startswith(b"\x93NUMPY"):
        raise VerificationError(
            f"{path}: one array without a name (.npy); numpy.savez(path, **{{name: array}}) writes "
            "several with theirs"
        )
    with _explained(path):
        file = read_safetensors(path)
    return {key: _tensor(tensor) for key, tensor in file.tensors.items()}, file.metadata


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into a VerificationError."""
    try:
        yield
    except CheckpointError as error:
        said = str(error).replace("expected a file of weights", _EXPECTED)
        said = said.replace("this is not a safetensors file", _EXPECTED)
        raise VerificationError(_DOWNLOADED.sub("; write it again", said)) from None
    except _BROKEN as error:
        raise VerificationError(f"{path}: cannot be read: {error}; write it again") from error


def _tensor(tensor: StoredTensor) -> Stored:
    if tensor.dtype.startswith(("C64", "F8_", "F6_", "F4")):
        raise VerificationError(f"{tensor.where}: {tensor.dtype} cannot be compared; write float32")

    def read() -> Array:
        with _explained(tensor.source.path):
            if tensor.dtype not in PARAMETER_DTYPES:
                return tensor.plain()
            # not mapped: a port may write the file anew while it is being read
            data = tensor.source.read(tensor.offset, tensor.nbytes)
            values = np.frombuffer(data, PARAMETER_DTYPES[tensor.dtype]).reshape(tensor.shape)
        return widened(values) if tensor.dtype == "BF16" else values

    return Stored(tensor.shape, _SAFETENSORS.get(tensor.dtype, tensor.dtype), read)


def _npz(path: Path) -> dict[str, Stored]:
    """The arrays of a zip archive of .npy files; only their headers are read."""
    with _explained(path), zipfile.ZipFile(path) as archive:
        members = [n for n in archive.namelist() if n.endswith(".npy")]
        if not members:
            whose = "of torch.save" if archive.namelist() else "of a program that gave none"
            raise VerificationError(
                f"{path}: a zip archive without arrays, perhaps {whose}; {_EXPECTED}"
            )
        return {name.removesuffix(".npy"): _member(path, archive, name) for name in members}


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Stored:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        try:
            shape, _, dtype = header(file)
        except (TokenError, SyntaxError) as error:  # a header is a literal of Python's
            raise ValueError(f"{name} has no header: {error}") from error
    bits = dtype == np.dtype("V2")  # bfloat16 of ml_dtypes, which NumPy does not know
    if dtype.kind not in "biuf" and not bits:
        raise VerificationError(
            f"{path}: key {shown(name.removesuffix('.npy'))} holds {dtype}, not numbers (nothing "
            "is unpickled); write one array of numbers per name"
        )

    def read() -> Array:
        with _explained(path), zipfile.ZipFile(path) as again, again.open(name) as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
        return widened(values.view(np.uint16)) if bits else values

    return Stored(shape, "bfloat16" if bits else dtype.name, read)
