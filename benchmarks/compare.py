"""Seconds and memory: ours beside transformers, torch.compile, ONNX Runtime and OpenVINO.

    python benchmarks/compare.py --model large-patch14-224 --dtype bfloat16 --batch 8
    python benchmarks/compare.py --model large-patch14-224-lit --start --dtype bfloat16

All sides get the same random weights (one file, written by transformers), the same random inputs,
and all cores. Nothing here passes or fails by its time; the figures go to benchmarks/results/ as
JSON and Markdown. README.md explains them.
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

from cases import ITEMSIZE, MODELS, PARTS, PROMPTS, TINY, Case
from measure import forwards, starts
from report import name_of, page
from sides import SIDES, split

RESULTS = Path(__file__).parent / "results"
STARTS = ("numba-{0}", "packed-{0}", "transformers-float32", "transformers-bfloat16")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = ", ".join(name for name in MODELS if name not in TINY)
    parser.add_argument("--model", choices=MODELS, default="large-patch14-224", metavar="NAME",
                        help=f"one of {models}")  # fmt: skip
    parser.add_argument("--part", choices=PARTS, default="vision",
                        help="of a model with text; lit: images, 64 prompts, logits")  # fmt: skip
    parser.add_argument("--dtype", choices=ITEMSIZE, default="float32")
    parser.add_argument("--batch", type=int, help="images, default 1; prompts, default 64")
    parser.add_argument("--rounds", type=int, default=7, help="timed turns of each side")
    parser.add_argument("--sides", nargs="+", metavar="SIDE",
                        help=f"the first is compared with the others: {', '.join(SIDES)}, each "
                        "alone or with a dtype of its own, as in numba-bfloat16; default: all that "
                        "know the dtype")  # fmt: skip
    parser.add_argument("--start", action="store_true",
                        help="time processes from their start to the first embedding")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return parser


def chosen(sides: list[str] | None, dtype: str, start: bool) -> list[str]:
    """Full names of the sides. A packed folder changes loading only."""
    if sides is None and start:
        return [name.format(dtype) for name in STARTS]
    if sides is None:
        sides = [s for s, side in SIDES.items() if dtype in side.dtypes and s != "packed"]
    return [name if "-" in name else f"{name}-{dtype}" for name in sides]


def complaint(case: Case, names: list[str], start: bool) -> str | None:
    """Why this cannot be run, if it cannot."""
    if start and case.part != "vision":
        return "--start times an image's embedding: leave --part out"
    if case.part != "vision" and not case.has_text:
        return f"{case.model} has no text tower; large-patch14-224-lit has one"
    for library, dtype in map(split, names):
        if library not in SIDES:
            return f"there is no side {library}; there are {', '.join(SIDES)}"
        if dtype not in SIDES[library].dtypes:
            return f"{library} runs in {', '.join(SIDES[library].dtypes)} here, not in {dtype}"
    needed = {package for name in names for package in SIDES[split(name)[0]].packages}
    if any(library == "openvino" and dtype == "int8" for library, dtype in map(split, names)):
        needed.add("nncf")
    missing = sorted(package for package in needed if find_spec(package) is None)
    if missing:
        return f"not installed: {', '.join(missing)} (benchmarks/README.md says how)"
    return None


def main() -> None:
    arguments = parser().parse_args()
    batch = arguments.batch or (PROMPTS if arguments.part == "text" else 1)
    case = Case(arguments.model, arguments.part, batch)
    names = chosen(arguments.sides, arguments.dtype, arguments.start)
    if reason := complaint(case, names, arguments.start):
        parser().error(reason)
    result = (starts if arguments.start else forwards)(case, names, arguments.rounds)
    report = page(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for ending, text in (("json", json.dumps(result, indent=1) + "\n"), ("md", report)):
        (arguments.out / f"{name_of(result)}.{ending}").write_text(text, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
