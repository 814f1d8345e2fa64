"""Where attention looks: from one patch, with sliders, and from the pooling head's query."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

from .arrays import Array, among, needed, patch_side
from .canvas import Axes, label, needs, outline, picture
from .features import over_patches
from .imagery import image as draw_image

__all__ = ["attention", "explore_attention", "pooling"]

MEAN = "mean of heads"


def attention(
    trace: Mapping[str, Array],
    block: int,
    head: int | None = None,
    patch: int = 0,
    *,
    image: int = 0,
    patch_size: int | None = None,
    ax: Axes | None = None,
) -> Any:
    """Whom a patch of the image attends to: the weights of one head, over the image.

    Args:
        trace: with `pixel_values` and `vision.blocks.{block}.attn.pattern`.
        block: which block, from 0.
        head: which head, from 0; None is the mean of all.
        patch: which patch looks, row by row from 0; it is framed.
        image: which image of the trace.
        patch_size: side of a patch in pixels, needed where several fit.
        ax: draw the weights there; else they stand beside the image.

    Raises:
        AIMv2Error: not recorded, or there is no such image, head or patch.
    """
    name = f"vision.blocks.{block}.attn.pattern"
    pixels, pattern = needed(trace, "pixel_values", name)
    among(image, len(pixels), "image")
    weights = pattern[image]  # (H, N, N)
    among(patch, weights.shape[1], "patch")
    if head is not None:
        among(head, len(weights), "head")
    seen = weights.mean(axis=0)[patch] if head is None else weights[head, patch]
    title = f"block {block}, {MEAN if head is None else f'head {head}'}, patch {patch}"
    side = patch_side(pixels.shape[2:], len(seen), patch_size)
    shown: dict[str, Any] = {"unit": "attention weight", "picked": patch, "patch_size": side}
    if ax is not None:
        return over_patches(seen, pixels[image], title=title, ax=ax, **shown)
    figure, axes = picture(1, 2, width=8.0, height=3.7)
    draw_image(pixels[image], patch=side, title="the picked patch, framed", ax=axes[0, 0])
    outline(axes[0, 0], patch, pixels.shape[3] // side, side)
    over_patches(seen, pixels[image], title=title, ax=axes[0, 1], **shown)
    return figure


def pooling(trace: Mapping[str, Array], *, image: int = 0, patch_size: int | None = None) -> Any:
    """What the pooling head's learned query looks at, head by head.

    The trace must hold `pixel_values` and `vision.head.pattern`. All maps have one scale.

    Raises:
        AIMv2Error: not recorded, or there is no such image.
    """
    pixels, pattern = needed(trace, "pixel_values", "vision.head.pattern")
    among(image, len(pixels), "image")
    weights = pattern[image, :, 0]  # (H, N)
    across = min(3, len(weights))
    down = -(-len(weights) // across)
    figure, axes = picture(down, across, width=2.4 * across + 0.9, height=2.5 * down)
    for ax in axes.ravel()[len(weights) :]:
        ax.set_visible(False)
    limits = 0.0, float(weights.max())
    shown: dict[str, Any] = {"limits": limits, "scale": False, "unit": "weight"}
    for head, (ax, seen) in enumerate(zip(axes.ravel(), weights, strict=False)):
        title = f"head {head}"
        over_patches(seen, pixels[image], patch_size=patch_size, title=title, ax=ax, **shown)
        ax.set(xticks=[], yticks=[])
        label(ax, title=title)
    figure.colorbar(axes[0, 0].images[-1], ax=axes, label="weight", shrink=0.7)
    return figure


# ---------------------------------------------------------------------------- with sliders


def explore_attention(
    trace: Mapping[str, Array],
    block: int = 0,
    head: int | None = None,
    patch: int = 0,
    *,
    patch_size: int | None = None,
) -> Explorer:
    """`attention` with sliders for block, head and patch, in a notebook that is running.

    Where nothing runs, on GitHub for example, the picture of the first choice is seen.

    Raises:
        AIMv2Error: as `attention`; ipywidgets cannot be imported.
    """
    return Explorer(trace, block, head, patch, patch_size)


class Explorer:
    """The sliders and the picture. `attention` is the function it calls."""

    def __init__(
        self,
        trace: Mapping[str, Array],
        block: int,
        head: int | None,
        patch: int,
        patch_size: int | None,
    ) -> None:
        try:
            import ipywidgets
        except ImportError as error:
            raise needs("ipywidgets", error) from error
        self.trace, self.patch_size = trace, patch_size
        self.still = attention(trace, block, head, patch, patch_size=patch_size)
        blocks = [i for i in range(1000) if f"vision.blocks.{i}.attn.pattern" in trace]
        heads, patches = trace[f"vision.blocks.{block}.attn.pattern"].shape[1:3]
        choices = [(MEAN, -1), *((f"head {i}", i) for i in range(heads))]
        self.block = ipywidgets.SelectionSlider(
            description="block", options=blocks, value=block, continuous_update=False
        )
        self.head = ipywidgets.SelectionSlider(
            description="head",
            options=choices,
            value=-1 if head is None else head,
            continuous_update=False,
        )
        self.patch = ipywidgets.IntSlider(
            description="patch", min=0, max=patches - 1, value=patch, continuous_update=False
        )
        self.shown = ipywidgets.HTML(_as_html(self.still))
        sliders = ipywidgets.HBox([self.block, self.head, self.patch])
        self.widget = ipywidgets.VBox([sliders, self.shown])
        for slider in (self.block, self.head, self.patch):
            slider.observe(self._draw, "value")

    def _draw(self, _: Any) -> None:
        head = None if self.head.value < 0 else self.head.value
        chosen = self.block.value, head, self.patch.value
        picture = attention(self.trace, *chosen, patch_size=self.patch_size)
        self.shown.value = _as_html(picture)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """For IPython: the widget where one can run, else the still picture."""
        data, metadata = self.still._repr_mimebundle_()
        return {**self.widget._repr_mimebundle_(**kwargs), **data}, metadata


def _as_html(picture: Any) -> str:
    """The picture with its alternative text, for a widget."""
    image = base64.b64encode(picture.png()).decode()
    return f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{image}">'
