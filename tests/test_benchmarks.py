"""What benchmarks/ counts, reports and draws, on made-up times. Nothing is timed here.

benchmarks/ is a folder of scripts and no package; tests/compare/test_benchmarks.py runs them.
"""

from __future__ import annotations

import copy
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        names = ("cases", "report", "chart", "measure", "sides")
        yield SimpleNamespace(**{name: import_module(name) for name in names})


# ---------------------------------------------------------------------------- what is counted


@pytest.mark.parametrize(
    ("case", "flop"),
    [
        (("large-patch14-224", "vision", 1), 164.6e9),  # blocks 157.8, attention 6.4, patches 0.3
        (("large-patch14-224", "vision", 8), 8 * 164.6e9),
        (("large-patch14-native", "vision", 1), 1.18e12),  # 34 × 45 patches of 640 × 480
        # 4 · 2 · (77 · 2 blocks · (4 · 128² + 3 · 128 · 256) + 2 · 2 · 3003 pairs · 128 + 128 · 64)
        (("tiny-lit", "text", 4), 214_216_704),
    ],
)
def test_operations_of_a_forward(scripts: Any, case: Any, flop: float) -> None:
    assert scripts.cases.Case(*case).work()[0] == pytest.approx(flop, rel=5e-3)


def test_weights_that_products_read(scripts: Any) -> None:
    """All but norms, positions and biases; one tower's if one tower runs."""
    case = scripts.cases.Case
    vision = case("large-patch14-224", "vision", 1)
    rest = 49 * 1024 + 256 * 1024 + 1024 + 1024  # norms, positions, patch norm and bias
    assert vision.work()[1] == vision.parameters - rest
    parts = [case("tiny-lit", part, 2).work()[1] for part in ("vision", "text", "lit")]
    assert parts[0] + parts[1] == parts[2]


def test_prompts_end_once_and_stay_ended(scripts: Any) -> None:
    (ids,) = scripts.cases.Case("tiny-lit", "text", 64).inputs()
    assert ids.shape == (64, 77)
    ended = ids == 999
    assert ended[:, -1].all()
    assert not ended[:, :7].any()
    assert (np.diff(ended.astype(int), axis=1) >= 0).all()
    assert len({int(row.argmax()) for row in ended}) > 10  # they differ in length


def test_native_images_are_not_square(scripts: Any) -> None:
    case = scripts.cases.Case("tiny-native", "vision", 2)
    assert case.inputs()[0].shape == (2, 3, 480, 640)
    assert case.patches == 34 * 45


@pytest.mark.parametrize(
    ("side", "passes"), [("x-float32", False), ("x-bfloat16", False), ("x-int8", True)]
)
def test_features_that_are_off_end_the_run(
    scripts: Any, tmp_path: Path, side: str, passes: bool
) -> None:
    """One of two vectors is a fifth too long: no rounding of bfloat16, perhaps one of int8."""
    np.save(tmp_path / "reference.npy", np.ones((2, 8), np.float32))
    np.save(tmp_path / f"{side}.npy", np.float32([[1], [1.2]]) * np.ones((2, 8), np.float32))
    if passes:
        assert scripts.measure.compare(tmp_path, side) == pytest.approx({"error": 0.2, "cosine": 1})
    else:
        with pytest.raises(SystemExit, match=r"features are 2\.0e-01 off"):
            scripts.measure.compare(tmp_path, side)


# ---------------------------------------------------------------------------- made-up results


def side(title: str, median: float, dtype: str = "float32", **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "dtype": dtype,
        "median_seconds": median,
        "minimum_seconds": median / 2,
        "first_forward_seconds": 3.25,
        "load_seconds": 4.5,
        "peak_bytes": 1_300_000_000,
        "peak_over_weights": 1.05,
        "computes": "f32 ×14",
        "error": 2e-6,
        "cosine": 0.99996,
        **more,
    }


def forward(gflop: float = 300.0, weights: int = 1_000_000, **more: Any) -> dict[str, Any]:
    """Ours at 150 GFLOP/s of a peak of 200; the other a quarter slower."""
    return {
        "kind": "forward",
        "model": "large-patch14-224",
        "part": "vision",
        "batch": 8,
        "parameters": 309_000_000,
        "rounds": 7,
        "gflop": gflop,
        "weights_read": weights,
        "peak_gflops": {"float32": {"before": 200.0, "after": 180.0}},
        "bandwidth_gb_per_second": 15.0,
        "load_average_at_start": 0.125,
        "sides": {"numba": side("aimv2_np, numba", 2.0), "openvino": side("OpenVINO", 2.5)},
        "machine": {
            "cpu": "Some CPU",
            "instruction_sets": ["avx2"],
            "cores": 2,
            "system": "Linux",
            "python": "3.11",
            "blas": "openblas 0.3",
            "packages": {"numpy": "2.4.6", "openvino": "2026.4.1"},
        },
        "date": "2026-01-31",
        **more,
    }


def start() -> dict[str, Any]:
    steps = {"python_seconds": 0.25, "import_seconds": 0.75}
    sides = {
        "numba-bfloat16": side("aimv2_np, numba", 1.5, "bfloat16", **steps),
        "transformers-float32": side("transformers, eager", 6.0, **steps),
    }
    return forward() | {"kind": "start", "model": "large-patch14-224-lit", "sides": sides}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_page_says_what_was_measured(scripts: Any) -> None:
    page = scripts.report.page(forward()).splitlines()
    assert page[0] == "# Forward pass of large-patch14-224, float32, 8 images"
    head, _, ours, theirs = (cells(line) for line in page if line.startswith("|"))
    assert dict(zip(head, ours, strict=True)) == {
        "": "aimv2_np, numba",
        "median s": "2.000",
        "minimum s": "1.000",
        "aimv2_np, numba takes × its time": "1.00",
        "GFLOP/s": "150",
        "of the peak": "75%",  # of the better one of the two
        "multiplies in": "f32 ×14",
        "off by": "2e-06",
        "first s": "3.25",
        "load s": "4.50",
        "peak memory": "1.30 GB",
    }
    assert theirs[:6] == ["OpenVINO", "2.500", "1.250", "0.80", "120", "60%"]
    text = " ".join(page)
    for words in (
        "7 rounds, alternating",
        "float32 200 GFLOP/s before the rounds, 180 after",
        "Some CPU (avx2), 2 cores, Linux; load average at the start 0.12",
        "openvino 2026.4.1. 2026-01-31.",
    ):
        assert words in text


def test_a_page_about_starting_says_in_which_dtype_each_side_ran(scripts: Any) -> None:
    page = scripts.report.page(start()).splitlines()
    head, _, ours, theirs = (cells(line) for line in page if line.startswith("|"))
    assert page[0] == "# From process start to the first embedding, large-patch14-224-lit"
    assert ours[0] == "aimv2_np, numba, bfloat16"
    assert theirs[:4] == ["transformers, eager, float32", "6.00", "3.00", "0.25"]
    assert theirs[4:8] == ["0.25", "0.75", "4.50", "3.25"]
    assert ours[head.index("off by")] == "2e-06 (cosine 1.0000)"
    assert ours[head.index("× its weights")] == "1.05"


def test_files_are_named_after_what_ran(scripts: Any) -> None:
    name_of = scripts.report.name_of
    assert name_of(forward()) == "large-patch14-224-float32-b8"
    text = forward(model="large-patch14-224-lit", part="text", batch=64)
    assert name_of(text) == "large-patch14-224-lit-text-float32-b64"
    assert name_of(start()) == "large-patch14-224-lit-start-bfloat16-b8"


# ---------------------------------------------------------------------------- pictures


def elements(svg: str, tag: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{SVG}{tag}"))


def numbers(element: ET.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


def test_bars_are_as_long_as_the_times(scripts: Any) -> None:
    slow = forward()
    slow["sides"]["numpy"] = side("aimv2_np, numpy", 20.0)
    svg = scripts.chart.bars([forward(), slow])
    lengths = [numbers(rect, "width")[0] for rect in elements(svg, "rect")[1:]]
    one, quarter_more, again, _, cut = lengths
    assert quarter_more == pytest.approx(1.25 * one, rel=2e-3)
    assert again == one
    assert cut == pytest.approx(3 * one, rel=2e-3)  # ten times: cut, and its number says so
    texts = [text.text for text in elements(svg, "text")]
    assert texts.count("large-224, float32, 8 images") == 2
    assert {"1.00", "1.25", "10.00", "20 s", "OpenVINO"} <= set(texts)
    assert "Some CPU, 2 cores (avx2). Medians of alternating rounds." in texts


def test_a_picture_shows_one_machine(scripts: Any) -> None:
    other = copy.deepcopy(forward())
    other["machine"]["cpu"] = "Other CPU"
    shown = scripts.chart.of_one_machine([start(), other, forward()])
    assert shown == [forward(), start()]  # the machine with the most results; forwards first


def test_a_roofline_is_logarithmic_on_both_axes(scripts: Any) -> None:
    """Speeds 150, 75 and 37.5 lie equally far apart, as do 75, 150 and 300 operations a byte."""
    results = [
        forward(),  # 300e9 operations in 2 s for 4 MB of weights
        forward(gflop=150.0, weights=1_000_000),
        forward(gflop=75.0, weights=1_000_000),
    ]
    svg = scripts.chart.roofline(results)
    discs = [c for c in elements(svg, "circle") if c.attrib["fill"] != "#ffffff"][:3]
    (x1, y1), (x2, y2), (x3, y3) = (numbers(disc, "cx", "cy") for disc in discs)
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.2)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert x1 > x2 > x3
    assert y1 < y2 < y3
    roof = next(p for p in elements(svg, "path") if "stroke: #2b6cb0" in p.attrib.get("style", ""))
    height = float(roof.attrib["d"].split()[1])
    octaves = (y2 - y1, math.log2(200 / 150))  # the roof: the best peak, 200
    assert y1 - height == pytest.approx(octaves[0] * octaves[1], abs=0.2)
    texts = [text.text for text in elements(svg, "text")]
    assert {"200 GFLOP/s", "memory: 15.0 GB/s", "the fastest of the others"} <= set(texts)


def test_numbers_in_a_roofline_touch_nothing(scripts: Any) -> None:
    results = [forward(gflop=300.0 + 3 * i) for i in range(6)]
    svg = scripts.chart.roofline(results)
    marks = [numbers(c, "cx", "cy") for c in elements(svg, "circle")]
    labels = [
        numbers(text, "x", "y")
        for text in elements(svg, "text")
        if text.attrib.get("class") == "small middle" and text.text in set("123456")
    ]
    assert len(labels) == 6
    for i, (x, y) in enumerate(labels):
        for other_x, other_y in marks + [[x, y - 4] for x, y in labels[:i]]:
            assert abs(x - other_x) > 12 or abs(y - 4 - other_y) > 11
