"""The reference, one section at a time, with mistakes planted in it where asked.

A section is what a tower does first ("vision.embed"), one block ("vision.blocks.3"), what a tower
does last ("vision.finish"), or what joins two towers ("join"). Several runs can so go side by side,
none holding more than a section's activations, and a run can start in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import layers
from ..models import LiT, VisionEncoder
from ..ops import Array
from ..trace import Tap, activation_names

if TYPE_CHECKING:
    from .mistakes import Planted

__all__ = [
    "Case",
    "Model",
    "See",
    "State",
    "Step",
    "Tick",
    "grid_of",
    "keep",
    "names_of",
    "run",
    "section_of",
    "sections",
    "short",
    "silent",
]

Model = VisionEncoder | LiT
_ATTENTION = ("scores", "pattern", "context", "out")  # steps whose mistakes look at all scores
State = dict[str, Any]  # what flows from a section to the next ones: see `_encoder`
See = Callable[[str, Array], Array]  # an activation's name and value -> what flows on
Tick = Callable[[str], object]  # is told what is being done, for a progress bar


def silent(what: str) -> None:
    """A Tick that says nothing."""


@dataclass(frozen=True, eq=False)
class Case:
    """One call of the model: images, texts, or both."""

    name: str
    pixel_values: Array | None = None  # (B, C, Y, X)
    input_ids: Array | None = None  # (K, T)
    attention_mask: Array | None = None  # (K, T)
    interpolate: bool = False


def sections(model: Model, case: Case, of: str = "joint") -> list[str]:
    """The sections that a case runs through, in order; those of one strand: "image" or "text"."""
    names = []
    images, texts = of in ("joint", "image"), of in ("joint", "text")
    towers = ("vision", case.pixel_values, images), ("text", case.input_ids, texts)
    for tower, inputs, wanted in towers:
        if inputs is not None and wanted:
            depth = _encoder(model, tower).config.num_hidden_layers
            names += [f"{tower}.embed", *(f"{tower}.blocks.{i}" for i in range(depth))]
            names += [f"{tower}.finish"]
    return [*names, "join"] if isinstance(model, LiT) and names else names


def _encoder(model: Model, tower: str) -> Any:
    if isinstance(model, VisionEncoder):
        return model
    return model.vision if tower == "vision" else model.text


def grid_of(model: Model, case: Case) -> tuple[int, int] | None:
    """Rows and columns of a case's patches."""
    if case.pixel_values is None:
        return None
    height, width = np.shape(case.pixel_values)[2:]
    patch = _encoder(model, "vision").config.patch_size
    return height // patch, width // patch


def names_of(model: Model, case: Case) -> list[str]:
    """Every activation that a case makes, in the order of computation."""
    images, texts = case.pixel_values is not None, case.input_ids is not None
    return activation_names(model.config, images=images, texts=texts)


def section_of(name: str) -> str:
    """The section that makes an activation."""
    tower, _, rest = name.partition(".")
    if rest.startswith("blocks."):
        return ".".join(name.split(".", 3)[:3])
    if tower in ("vision", "text"):
        embedding = rest.endswith("embed") or rest == "patch_norm"
        return f"{tower}.embed" if embedding else f"{tower}.finish"
    return {"pixel_values": "vision.embed", "input_ids": "text.embed"}.get(name, "join")


def short(name: str) -> str:
    """An activation's name within its section: "text.blocks.3.attn.q" is "attn.q" there."""
    tower, _, rest = name.partition(".")
    if tower not in ("vision", "text"):
        return name
    if rest.startswith("blocks."):
        return rest.split(".", 2)[2]
    return rest


# ---------------------------------------------------------------------------- mistakes


@dataclass(eq=False)
class Step:
    """What a mistake is told about the step that it replaces.

    `step["attn.q"]` is an earlier activation of the same section, as it flows.
    """

    name: str  # the activation that the step makes
    value: Array  # as it should be
    seen: dict[str, Array]
    model: Model
    case: Case
    section: str
    before: State  # the state before the section

    def __getitem__(self, name: str) -> Array:
        return self.seen[name]

    @property
    def tower(self) -> str:
        """The tower's name: vision, text, or join."""
        return self.section.partition(".")[0]

    @property
    def x(self) -> Any:
        """What entered the section, (B, N, D), in a block and at a tower's end."""
        return self.before.get(self.tower)

    @property
    def sees(self) -> dict[str, Any]:
        """What attention may see: causal, key_mask."""
        return dict(self.before.get(f"{self.tower}.sees", {}))

    @property
    def end(self) -> Any:
        """Where each text ends, (K,)."""
        return self.before["end"]

    @property
    def encoder(self) -> Any:
        """The tower's model, a VisionEncoder or a TextEncoder."""
        return _encoder(self.model, self.tower)

    @property
    def layer(self) -> int:
        """The block's number."""
        return int(self.section.rsplit(".", 1)[1])

    @property
    def p(self) -> Any:
        """The section's parameters: a block's in a block, else the tower's or the model's."""
        if ".blocks." in self.section:
            return self.encoder.params.blocks[self.layer]
        return self.model.params if self.section == "join" else self.encoder.params

    @property
    def heads(self) -> int:
        """Attention heads of the tower."""
        return int(self.encoder.config.num_attention_heads)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        grid = grid_of(self.model, self.case)
        assert grid is not None
        return grid


@dataclass(eq=False)
class _Patched:
    """Shows each activation to `see`, after the mistakes that concern it."""

    step: Step
    mistakes: Sequence[Planted]
    see: See

    def __call__(self, name: str, value: Array) -> Array:
        for mistake in self.mistakes:
            patch = mistake.at(name)
            if patch is not None:
                self.step.name, self.step.value = name, value
                value = np.asarray(patch(self.step), dtype=value.dtype)
        self.step.seen[short(name)] = value = self.see(name, value)
        return value


def keep(seen: dict[str, Array], wanted: Container[str] | None = None) -> See:
    """Lets every activation flow on, and keeps it, or those that are wanted."""

    def see(name: str, value: Array) -> Array:
        if wanted is None or name in wanted:
            seen[name] = value
        return value

    return see


class _Watch(Tap):
    """A tap that shows every activation to a function."""

    def __init__(self, see: See, wants: Callable[[str], bool], prefix: str = "") -> None:
        self._see, self._wants, self._prefix = see, wants, prefix

    def wants(self, name: str) -> bool:
        return self._wants(self._prefix + name)

    def scope(self, prefix: str) -> Tap:
        return _Watch(self._see, self._wants, self._prefix + prefix)

    def __call__(self, name: str, value: Any) -> Any:
        return self._see(self._prefix + name, value)


# ---------------------------------------------------------------------------- running


def run(
    model: Model,
    case: Case,
    section: str,
    state: State,
    see: See,
    *,
    wants: Callable[[str], bool] = lambda name: False,
    mistakes: Sequence[Planted] = (),
) -> State:
    """Run one section and return the state after it; the given one stays as it is.

    `wants` says which attention scores and patterns are needed: only then do all exist at once.
    """
    tower = section.partition(".")[0]
    mistakes = (*getattr(model, "planted", ()), *mistakes)  # those of a model with quirks
    step = Step("", np.empty(0), {}, model, case, section, state)

    def all_wanted(name: str) -> bool:
        here = name.rpartition(".")[0]
        return wants(name) or any(m.at(f"{here}.{step}") for m in mistakes for step in _ATTENTION)

    tap = _Watch(_Patched(step, mistakes, see), all_wanted)
    if section == "join":
        assert isinstance(model, LiT)
        joined = model.join(state.get("vision.pooled"), state.get("text.pooled"), tap)
        return state | joined
    with np.errstate(all="ignore"):  # mistakes may overflow
        return state | _advanced(_encoder(model, tower), case, section, state, tap, mistakes)


def _advanced(
    encoder: Any,
    case: Case,
    section: str,
    state: State,
    tap: Tap,
    mistakes: Sequence[Planted],
) -> State:
    """What a tower's section adds to the state."""
    tower, part = section.split(".", 1)
    scope = tap.scope(f"{tower}.")
    if part == "embed" and tower == "vision":
        return {tower: encoder.embed(case.pixel_values, case.interpolate, tap)}
    if part == "embed":
        x, key_mask, end = encoder.embed(case.input_ids, case.attention_mask, tap)
        return {tower: x, "end": end, f"{tower}.sees": {"causal": True, "key_mask": key_mask}}
    if part == "finish":
        end = (state["end"],) if tower == "text" else ()
        x, pooled = encoder.finish(state[tower], *end, scope)
        return {tower: x, f"{tower}.pooled": pooled}
    c, sees = encoder.config, state.get(f"{tower}.sees", {})
    i, count = int(part.removeprefix("blocks.")), len(encoder.params.blocks)
    for mistake in mistakes:
        i = mistake.weights_of(section, i, count)
    p = encoder.params.blocks[i]
    x = layers.block(
        encoder.backend,
        state[tower],
        p,
        c.num_attention_heads,
        c.rms_norm_eps,
        tap=scope.scope(f"{part}."),
        **sees,
    )
    return {tower: x}
