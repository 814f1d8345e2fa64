"""`load(..., quirks=...)`: models that deviate from AIMv2 as other libraries do.

A port of a library that deviates can so be checked against what it ports. A quirk is made of the
verifier's mistakes (verify/mistakes), each a small patch of the reference. Such a model runs
section by section in the composed form, with Numba, too, and so at NumPy's speed. Traces, hidden
states and attentions show its own numbers.

    model = aimv2_np.load("large-patch14-224-lit", quirks="transformers")
    model = aimv2_np.load("large-patch14-224", quirks=["rms-eps", "gelu"])
    print(aimv2_np.quirks.QUIRKS["transformers"].says)

Quirks change the encoders; what joins them stays. What AIMv2 cannot read stays refused, such as a
text without an end token. Images of other sizes are taken where the library takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from numpy.typing import ArrayLike

from . import ops
from .backend import in_scope
from .checks import check_pixels
from .errors import BackendUnavailable, ConfigError, ImageError
from .models import TextEncoder, VisionEncoder
from .ops import Array
from .outputs import HostArray
from .pipelines import LiTPipeline, Pipeline, VisionPipeline
from .trace import NO_TAP, Tap
from .verify.mistakes import Mistake, every
from .verify.walk import Case, Model, State, Step, run, sections

__all__ = ["QUIRKS", "Quirk", "planted", "quirky"]

BACKENDS = ("numpy", "numba")  # those whose activations are NumPy's, as mistakes expect


def _as_it_is(mistake: Mistake) -> Mistake:
    return mistake


def _in_vision(mistake: Mistake) -> Mistake:
    return mistake.confined("vision.")


def _without_mask(mistake: Mistake) -> Mistake:
    """Made only where no attention mask is passed."""

    def patch(step: Step) -> Any:
        return mistake.patch(step) if step.case.attention_mask is None else step.value

    return replace(mistake, patch=patch)


@dataclass(frozen=True)
class Quirk:
    """How a library deviates: ids of mistakes, in words, and where in which version of its code.

    `made` says where the mistakes are made, if not wherever they can be.
    """

    mistakes: tuple[str, ...]
    says: str
    source: str
    made: Callable[[Mistake], Mistake] = _as_it_is


_TRANSFORMERS = "models/aimv2/modeling_aimv2.py of transformers 5.23"
_POSITIONS = "images of any size with as many patches as the position table take it as it is"

QUIRKS = {
    "transformers": Quirk(
        ("text-noncausal", "pos-interpolate"),
        says="its default attention, sdpa: the text encoder is causal only where the attention "
        f"mask hides a token of the batch; {_POSITIONS}, also with interpolate_pos_encoding=True",
        source=f"{_TRANSFORMERS}, run: Aimv2TextModel.forward makes no causal mask without an "
        "attention mask, masking_utils.sdpa_mask none for a mask of ones, and Aimv2Attention sets "
        "is_causal to False; Aimv2VisionEmbeddings.forward never sees interpolate_pos_encoding",
    ),
    "transformers-eager": Quirk(
        ("text-noncausal", "pos-interpolate"),
        says="attn_implementation 'eager' or 'flex_attention': the text encoder is causal only "
        f"where an attention mask is passed; {_POSITIONS}, also with interpolate_pos_encoding=True",
        source=f"{_TRANSFORMERS}, run: as above, but masking_utils.eager_mask and "
        "flex_attention_mask make the causal mask for a mask of ones, too",
        made=_without_mask,
    ),
    "original": Quirk(
        ("pos-slice",),
        says="an image of no more patches than the position table has rows takes its first rows, "
        "silently, whatever its grid",
        source="ViTPreprocessor.forward in aim-v1/aim/v1/torch/layers.py of apple/ml-aim at "
        "bd9e068, run; layers.py of its jax and mlx do the same, read",
    ),
    "ovis2": Quirk(
        ("no-final-norm", "pos-slice"),
        says="the image encoder's features are taken before post_trunk_norm (so is what a pooling "
        "head gets, which Ovis2 lacks); positions as in the original",
        source="the code beside AIDC-AI's Ovis2 on the hub, read: encode in modeling_ovis.py takes "
        "hidden_states[-1], which AIMv2Transformer keeps before the norm; so does "
        "ovis/vllm/aimv2/modeling_aimv2.py of AIDC-AI/Ovis at e8dbc11. Ovis2 in transformers 5.23 "
        "applies the norm",
        made=_in_vision,
    ),
    "vllm": Quirk(
        ("no-final-norm", "pos-slice"),
        says="as ovis2, whose image encoder it runs",
        source="vllm/model_executor/models of vllm-project/vllm, read: ovis.py at 03356f8 passes "
        "require_post_norm=False, and AIMv2ViTPreprocessor slices in aimv2.py at 712378a",
        made=_in_vision,
    ),
}

# Mistakes after which images of other sizes are taken: how many patches fit how many positions.
# (transformers also takes a single patch, and makes it as many tokens as there are positions.)
_SIZES: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    "pos-slice": ("at most", lambda patches, positions: patches <= positions),
    "pos-interpolate": ("exactly", lambda patches, positions: patches == positions),
}

# ---------------------------------------------------------------------------- names


def planted(quirks: str | Iterable[str], backend: str) -> tuple[Mistake, ...]:
    """The mistakes that quirks stand for: names of QUIRKS, or ids of mistakes.

    Raises:
        ConfigError: an unknown name, or a mistake outside the encoders.
        BackendUnavailable: the backend cannot make them.
    """
    if backend not in BACKENDS:
        raise BackendUnavailable(f"quirks run on {' and '.join(BACKENDS)}, not on {backend}")
    mistakes = [mistake for name in _names(quirks) for mistake in _made(name)]
    for mistake in mistakes:
        _check(mistake, backend)
    return tuple({mistake.id: mistake for mistake in mistakes}.values())


def _names(quirks: Any) -> list[str]:
    names = [quirks] if isinstance(quirks, str) else quirks
    names = list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"quirks={quirks!r:.80}: expected a name or a list of names")
    return names


def _made(name: str) -> list[Mistake]:
    known = {mistake.id: mistake for mistake in every()}
    if name in QUIRKS:
        return [QUIRKS[name].made(known[id]) for id in QUIRKS[name].mistakes]
    if name in known:
        return [known[name]]
    near = get_close_matches(name, known) or ["text-noncausal", "rms-eps"]
    raise ConfigError(
        f"there is no quirk {name!r}: known are {', '.join(QUIRKS)}, and each of the verifier's "
        f"{len(known)} mistakes by its id, such as {', '.join(near)} "
        "(aimv2_np.verify.mistakes.every() lists them)"
    )


def _check(mistake: Mistake, backend: str) -> None:
    """Refuse what would be made in part, or not at all."""
    if not all(pattern.startswith(("vision.", "text.", "*.")) for pattern in mistake.patterns):
        raise ConfigError(
            f"the mistake {mistake.id!r} concerns {mistake.patterns[0]}, but quirks change only "
            "what the encoders compute"
        )
    if backend == "numba" and {"vision.patch_embed", "text.token_embed"} & {*mistake.patterns}:
        raise BackendUnavailable(
            f'the mistake {mistake.id!r} reads weights that numba packs; load with backend="numpy"'
        )


# ---------------------------------------------------------------------------- models


def quirky(quirks: str | Iterable[str], backend: str) -> Callable[[Pipeline], Pipeline]:
    """What gives a model quirks; its `info["quirks"]` lists them.

    Raises:
        ConfigError, BackendUnavailable: at once, as `planted`.
    """
    names = _names(quirks)
    mistakes = planted(names, backend)

    def give(plain: Pipeline) -> Pipeline:
        kind: Any = QuirkyVisionPipeline if isinstance(plain, VisionPipeline) else QuirkyLiTPipeline
        given: Pipeline = kind(plain, mistakes, {**plain.info, "quirks": names})
        return given

    return give


class _Quirky:
    """An encoder that runs the sections of a `plain` model, with mistakes planted in them."""

    plain: Model
    planted: Sequence[Mistake]

    def _walk(self, case: Case, tap: Tap) -> State:
        state: State = {}
        for section in sections(self.plain, case):
            if section != "join":
                plan: Any = {"wants": tap.wants, "mistakes": self.planted}
                state = run(self.plain, case, section, state, tap, **plan)
        return state


class QuirkyVision(_Quirky, VisionEncoder):
    """A vision encoder with quirks."""

    @in_scope
    def forward(
        self, pixel_values: ArrayLike, interpolate: bool = False, *, tap: Tap = NO_TAP
    ) -> tuple[Array, Array | None]:
        """Pixels (B, C, Y, X) to patch features (B, N, D) and, with a head, (B, D)."""
        ids, table = {mistake.id for mistake in self.planted}, self.params.pos_embed
        sizes = [_SIZES[id] for id in _SIZES if id in ids and table is not None]
        pixels: Any = pixel_values
        if sizes:
            pixels, interpolate = self._fitting(pixels, *sizes[0]), True
        elif not hasattr(pixels, "shape"):
            given = self.config, self.dtype, self.backend
            pixels = check_pixels(pixels, *given, interpolate=interpolate)
        state = self._walk(Case("", pixel_values=pixels, interpolate=interpolate), tap)
        return state["vision"], state["vision.pooled"]

    def _fitting(self, values: ArrayLike, most: str, fits: Callable[[int, int], bool]) -> HostArray:
        """Images of a size that the library takes, as `check_pixels`."""
        assert self.params.pos_embed is not None
        c, positions = self.config, len(self.params.pos_embed)
        pixels: HostArray = check_pixels(values, c, self.dtype, self.backend, interpolate=True)
        height, width = pixels.shape[2:]
        patches = (height // c.patch_size) * (width // c.patch_size)
        if not fits(patches, positions):
            raise ImageError(
                f"an image of {height}×{width} pixels has {patches} patches; with these quirks "
                f"it may have {most} {positions}, as many as the model has positions"
            )
        return pixels

    @in_scope
    def packed(self, images: Sequence[Array]) -> list[tuple[Array, Array | None]]:
        """`forward` of each image, (C, Y, X) and of any size, one by one."""
        return [self.forward(image[None]) for image in images]


class QuirkyText(_Quirky, TextEncoder):
    """A text encoder with quirks."""

    @in_scope
    def forward(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None, *, tap: Tap = NO_TAP
    ) -> tuple[Array, Array]:
        """Token ids (B, T) to token features (B, T, D) and text features (B, D)."""
        state = self._walk(Case("", input_ids=input_ids, attention_mask=attention_mask), tap)
        return state["text"], state["text.pooled"]


class QuirkyVisionPipeline(QuirkyVision, VisionPipeline):
    """A vision encoder with quirks and its image processor."""

    def __init__(
        self, plain: VisionPipeline, planted: Sequence[Mistake], info: dict[str, Any]
    ) -> None:
        VisionPipeline.__init__(self, *_parts(plain), processor=plain.processor, info=info)
        self.plain, self.planted = plain, planted


class QuirkyLiTPipeline(LiTPipeline):
    """An image-text model whose encoders have quirks."""

    def __init__(
        self, plain: LiTPipeline, planted: Sequence[Mistake], info: dict[str, Any]
    ) -> None:
        super().__init__(
            *_parts(plain), processor=plain.processor, tokenizer=plain.tokenizer, info=info
        )
        self.planted = planted
        vision, text = QuirkyVision(*_parts(plain.vision)), QuirkyText(*_parts(plain.text))
        for encoder in (vision, text):
            encoder.plain, encoder.planted = plain, planted
        self.vision, self.text = vision, text

    def encode_text(self, texts: str | Sequence[str], *, normalize: bool = True) -> HostArray:
        """Embeddings of texts, (K, projection width), in one batch: padding in it may matter."""
        features = self.text_features(*self.tokenize(texts))
        return ops.l2_normalize(features) if normalize else features


def _parts(model: Any) -> tuple[Any, ...]:
    return model.config, model.params, model.backend, model.dtype
