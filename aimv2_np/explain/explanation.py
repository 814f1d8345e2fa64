"""All that a page shows of one image, computed from one trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import VisionConfig
from ..errors import ConfigError
from ..image_files import describe
from ..pipelines import PROMPT, LiTPipeline, Pipeline, computed_nan, frame, no_text_encoder
from ..tokenizer import as_texts
from ..trace import Trace
from .attention import MOST_WEIGHTS, AttentionMaps, attention_maps
from .depth import Components, Residual, components, residual
from .texts import Texts, texts_of

__all__ = ["Explanation", "explain"]

_NAMES = (
    "pixel_values", "vision.embed", "vision.blocks.*.attn.q", "vision.blocks.*.attn.k",
    "vision.blocks.*.attn.out", "vision.blocks.*.mlp.out", "vision.blocks.*.resid_post",
    "vision.norm",
)  # fmt: skip
_NAMES_HEAD = ("vision.head.pattern", "vision.head.v")
_NAMES_TEXTS = ("image_features", "text_embeds", "logit_scale", "logits_per_image")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a model did with one image. L blocks, H heads, N patches in a grid (rows, columns).

    `picture` uint8 (Y, X, 3) is what the model sees, cut to whole patches; `pooling` (H, N) what
    the pooling head looks at, None without such a head; `texts` None where there were none.
    """

    model: str
    backend: str
    dtype: str
    image: str
    grid: tuple[int, int]
    depth: int
    picture: NDArray[np.uint8]
    attention: AttentionMaps
    residual: Residual
    components: Components
    pooling: NDArray[np.float32] | None
    texts: Texts | None

    def to_json(self) -> dict[str, Any]:
        """Its numbers, without those of attention, as JSON takes them; lengths are means."""
        said = self.texts
        lengths = {name: getattr(self.residual, name) for name in ("stream", "attention", "mlp")}
        return {
            "model": self.model,
            "backend": self.backend,
            "dtype": self.dtype,
            "image": self.image,
            "grid": list(self.grid),
            "prompt": None if said is None else said.prompt,
            "texts": [] if said is None else said.to_json(),
            "pooling": None if self.pooling is None else self.pooling.tolist(),
            "lengths": {name: values.mean(axis=1).tolist() for name, values in lengths.items()},
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page; it appears under its name only when it is complete.

        Raises:
            AIMv2Error: the file cannot be written.
        """
        from ..writing import written_whole
        from .page import page

        with written_whole(Path(path)) as partial:
            partial.write_text(page(self), encoding="utf-8")


def explain(
    model: Pipeline,
    image: Any,
    texts: str | Sequence[str] | None = None,
    *,
    prompt: str = PROMPT,
    blocks: Sequence[int] | None = None,
    most_weights: int = MOST_WEIGHTS,
    exif: bool = True,
    tick: Callable[[str], object] = str,
) -> Explanation:
    """What a loaded model does with one image: a path, a PIL image, or a uint8 array (Y, X, 3).

    `blocks` are those whose attention is kept (default: all). Where all maps hold more than
    `most_weights`, neighbouring patches share one. `tick` is told what is being done. Beside the
    model, memory for five (N, D) float32 arrays a block is needed: 2 GB for 4,096 patches of Large.

    Raises:
        ConfigError: texts for a vision-only model, a block that the model lacks, or quirks that
            make a logit no sum over patches.
        AIMv2Error: the model computed NaN.
    """
    config = model.vision.config
    chosen = _blocks(blocks, config)
    labels = None if texts is None else tuple(as_texts(texts))
    tick("the model")
    trace = _trace(model, image, labels, prompt, exif)
    ends = [trace[name] for name in ("vision.norm", "logits_per_image") if name in trace]
    if not all(np.isfinite(end).all() for end in ends):
        raise computed_nan(model.name)
    pixels = trace["pixel_values"][0]
    grid = (pixels.shape[1] // config.patch_size, pixels.shape[2] // config.patch_size)
    rows, columns = (side * config.patch_size for side in grid)
    said = None
    if labels is not None and isinstance(model, LiTPipeline):
        said = texts_of(model, trace, labels, prompt)
    return Explanation(
        model=_model(model.name),
        backend=model.vision.backend.name,
        dtype=model.vision.dtype,
        image=_name(image),
        grid=grid,
        depth=config.num_hidden_layers,
        picture=model.processor.picture(pixels[:, :rows, :columns]),
        attention=attention_maps(trace, grid, chosen, most=most_weights, tick=tick),
        residual=residual(trace, config.num_hidden_layers),
        components=components(trace, config.num_hidden_layers, tick=tick),
        pooling=trace["vision.head.pattern"][0, :, 0] if config.use_head else None,
        texts=said,
    )


def _trace(
    model: Pipeline, image: Any, labels: tuple[str, ...] | None, prompt: str, exif: bool
) -> Trace:
    names = [*_NAMES, *(_NAMES_HEAD if model.vision.config.use_head else ())]
    if labels is None:
        return model.trace(images=[image], names=names, exif=exif)
    if not isinstance(model, LiTPipeline):
        raise no_text_encoder(model.name)
    framed = frame(labels, prompt)
    return model.trace([image], framed, names=[*names, *_NAMES_TEXTS], exif=exif)


def _blocks(blocks: Sequence[int] | None, config: VisionConfig) -> list[int]:
    """The blocks that were chosen, in order."""
    depth = config.num_hidden_layers
    chosen = list(range(depth)) if blocks is None else sorted(set(blocks))
    wrong = [block for block in chosen if not 0 <= block < depth]
    if wrong or not chosen:
        found = f"found {wrong[0]}" if wrong else "found none"
        raise ConfigError(f"blocks= takes numbers from 0 to {depth - 1}, {found}")
    return chosen


def _model(name: str) -> str:
    """What the model is called: where a folder lies is nobody's business who gets the page."""
    return Path(name).name if os.path.isabs(name) else name


def _name(image: Any) -> str:
    """What the image is called: a file's name without its folder, or nothing."""
    is_file = isinstance(image, str | os.PathLike)
    return Path(describe(image, "")).name if is_file else "an image"
