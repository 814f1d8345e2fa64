"""How the names of other programs become ours: by a built-in table, or by the user's own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from ..config import LiTConfig, TextConfig, VisionConfig
from ..errors import CheckpointError, VerificationError
from ..ops import Array
from ..trace import activation_names
from ..weights.files import open_source, parse_json_object, shown
from .names import TABLES, TEXT_TABLES

__all__ = [
    "OURS",
    "SCHEMES",
    "Scheme",
    "guessed",
    "nearest",
    "pattern",
    "scheme_of",
    "taken_apart",
    "unfused",
]

# Several activations in one array -> what they are.
_FUSED = {
    "attn.qkv": ("attn.q", "attn.k", "attn.v"),
    "mlp.gate_up": ("mlp.gate", "mlp.up"),
}
_WRAPPER = re.compile(r"(model|module|_orig_mod)\.|/model(?=/)")  # what holds a model calls it so
_BLOCK = re.compile(r"(?<![^._/\[])\d+(?=[._/\]])")  # a number between separators
_SUFFIX = re.compile(r"(\.output(\.0)?|_output_0)$")  # hooks and ONNX add it to a module's name


def pattern(name: str) -> re.Pattern[str]:
    """A name with {i} in it, as an expression that captures the number."""
    return re.compile(re.escape(name).replace(r"\{i\}", r"(\d+)"))


@dataclass(frozen=True)
class Scheme:
    """A table from another program's names to ours.

    `texts` says what names without a tower mean in a case that has only texts.
    """

    name: str
    table: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _rules(self) -> tuple[dict[re.Pattern[str], str], dict[re.Pattern[str], str]]:
        texts, table = ({pattern(p): n for p, n in t.items()} for t in (self.texts, self.table))
        return texts, table

    def ours(self, key: str, texts_only: bool = False) -> str | None:
        """Our name of an activation, or None; perhaps of a fused one, as `unfused` takes."""
        return self._found(key, texts_only)

    @cached_property
    def _found(self) -> Callable[[str, bool], str | None]:
        """Remembers: every case has the same names."""
        return lru_cache(maxsize=1 << 14)(self._search)

    def _search(self, key: str, texts_only: bool) -> str | None:
        texts, table = self._rules
        for rules in (texts, table) if texts_only else (table,):
            for form in _forms(key):
                for rule, name in rules.items():
                    match = rule.fullmatch(form)
                    if match is not None:
                        return _filled(name, *match.groups())
        return None


def _forms(key: str) -> Iterator[str]:
    """A name, and the same without what it may be wrapped in."""
    yield key
    key = _SUFFIX.sub("", key.replace("[", ".").replace("]", ""))
    yield key
    while (wrapper := _WRAPPER.match(key)) is not None:
        key = key[wrapper.end() :]
        yield key


def _filled(name: str, number: str = "0") -> str:
    return name.replace("{i}", number).replace("{i-1}", str(int(number) - 1))


# ---------------------------------------------------------------------------- our own names


def _templates() -> list[str]:
    """Every name of ours, with {i} for the block's number."""
    vision = VisionConfig(num_hidden_layers=1, use_head=True)
    names = activation_names(LiTConfig(vision, TextConfig(num_hidden_layers=1)))
    fused = [f"{tower}.blocks.0.{name}" for tower in ("vision", "text") for name in _FUSED]
    return [name.replace("blocks.0.", "blocks.{i}.") for name in [*names, *fused]]


def _of(tower: str) -> dict[str, str]:
    """Our names of a tower, as they are without it."""
    return {n.removeprefix(tower): n for n in _TEMPLATES if n.startswith(tower)}


_TEMPLATES = _templates()
OURS = Scheme("ours", {n: n for n in _TEMPLATES} | _of("vision."), _of("text."))


def nearest(key: str) -> str | None:
    """The name of ours that looks most like another one, if any does."""
    number = _BLOCK.search(key)
    like = key if number is None else f"{key[: number.start()]}{{i}}{key[number.end() :]}"
    found = difflib.get_close_matches(like, _TEMPLATES, n=1)
    return found[0].replace("{i}", number[0] if number else "{i}") if found else None


def unfused(name: str, shape: tuple[int, ...]) -> dict[str, Callable[[Array], Array]]:
    """What an array of some shape holds, by name, and how to take it: all, or q, k and v.

    Fused activations lie side by side in the channels, (B, N, 3·D), or on an axis of their own,
    (B, N, 3, H, E) or (3, B, H, N, E). Where neither fits, or both do, nothing can be taken.
    """
    for fused, parts in _FUSED.items():
        if name.endswith(f".{fused}"):
            prefix, axis = name.removesuffix(fused), _fused_axis(shape, len(parts))
            if axis is None:
                return {}
            return {
                prefix + part: partial(_part, i=i, count=len(parts), axis=axis)
                for i, part in enumerate(parts)
            }
    return {name: np.asarray}


def _part(array: Array, i: int, count: int, axis: int) -> Array:
    """One of several on an axis of their own, which goes, or side by side on a longer one."""
    part = np.split(array, count, axis=axis)[i]
    return part if axis == array.ndim - 1 else part.squeeze(axis)


def taken_apart(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Activations by our names, fused ones taken apart; those that cannot be are left out."""
    return {
        part: take(array)
        for name, array in arrays.items()
        for part, take in unfused(name, array.shape).items()
    }


def _fused_axis(shape: tuple[int, ...], count: int) -> int | None:
    axes = [axis for axis in (0, 2) if len(shape) > 3 and shape[axis] == count]
    if len(axes) == 1:
        return axes[0]
    last = len(shape) - 1
    return last if not axes and last in (1, 2) and shape[last] % count == 0 else None


# ---------------------------------------------------------------------------- choosing one

SCHEMES = {name: Scheme(name, table, TEXT_TABLES.get(name, {})) for name, table in TABLES.items()}


def guessed(keys: Iterable[tuple[str, bool]]) -> tuple[Scheme, int]:
    """The built-in scheme that knows most of some names, and how many it knows.

    Each name comes with whether its case has only texts.
    """
    keys = list(keys)
    known = {s: sum(scheme.ours(*key) is not None for key in keys) for s, scheme in SCHEMES.items()}
    best = max(known, key=known.__getitem__)
    return SCHEMES[best], known[best]


def scheme_of(names: str | Path) -> Scheme:
    """A built-in scheme by its name, or the one in a JSON file {"their name": "our name"}.

    Both sides may have {i} for a block's number.

    Raises:
        VerificationError: it is neither.
    """
    if str(names) in SCHEMES:
        return SCHEMES[str(names)]
    if not str(names).endswith(".json"):
        raise VerificationError(
            f"names {shown(str(names))}: expected {', '.join(SCHEMES)}, or a .json file "
            '{"their name": "our name"}'
        )
    return Scheme(str(names), _read_aliases(Path(names)))


def _read_aliases(path: Path) -> dict[str, str]:
    try:
        source = open_source(path)
        table = parse_json_object(source.read(0, source.size), str(path))
    except CheckpointError as error:
        raise VerificationError(
            f'{error}; expected a JSON object {{"their name": "our name"}}'
        ) from None
    aliases = {}
    for theirs, ours in table.items():
        if not isinstance(ours, str):
            raise VerificationError(
                f"{path}: {shown(theirs)} is {shown(ours)}, expected one of our names as a string"
            )
        aliases[theirs] = _known(path, theirs, ours)
    return aliases


def _known(path: Path, theirs: str, ours: str) -> str:
    """Our name in full, checked."""
    name = OURS.ours(ours.replace("{i}", "0"))
    if name is None:
        near = nearest(ours)
        said = f"; the nearest is {near!r}" if near else ""
        raise VerificationError(
            f"{path}: {shown(theirs)} is {shown(ours)}, which is no activation of ours{said}"
        )
    if theirs.count("{i}") != ours.count("{i}"):
        raise VerificationError(
            f"{path}: {shown(theirs)} and {shown(ours)} must both have {{i}} once, or neither"
        )
    return name.replace("blocks.0.", "blocks.{i}.") if "{i}" in ours else name
