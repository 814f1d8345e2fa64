"""Pictures of the results for the README: bars of relative times, and a roofline.

    python benchmarks/chart.py        results/*.json  →  docs/speed.svg, docs/roofline.svg

SVG written by hand, in the style of docs/model.svg. One picture shows one machine: the one with the
most results.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from cases import ITEMSIZE
from report import Result, is_start, leader, side_names

__all__ = ["bars", "of_one_machine", "roofline"]

HERE = Path(__file__).parent
WIDTH, MARGIN = 960, 30
COLOURS = {"float32": "#2b6cb0", "bfloat16": "#c05621", "int8": "#2f855a"}
STYLE = """  <style>
    text { fill: #1a202c; } .small { font-size: 11px; fill: #4a5568; } .end { text-anchor: end; }
    .head { font-size: 15px; font-weight: bold; } .case { font-weight: bold; }
    .middle { text-anchor: middle; } .ours { font-weight: bold; }
    .line { stroke: #4a5568; stroke-width: 1.2; fill: none; } .grid { stroke: #e2e8f0; }
    .peer { fill: #a0aec0; } .cut { stroke: #ffffff; stroke-width: 3; }
  </style>"""


def picture(height: float, title: str, parts: list[str]) -> str:
    """A white page, so that it also reads where the page around it is dark."""
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f"  <title>{escape(title)}</title>",
        STYLE,
        f'  <rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
        *(f"  {part}" for part in parts),
        "</svg>",
        "",
    ])  # fmt: skip


def words(x: float, y: float, content: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str, more: str = "") -> str:
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f}" {more}/>'


def case_name(result: Result) -> str:
    """Short: large-224, bfloat16, 8 images."""
    model, batch = result["model"].replace("-patch14", ""), result["batch"]
    if is_start(result):
        return f"{model}, process start to first embedding"
    images = f"{batch} image{'s' * (batch > 1)}"
    what = {
        "vision": images,
        "text": f"{batch} prompt{'s' * (batch > 1)}",
        "lit": f"{images}, 64 prompts",
    }
    return f"{model}, {leader(result)['dtype']}, {what[result['part']]}"


def machine_name(result: Result) -> str:
    machine = result["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['instruction_sets'])})"


def of_one_machine(results: list[Result]) -> list[Result]:
    """Those of the machine with the most results, forwards first, small work before large."""
    groups = groupby(sorted(results, key=machine_name), machine_name)
    largest = max((list(group) for _, group in groups), key=len)
    dtypes = list(ITEMSIZE)
    return sorted(
        largest,
        key=lambda r: (is_start(r), r["model"], r["part"], dtypes.index(leader(r)["dtype"]),
                       r["batch"]),
    )  # fmt: skip


# ---------------------------------------------------------------------------- bars

LABEL, BAR, ROW = 250, 120, 18  # widths of label and longest bar, height of a row
LONGEST = 3.0  # longer bars are cut


def bars(results: list[Result]) -> str:
    """Each case a group of bars: every side's median time over that of the first, which is 1."""
    ratios = [
        side["median_seconds"] / leader(result)["median_seconds"]
        for result in results
        for side in result["sides"].values()
    ]
    scale = BAR / min(max(ratios), LONGEST)
    heading = f"Relative time, {leader(results[0])['title']} = 1; shorter is faster"
    parts = [
        words(MARGIN, 32, heading, "head"),
        words(MARGIN, 50, f"{machine_name(results[0])}. Medians of alternating rounds.", "small"),
    ]
    y = 84.0
    for pair in (results[i : i + 2] for i in range(0, len(results), 2)):
        for column, result in enumerate(pair):
            parts += bar_group(result, MARGIN + column * WIDTH / 2, y, scale)
        y += ROW * max(len(result["sides"]) for result in pair) + 40
    return picture(y - 10, "Relative time of each library in each case", parts)


def bar_group(result: Result, x: float, y: float, scale: float) -> list[str]:
    """One case, its name above the bars."""
    parts, names = [words(x, y, case_name(result), "case")], side_names(result)
    start, first = x + LABEL, leader(result)["median_seconds"]
    for i, (key, side) in enumerate(result["sides"].items()):
        ratio, middle = side["median_seconds"] / first, y + 17 + ROW * i
        length = scale * min(ratio, LONGEST)
        end = start + max(length, scale)  # right of the line at 1
        ours = side["title"].startswith("aimv2_np")
        wider = side["dtype"] == "bfloat16" and side.get("computes", "").startswith("f32")
        other = ", in float32" if wider and not ours else ""  # no instructions for what was asked
        fill = f'fill="{COLOURS[side["dtype"]]}"' if ours else 'class="peer"'
        parts += [
            words(start - 6, middle + 4, names[key] + other, "end ours" if ours else "end"),
            f'<rect x="{start:.1f}" y="{middle - 6:.1f}" width="{length:.1f}" height="12" {fill}/>',
            words(end + 6, middle + 4, f"{ratio:.2f}"),
            words(end + 42, middle + 4, f"{side['median_seconds']:.3g} s", "small"),
        ]
        if ratio > LONGEST:
            parts.append(line(end - 16, middle + 8, end - 10, middle - 8, "cut"))
    one, bottom = start + scale, y + 10 + ROW * len(result["sides"])
    return [*parts, line(one, y + 8, one, bottom, "line", 'stroke-dasharray="2 3"')]


# ---------------------------------------------------------------------------- roofline

LEFT, RIGHT, TOP, BOTTOM = 80.0, 540.0, 70.0, 440.0
KEY = 645.0  # where the list of cases begins
MARKER = 4.5  # radius
# Where a number may stand beside its disc, the best place first.
BESIDE = [(0, 18), (-13, 4), (13, 4), (0, -9), *((0, 18 + 13 * i) for i in range(1, 20))]


def roofline(results: list[Result]) -> str:
    """GFLOP/s over the operations for each byte of weights, below what the machine can do."""
    results = [result for result in results if not is_start(result)]
    peaks = highest(results)
    memory = max(result["bandwidth_gb_per_second"] for result in results)
    speeds = [speed(result, side) for result in results for side in shown(result)]
    floor = min(speeds) / 2
    ceiling = 1.6 * max([*peaks.values(), *speeds])
    least, most = floor / memory, 3 * max(intensity(r, leader(r)["dtype"]) for r in results)
    across, up = logarithmic(least, most, LEFT, RIGHT), logarithmic(floor, ceiling, BOTTOM, TOP)
    parts = [
        words(MARGIN, 32, "Speed beside what the machine can do", "head"),
        words(MARGIN, 50, machine_name(results[0]), "small"),
        *axes(across, up, (least, most), (floor, ceiling)),
        *roofs(peaks, memory, across, up),
    ]
    lines = [up(peak) for peak in peaks.values()]
    parts += [*points(results, across, up, lines), *legend(results)]
    height = max(BOTTOM + 60, TOP + 18 * len(results) + 80)
    return picture(height, "Roofline of all cases", parts)


def highest(results: list[Result]) -> dict[str, float]:
    """The best peak that was measured in each dtype."""
    found: dict[str, float] = {}
    for result in results:
        for dtype, measured in result["peak_gflops"].items():
            found[dtype] = max(found.get(dtype, 0.0), *measured.values())
    return found


def intensity(result: Result, dtype: str) -> float:
    """Operations for each byte that must be read at least: every weight once."""
    return float(1e9 * result["gflop"] / (result["weights_read"] * ITEMSIZE[dtype]))


def shown(result: Result) -> list[dict[str, Any]]:
    """The first side, and the fastest of the others if there are any."""
    first, *others = result["sides"].values()
    return [first, *sorted(others, key=lambda side: float(side["median_seconds"]))[:1]]


def speed(result: Result, side: dict[str, Any]) -> float:
    return float(result["gflop"] / side["median_seconds"])


def logarithmic(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Where a number lies on an axis."""
    return lambda x: start + (end - start) * math.log(x / low) / math.log(high / low)


def axes(across: Any, up: Any, xs: tuple[float, float], ys: tuple[float, float]) -> list[str]:
    """Both axes, with a number at 1, 2 and 5 of each power of ten."""
    steps = [m * 10.0**power for power in range(-3, 7) for m in (1, 2, 5)]
    parts = [line(LEFT, TOP, LEFT, BOTTOM, "line"), line(LEFT, BOTTOM, RIGHT, BOTTOM, "line")]
    for tick in (step for step in steps if ys[0] <= step <= ys[1]):
        parts.append(line(LEFT + 1, up(tick), RIGHT, up(tick), "grid"))
        parts.append(words(LEFT - 8, up(tick) + 4, f"{tick:g}", "small end"))
    for tick in (step for step in steps if xs[0] <= step <= xs[1] and f"{step:e}"[0] == "1"):
        parts.append(words(across(tick), BOTTOM + 16, f"{tick:g}", "small middle"))
        parts.append(line(across(tick), TOP, across(tick), BOTTOM - 1, "grid"))
    middle, beside = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2
    parts.append(words(middle, BOTTOM + 36, "operations for each byte of weights", "middle"))
    turned = f'transform="rotate(-90 36 {beside:.0f})"'
    return [*parts, f'<text class="middle" x="36" y="{beside:.0f}" {turned}>GFLOP/s</text>']


def roofs(peaks: dict[str, float], memory: float, across: Any, up: Any) -> list[str]:
    """Under each peak, down the common slope of what memory delivers."""
    parts, named = [], dict[str, str]()
    for dtype, peak in peaks.items():
        colour = f'style="stroke: {COLOURS[dtype]}"'
        parts.append(line(across(peak / memory), up(peak), RIGHT, up(peak), "line", colour))
        one = next((d for d in named if abs(peaks[d] / peak - 1) < 0.05), dtype)  # lines that touch
        named[one] = f"{named[one]}, {dtype}" if one in named else dtype
    for dtype, name in named.items():
        parts.append(words(RIGHT + 6, up(peaks[dtype]) - 3, name, "small"))
        parts.append(
            words(RIGHT + 6, up(peaks[dtype]) + 10, f"{peaks[dtype]:.0f} GFLOP/s", "small")
        )
    ridge = max(peaks.values()) / memory
    parts.append(line(LEFT, BOTTOM, across(ridge), up(ridge * memory), "line"))
    return [*parts, words(LEFT + 46, BOTTOM - 14, f"memory: {memory:.1f} GB/s", "small")]


def points(results: list[Result], across: Any, up: Any, lines: list[float]) -> list[str]:
    """A disc for the first side of each case, a ring for the fastest other; the case's number.

    A number stands where it touches no mark, no other number and no roof (`lines`, their heights).
    """
    discs: list[tuple[float, float, str]] = []
    rings: list[tuple[float, float, str]] = []
    for result in results:
        for side, found in zip(shown(result), (discs, rings), strict=False):
            at = across(intensity(result, side["dtype"])), up(speed(result, side))
            found.append((*at, COLOURS[side["dtype"]]))
    taken = [(x, y) for x, y, _ in discs + rings]
    numbers = []
    for number, (x, y, colour) in enumerate(discs, 1):
        places = ((x + dx, y + dy) for dx, dy in BESIDE)
        where = next((place for place in places if is_free(*place, taken, lines)), (x, y))
        taken.append((where[0], where[1] - 4))  # the middle of the digits
        if where[1] > y + 20:
            numbers.append(line(x, y, where[0], where[1] - 10, "", f'stroke="{colour}"'))
        numbers.append(words(*where, str(number), "small middle"))
    drawn = [mark(x, y, colour, filled=False) for x, y, colour in rings]
    return [*numbers, *drawn, *(mark(*disc) for disc in discs)]


def is_free(x: float, y: float, taken: list[tuple[float, float]], lines: list[float]) -> bool:
    """Whether a number there would touch nothing; its digits reach from y up to y - 8."""
    clear = all(abs(x - other) > 12 or abs(y - 4 - height) > 11 for other, height in taken)
    return clear and all(abs(y - 4 - height) > 7 for height in lines)


def mark(x: float, y: float, colour: str, filled: bool = True) -> str:
    """A disc, or a ring."""
    paint = f'fill="{colour if filled else "#ffffff"}" stroke="{colour}" stroke-width="1.6"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{MARKER}" {paint}/>'


def legend(results: list[Result]) -> list[str]:
    """What the numbers and marks mean."""
    parts = []
    for i, result in enumerate(results, 1):
        parts.append(words(KEY + 14, TOP + 18 * i, str(i), "small end"))
        parts.append(words(KEY + 22, TOP + 18 * i, case_name(result), "small"))
    y = TOP + 18 * len(results) + 34
    return [
        *parts,
        mark(KEY + 9, y - 4, "#4a5568"),
        words(KEY + 22, y, leader(results[0])["title"], "small"),
        mark(KEY + 9, y + 14, "#4a5568", filled=False),
        words(KEY + 22, y + 18, "the fastest of the others", "small"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs")
    arguments = parser.parse_args()
    files = sorted(arguments.results.glob("*.json"))
    if not files:
        parser.error(f"no results in {arguments.results}")
    everything = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    results = of_one_machine(everything)
    (arguments.out / "speed.svg").write_text(bars(results), encoding="utf-8")
    if not all(map(is_start, results)):
        (arguments.out / "roofline.svg").write_text(roofline(results), encoding="utf-8")
    print(f"{len(results)} of {len(everything)} results, all of {machine_name(results[0])}")


if __name__ == "__main__":
    main()
