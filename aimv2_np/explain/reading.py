"""What the page's numbers are, in words, and what made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import __version__
from ..pages.markup import Markup, el

if TYPE_CHECKING:
    from .explanation import Explanation

__all__ = ["how_made", "reading"]


def reading(found: Explanation) -> Markup:
    """Each part's definition."""
    said = {"Patches": _patches(found), "Attention": _attention(found)}
    if found.texts is not None:
        said["What a patch adds to a text"] = (
            "A logit is the product of the image's and the text's embedding, times the inverse "
            "temperature. From the patches' last features to the image's embedding all is a sum "
            "over the patches (the pooling head adds up their values by its attention, then come "
            "two matrices) except for one division by the length of the result. With that "
            "attention and that length as they are, a logit is exactly the sum of one term per "
            "patch and one that belongs to none, the head's bias. These terms are shown. Only "
            "differences between logits decide about probabilities: hence, unless you choose "
            "otherwise, each term less the mean of the same patch's terms for the other texts."
        )
        said["What it does not say"] = (
            "A patch's last features hold much that attention brought from other patches; the "
            "terms say where in the last layer something lies, not which pixels it comes from. "
            "Nor are they what would change without the patch: attention and length would change "
            "as well."
        )
    said["Residual stream"] = (
        "Each block adds to a patch's vector what attention and then what the MLP computes. A "
        "length is the root of the sum of squares over the channels. On the axis, "
        "equal distances are equal ratios."
    )
    said["Components"] = (
        "Every vector is scaled to length 1, as RMSNorm, through which all that follows reads "
        "it, keeps its direction alone; then come the principal components over this image's "
        "patches at this depth. Colours go from the 2nd to the 98th percentile of each "
        "component. They belong to this image: the same colour at another depth need not mean the "
        "same."
    )
    rows = (el("div", el("dt", name), el("dd", text)) for name, text in said.items())
    return el("section", el("h2", "What the numbers are"), el("dl", *rows), id="reading")


def _patches(found: Explanation) -> str:
    rows, columns = found.grid
    height, width = found.picture.shape[:2]
    return (
        f"The image as the model sees it, resized and cropped as its preprocessing says: "
        f"{width} pixels wide and {height} high, cut into {rows} rows of {columns} patches. Rows, "
        "columns, blocks and heads are counted from 0."
    )


def _attention(found: Explanation) -> str:
    maps = found.attention
    said = (
        "The softmax of one patch's query with the keys of all: how much of each it reads. It sums "
        "to 100 %. Kept in 8 bits: right to within 0.4 % of the largest weight of its map."
    )
    if maps.query_cell > 1:
        said += f" The image has many patches: {_square(maps.query_cell)} share one map, their mean"
        said += f", which shows sums over {_square(maps.key_cell)}." if maps.key_cell > 1 else "."
    if len(maps.blocks) < found.depth:
        said += f" Here are blocks {', '.join(map(str, maps.blocks))} of {found.depth}."
    return said


def _square(side: int) -> str:
    return f"{side} × {side} patches"


def how_made(found: Explanation) -> Markup:
    """What was run."""
    said = {
        "Model": found.model,
        "Image": found.image,
        "Computed by": f"{found.backend} in {found.dtype}",
        "Version": f"aimv2-np {__version__}",
    }
    if found.texts is not None:
        said["Texts"] = f"{len(found.texts.labels)}, each as {found.texts.prompt!r}"
    rows = (el("div", el("dt", name), el("dd", text)) for name, text in said.items())
    return el("section", el("h2", "What was run"), el("dl", *rows), id="run")
