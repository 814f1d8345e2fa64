"""The residual stream along depth: how long its vectors are, and what each block adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import Array, depth_of, needed
from .canvas import COLOURS, Axes, canvas, label, open_frame

__all__ = ["contributions", "norms"]


def norms(trace: Mapping[str, Array], *, tower: str = "vision", ax: Axes | None = None) -> Any:
    """The length of the residual stream's vectors after each block: median and 10 to 90 % band.

    The trace must hold `{tower}.embed` and every `{tower}.blocks.*.resid_post`.

    Raises:
        AIMv2Error: not recorded.
    """
    depth = depth_of(trace, tower)
    names = [f"{tower}.embed", *(f"{tower}.blocks.{i}.resid_post" for i in range(depth))]
    lengths = np.stack([_lengths(x).ravel() for x in needed(trace, *names)])  # (depth + 1, B·N)
    low, middle, high = np.percentile(lengths, [10, 50, 90], axis=1)
    figure, ax = canvas(ax)
    at = np.arange(depth + 1)
    ax.fill_between(at, low, high, color=COLOURS[4], alpha=0.4, label="10 to 90 % of tokens")
    ax.plot(at, middle, color=COLOURS[0], marker="o", label="median")
    ax.set_ylim(bottom=0)
    ax.set_xticks(at, ["embed", *map(str, range(depth))], rotation=45 if depth > 12 else 0)
    ax.legend(frameon=False)
    open_frame(ax)
    label(
        ax,
        title=f"the residual stream of the {tower} encoder",
        x="after block",
        y="length of a token's vector",
        alt=f"The median length of the {tower} encoder's residual stream goes from "
        f"{middle[0]:.3g} at the embedding to {middle[-1]:.3g} after block {depth - 1}.",
    )
    return figure


def contributions(
    trace: Mapping[str, Array], *, tower: str = "vision", ax: Axes | None = None
) -> Any:
    """What attention and MLP of each block add, as a share of the stream they add it to.

    The share is the mean length of what is added over the mean length of the stream there. The
    trace must hold `embed`, and `attn.out`, `resid_mid`, `mlp.out`, `resid_post` of every block.

    Raises:
        AIMv2Error: not recorded.
    """
    depth = depth_of(trace, tower)
    before = f"{tower}.embed"
    shares = np.empty((2, depth))
    for i in range(depth):
        parts = ("attn.out", "resid_mid", "mlp.out", "resid_post")
        names = [before, *(f"{tower}.blocks.{i}.{part}" for part in parts)]
        x, attended, mid, hidden, _ = (_lengths(a).mean() for a in needed(trace, *names))
        shares[:, i] = 100 * attended / x, 100 * hidden / mid
        before = names[-1]
    figure, ax = canvas(ax)
    at = np.arange(depth)
    ax.bar(at - 0.2, shares[0], 0.38, color=COLOURS[0], label="attention")
    ax.bar(at + 0.2, shares[1], 0.38, color=COLOURS[1], label="MLP", hatch="//", edgecolor="white")
    ax.set_xticks(at)
    ax.legend(frameon=False)
    open_frame(ax)
    label(
        ax,
        title=f"what each block adds to the {tower} encoder's stream",
        x="block",
        y="length added [% of the stream]",
        alt="What each block adds, in percent of the stream's length. Attention: "
        + ", ".join(f"{s:.0f}" for s in shares[0])
        + ". MLP: "
        + ", ".join(f"{s:.0f}" for s in shares[1])
        + ".",
    )
    return figure


def _lengths(x: Array) -> Array:
    """(B, N, D) to (B, N)."""
    return np.asarray(np.linalg.norm(x.astype(np.float64), axis=-1))
