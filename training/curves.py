"""Draw a run's log: losses and what was recognised, along both steps of training.

python curves.py           # results/log.jsonl to results/curves.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from paths import RESULTS

_BLUE, _ORANGE, _GREEN = "#0072b2", "#d55e00", "#009e73"  # told apart by the colour-blind too


def _line(
    axes: Axes, rows: list[dict], key: str, label: str, factor: float = 1, **look: str
) -> None:
    axes.plot(
        [row["step"] for row in rows], [row[key] * factor for row in rows], label=label, **look
    )


def draw(rows: list[dict], target: Path) -> None:
    """Two columns, a step of training each: losses above, accuracies below."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 6), sharex="col", layout="constrained")
    titles = {"vision": "1 · vision encoder", "text": "2 · text tower and head, trunk frozen"}
    for (part, title), (losses, found) in zip(titles.items(), grid.T, strict=True):
        here = [row for row in rows if row["part"] == part]
        _line(losses, here, "contrastive", "contrastive", color=_BLUE)
        if part == "vision":
            _line(losses, here, "words", "words of the captions", color=_ORANGE, linestyle="--")
        _line(found, here, "trained", "training pictures, top-1", 100, color=_GREEN, linestyle=":")
        _line(found, here, "top1", "unseen artist, top-1", 100, color=_BLUE)
        _line(found, here, "top5", "unseen artist, top-5", 100, color=_ORANGE, linestyle="--")
        losses.set(title=title, ylabel="loss, nats")
        found.set(xlabel="optimiser steps", ylabel="recognised, %", ylim=(0, 100))
        for axes in (losses, found):
            axes.grid(alpha=0.3)
            axes.legend()
    figure.savefig(target, dpi=110)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, default=RESULTS / "log.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS / "curves.png")
    options = parser.parse_args()
    lines = options.log.read_text().splitlines()
    draw([json.loads(line) for line in lines], options.out)
    print(options.out)


if __name__ == "__main__":
    main()
