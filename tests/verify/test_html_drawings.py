"""The drawings of the HTML page show the numbers.

The numbers are read back from the page: curves from their paths and axes, pictures from their PNG.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from html_pages import finding, report, tap
from pages import Parsed, pictures

from aimv2_np.pages.markup import number
from aimv2_np.verify import Case
from aimv2_np.verify.html import page
from aimv2_np.verify.measure import Distance

BRIGHT, DARK = (254, 232, 56), (0, 34, 78)  # the ends of the colours


# ---------------------------------------------------------------------------- curves


def svg(text: str) -> ElementTree.Element:
    """The first drawing of curves."""
    found = re.search(r'<svg class="curves".*?</svg>(?:(?!<svg).)*?</svg>', text, re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0])


def percent(value: str | None) -> float:
    assert value is not None
    return float(value.removesuffix("%")) / 100


def points(drawing: ElementTree.Element, curve: str) -> list[tuple[float, float]]:
    """A curve's points as parts of the width and of the height from the top."""
    (path,) = drawing.findall(f".//path[@class='{curve}']")
    numbers = [float(n) / 1000 for n in re.findall(r"[\d.]+", path.attrib["d"].replace("h0", ""))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_curves_show_the_errors() -> None:
    """Read back with the axis: a line and its label say where a power of ten lies."""
    errors = [3e-7, 2e-7, 5e-3, 4e-2, 8e-8]
    names = ("patch_embed", "patch_norm", "blocks.0.norm_1", "blocks.0.attn.q", "blocks.0.attn.k")
    taps = [
        tap(f"vision.{n}", e, own=Distance(e / 10, e), own_noise=Distance(1e-7, 1e-7))
        for n, e in zip(names, errors, strict=True)
    ]
    drawing = svg(page(report(taps)))
    axis = drawing.find(".//g[@class='decades']")
    assert axis is not None
    usual = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    labels = {
        int((t.text or "")[2:].translate(usual)): percent(t.get("y")) for t in axis.iter("text")
    }
    power = min(labels)
    high = (labels[power] - labels[max(labels)]) / (max(labels) - power)  # of a decade
    for curve, wanted in (("error", errors), ("own", [e / 10 for e in errors])):
        read = [10 ** (power + (labels[power] - y) / high) for _, y in points(drawing, curve)]
        assert read == pytest.approx(np.clip(wanted, 10.0**power, None), rel=0.02)
    assert [x for x, _ in points(drawing, "error")] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    band = [10 ** (power + (labels[power] - y) / high) for _, y in points(drawing, "allowed")]
    assert band == pytest.approx([8e-7] * 7 + [1e-7] * 7, rel=0.02)
    titles = [t.text for t in drawing.findall(".//rect/title")]
    assert [t and t.split("\n")[0] for t in titles] == [t.name for t in taps]
    (marked,) = drawing.findall(".//g[@class='first-wrong']")
    assert "".join(marked.itertext()) == "first wrong: vision.blocks.0.norm_1"
    assert percent(marked.find("circle").get("cx")) == 0.5
    (bar,) = drawing.findall(".//g[@class='wrong-below']/rect")
    assert (bar.get("x"), bar.get("width")) == ("40%", "40%")


def test_what_is_not_finite_lies_on_the_upper_edge() -> None:
    names = ("norm_1", "attn.q", "attn.k", "attn.v")
    errors = (1e-7, math.inf, math.nan, 0.0)
    taps = [tap(f"vision.blocks.0.{n}", e) for n, e in zip(names, errors, strict=True)]
    drawing = svg(page(report(taps)))
    assert [y for _, y in points(drawing, "error")][1:] == [0, 0, 1]
    numbers = {n for path in drawing.iter("path") for n in re.findall("[a-z]+", path.attrib["d"])}
    assert numbers <= {"h"}


# ---------------------------------------------------------------------------- pictures


def cell(picture: Any, row: int, column: int, shape: tuple[int, int]) -> Any:
    """The pixels of one cell, each as (r, g, b, a)."""
    high, wide = picture.shape[0] // shape[0], picture.shape[1] // shape[1]
    block = picture[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
    return {tuple(int(v) for v in pixel) for pixel in block.reshape(-1, 4)}


def test_a_wrong_patch_is_bright_where_it_is() -> None:
    right = np.random.default_rng(0).normal(size=(2, 12, 5))
    found = right + 1e-9  # rounding
    found[1, 2 * 4 + 3] += 7  # row 2, column 3 of a grid of 3 × 4
    case = Case("one", np.random.default_rng(1).normal(size=(2, 3, 42, 56)))
    name = "vision.blocks.0.resid_mid"
    wrong = finding(found, right, name, grid=(3, 4))
    text = page(report([wrong.wrong], wrong, case=case))
    first, second = pictures(text)
    assert first.shape[:2] == second.shape[:2] == (3, 4)
    assert {tuple(p[:3]) for p in first.reshape(-1, 4)} == {DARK}
    bright = np.argwhere((second[..., :3] == BRIGHT).all(axis=-1))
    assert bright.tolist() == [[2, 3]]
    assert (second[..., :3] == DARK).all(axis=-1).sum() == 11
    assert len(Parsed(text).all("img", "photo")) == 2
    expected = math.sqrt(5 * 49) / math.sqrt(np.square(right).sum(axis=-1).mean())
    assert f"largest, {number(expected)} of the typical size, at row 2, column 3" in text


def test_a_wrong_head_is_bright() -> None:
    right = np.random.default_rng(0).normal(size=(1, 3, 6, 4))
    found = right.copy()
    found[0, 2, 4] += 1
    wrong = finding(found, right, grid=(2, 3))
    over, *heads = pictures(page(report([wrong.wrong], wrong)))
    assert over.shape[:2] == (2, 3)
    assert [(h[..., :3] == BRIGHT).all(axis=-1).sum() for h in heads] == [0, 0, 1]
    assert tuple(heads[2][1, 1, :3]) == BRIGHT  # patch 4: row 1, column 1


def test_scores_of_a_text_show_which_keys_are_seen() -> None:
    """Hidden by -inf or by a very low number is alike; after the text's end is nothing."""
    hidden = np.triu(np.ones((4, 4), bool), 1)
    right = np.where(hidden, -np.inf, 1.0)[None, None].repeat(2, axis=1)
    found = np.where(hidden, -1e9, 1.0)[None, None].repeat(2, axis=1)
    found[0, 1, 0, 2] = 3.0  # head 1: query 0 sees key 2
    real = np.array([[True, True, True, False]])
    wrong = finding(found, right, "text.blocks.0.attn.scores", real=real)
    _, first, second = pictures(page(report([wrong.wrong], wrong)))
    assert {tuple(p[:3]) for p in first[:3, :3].reshape(-1, 4)} == {DARK}
    assert set(first[3, :, 3]) == set(first[:, 3, 3]) == {0}  # transparent
    assert np.argwhere((second[..., :3] == BRIGHT).all(axis=-1)).tolist() == [[0, 2]]


def test_what_is_not_finite_is_hatched() -> None:
    right = np.ones((1, 6, 4))
    found = right + 1e-8
    found[0, 4] = np.nan
    wrong = finding(found, right, "vision.norm", grid=(2, 3))
    text = page(report([wrong.wrong], wrong))
    (picture,) = pictures(text)
    assert len(cell(picture, 1, 1, (2, 3))) == 2
    assert cell(picture, 0, 0, (2, 3)) == {(*DARK, 255)}  # rounding is not made to look large
    assert "17% of it is not finite, first at row 1, column 1" in text


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("pixel_values", (2, 3, 28, 42), [(28, 42)] * 2),
        ("vision.pos_embed", (6, 5), [(2, 3)]),
        ("text.pos_embed", (7, 5), [(1, 7)]),
        ("text.blocks.1.attn.q", (2, 3, 7, 4), [(2, 7), (3, 7)]),
        ("vision.head.pattern", (2, 3, 1, 6), [(2, 3)] * 3),
        ("vision.head.context", (2, 3, 1, 4), [(3, 1)]),
        ("vision.pooled", (2, 8), [(2, 8)]),
        ("logits_per_image", (2, 3), [(2, 3)]),
        ("input_ids", (2, 7), [(2, 7)]),
        ("logit_scale", (), []),
        ("vision.blocks.0.mlp.up", (1, 6, 500), [(2, 3)]),
    ],
)
def test_every_kind_of_activation_has_its_pictures(
    name: str, shape: tuple[int, ...], sizes: list[tuple[int, int]]
) -> None:
    right = np.random.default_rng(0).normal(size=shape)
    wrong = finding(right + 1, right, name, grid=(2, 3))
    text = page(report([replace(wrong.wrong, section="join")], wrong))
    assert [p.shape[:2] for p in pictures(text)] == sizes
    assert all(given["alt"] for given in Parsed(text).all("img"))


def test_another_shape_has_no_picture() -> None:
    wrong = finding(np.ones((2, 3)), np.ones((2, 4)))
    assert pictures(page(report([wrong.wrong], wrong))) == []
