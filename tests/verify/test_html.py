"""The HTML page: well-formed, self-contained, harmless, small, and its drawings show the numbers.

The numbers are read back from the page: curves from their paths and axes, pictures from their PNG.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest

import aimv2_np
from aimv2_np.config import LiTConfig
from aimv2_np.errors import AIMv2Error
from aimv2_np.trace import activation_names
from aimv2_np.verify import Candidate, Case, Report, reference, verify_cases
from aimv2_np.verify.diagnose import Cause, Finding
from aimv2_np.verify.html import page, write_page
from aimv2_np.verify.lanes import lanes, truth
from aimv2_np.verify.locate import ALLOWED, CaseResult, TapResult
from aimv2_np.verify.markup import Markup, el, number, times
from aimv2_np.verify.measure import Distance
from aimv2_np.verify.mistakes import every
from aimv2_np.verify.walk import run, sections

HOSTILE = '<script>alert("1")</script>&\'"><img src=x onerror=a()>\n\x00\u202e\ud800'
VOID = {"br", "img", "meta"}
BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")
BRIGHT, DARK = (254, 232, 56), (0, 34, 78)  # the ends of the colours
NAME = "vision.blocks.0.attn.context"


# ---------------------------------------------------------------------------- reports


@cache
def emoji_lit() -> Any:
    return reference("emoji-lit")


@cache
def cases() -> tuple[Case, Case]:
    """Padded texts, and a text without a mask."""
    pipeline, samples = emoji_lit(), aimv2_np.samples()
    pixels = pipeline.preprocess([samples["cat"], samples["pizza"]])
    padded = pipeline.tokenize(["a cat", "a large pizza with cheese"])
    alone = pipeline.tokenize(["a cat"])
    return (
        Case("padded", pixels, padded.input_ids, padded.attention_mask),
        Case("alone", pixels[:1], alone.input_ids, None),
    )


def port(case: Case, *mistakes: str) -> dict[str, Any]:
    """What a float32 port with some mistakes gives."""
    model, state, found = lanes(truth(emoji_lit()), "float32")[-1].model, {}, {}

    def see(name: str, value: Any) -> Any:
        found[name] = np.array(value)
        return value

    for section in sections(model, case):
        state = run(
            model, case, section, state, see, wants=lambda n: True, mistakes=every(mistakes)
        )
    return found


@cache
def verified(*mistakes: str) -> Report:
    found = {case.name: port(case, *mistakes) for case in cases()}
    return verify_cases(emoji_lit(), cases(), Candidate("a port", found))


def tap(name: str, error: float, **more: Any) -> TapResult:
    """An activation whose rounding error is 1e-7."""
    given = {"case": "one", "section": "vision.blocks.0", "own": None} | more
    noise = Distance(1e-7, 2e-7)
    return TapResult(name=name, error=Distance(error, 2 * error), noise=noise, **given)


def report(taps: list[TapResult], *findings: Finding, case: Case | None = None) -> Report:
    return Report("m", "c", "float32", [CaseResult(case or Case("one"), taps)], findings)


def finding(found: Any, right: Any, name: str = NAME, **more: Any) -> Finding:
    """A difference that nothing explains."""
    given = {"real": None, "grid": None} | more
    return Finding(tap(name, 0.5), None, [name], np.asarray(found), np.asarray(right), **given)


# ---------------------------------------------------------------------------- the page, read


class Parsed(HTMLParser):
    """A page as elements with their attributes; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag: str, class_: str | None = None) -> list[dict[str, str | None]]:
        wanted = [given for name, given in self.elements if name == tag]
        return [g for g in wanted if class_ is None or class_ in (g.get("class") or "").split()]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pictures(text: str) -> list[Any]:
    """The heat maps of a page, in order, as (Y, X, 4)."""
    found = []
    for img in Parsed(text).all("img"):
        kind, data = str(img["src"]).split(";base64,")
        image = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
        if kind == "data:image/png":
            found.append(np.asarray(image.convert("RGBA")))
    return found


def cell(picture: Any, row: int, column: int, shape: tuple[int, int]) -> Any:
    """The pixels of one cell, each as (r, g, b, a)."""
    high, wide = picture.shape[0] // shape[0], picture.shape[1] // shape[1]
    block = picture[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
    return {tuple(int(v) for v in pixel) for pixel in block.reshape(-1, 4)}


# ---------------------------------------------------------------------------- what it says


def test_a_match_says_so_in_words() -> None:
    parsed = Parsed(page(verified()))
    assert "It matches" in parsed.text
    assert verified().verdict in parsed.text
    assert "all 175 right" in parsed.text
    assert all("open" not in given for given in parsed.all("details"))
    assert parsed.all("section", "finding") == parsed.all("tr", "wrong") == []


def test_a_difference_is_explained() -> None:
    text = page(verified("text-noncausal"))
    parsed = Parsed(text)
    (found,) = verified("text-noncausal").findings
    mistake = found.causes[0].mistakes[0]
    for said in (
        "It differs",
        "text-noncausal",
        mistake.says,
        mistake.remedy,
        f"First difference {found.wrong.name} in case alone",
        f"Last right {found.last_right.name}",
        "Right in case padded",
        "Then all that is computed from texts alone is right, in every case.",
    ):
        assert said in parsed.text, said
    assert [("open" in given) for given in parsed.all("details")] == [False, True]
    ids = [given["id"] for _, given in parsed.elements if "id" in given]
    assert len(set(ids)) == len(ids)
    links = [str(given["href"]) for given in parsed.all("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert len(parsed.all("tr", "wrong")) == sum(
        not t.ok for r in verified("text-noncausal").results for t in r.taps
    )


def test_every_activation_stands_in_a_table() -> None:
    parsed = Parsed(page(verified("text-noncausal")))
    assert len(parsed.all("th")) == 2 * (175 + 6)
    for result in verified("text-noncausal").results:
        assert len(result.taps) == 175
        assert all(t.name in parsed.words for t in result.taps)


def test_alternatives_and_what_is_nearest_are_told_apart() -> None:
    gelu, tanh = (Cause((m,), 0.9995, 2.0) for m in every(["gelu", "gelu-tanh"]))
    other = replace(gelu, explained=0.25, excess=math.inf, next_wrong=tap("vision.norm", 1.0))
    alike, unknown, rounding = (finding([[1.0]], [[0.5]]) for _ in range(3))
    alike.causes, alike.alike = [gelu, tanh], [tanh]
    unknown.causes, rounding.dtype = [other], "bfloat16"
    text = Parsed(page(report([tap(NAME, 0.5)], alike, unknown, rounding))).text
    for said in ("Cause: gelu", "cannot tell it from the next; no activation would:",
                 "Or: gelu-tanh", "99.9500 %",
                 "2.0 × rounding", "Nearest: gelu", "25 %", "∞ × rounding", "right before",
                 "errs as much as a correct run in bfloat16", "unknown at"):  # fmt: skip
        assert said in text, said


def test_nothing_compared() -> None:
    text = Parsed(page(Report("m", "c", "float32", [CaseResult(Case("one"))], []))).text
    assert "Nothing compared" in text
    assert "the candidate gives no activation" in text
    assert "Errors by depth" not in text


def test_what_was_run() -> None:
    given = replace(verified(), notes=["float32 on one thread"])
    text = Parsed(page(given)).text
    for said in (aimv2_np.__version__, "emoji-lit", "a port", "float32", f"{ALLOWED:g} × the error",
                 "padded: 2 images of 64 × 64 pixels", "with a mask", "float32 on one thread",
                 "How to read the numbers"):  # fmt: skip
        assert said in text, said


# ---------------------------------------------------------------------------- harmless


def hostile() -> Report:
    """Names, notes and problems from files that mean no good, and numbers that are none."""
    taps = [
        tap(NAME, math.inf, case=HOSTILE, problem=HOSTILE, note=HOSTILE),
        tap("vision.norm", math.nan, case=HOSTILE, own=Distance(math.nan, math.inf)),
        tap("text.norm", 0.0, case=HOSTILE, section="text.finish", own=Distance(0.0, 0.0)),
    ]
    lost = finding(np.full((2, 3, 4, 5), np.nan), np.ones((2, 3, 4, 5)))
    lost.wrong, lost.right_cases, lost.suspects = taps[0], [HOSTILE], [HOSTILE] * 9
    result = CaseResult(Case(HOSTILE, np.zeros((2, 3, 28, 28)), np.zeros((1, 4))), taps)
    return Report(HOSTILE, HOSTILE, HOSTILE, [result], [lost], [HOSTILE])


@pytest.mark.parametrize("shown", [hostile, verified, lambda: verified("text-noncausal")])
def test_nothing_runs_and_nothing_is_fetched(shown: Any) -> None:
    parsed = Parsed(page(shown()))
    assert not {"script", "link", "iframe", "base", "object"} & {tag for tag, _ in parsed.elements}
    for tag, given in parsed.elements:
        assert not [name for name in given if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (given.get(name) or "#").startswith(("#", "data:image/")), (tag, given)
    style = re.findall(r"<style>(.*?)</style>", page(shown()), re.DOTALL)
    assert len(style) == 1
    assert not re.search(r"url\(|@import|<", style[0])


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", hostile())
    text = (tmp_path / "page.html").read_bytes().decode("utf-8")
    assert not re.search(r"[\x00\u202e]", text)
    shown = '<script>alert("1")</script>&\'"><img src=x onerror=a()>\\n\\x00\\u202e\\ud800'
    assert Parsed(text).text.count(shown) >= 6
    assert [c for c in Parsed(text).all("img") if c["src"] == "x"] == []


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(AIMv2Error, match="cannot write"):
        write_page(tmp_path / "nowhere" / "page.html", verified())


def test_markup_escapes_all_but_markup() -> None:
    assert el("td", "a<b", Markup("<br>"), class_='"x"', id=None, data_n=1) == (
        '<td class="&quot;x&quot;" data-n="1">a&lt;b<br></td>'
    )
    assert el("img", alt="<") == '<img alt="&lt;">'


@pytest.mark.parametrize(
    ("value", "shown", "multiple"),
    [
        (0.0, "0", "0 ×"),
        (1.234e-7, "1.23e-7", "0.0 ×"),
        (0.5, "0.5", "0.5 ×"),
        (12.34, "12.3", "12 ×"),
        (1234.5, "1234", "1234 ×"),
        (3.456e6, "3.46e6", "3.46e6 ×"),
        (math.inf, "∞", "∞ ×"),
        (math.nan, "not a number", "not a number ×"),
    ],
)
def test_numbers(value: float, shown: str, multiple: str) -> None:
    assert number(value) == shown
    assert times(value) == multiple


# ---------------------------------------------------------------------------- small


def test_a_full_size_model_fits_in_a_megabyte() -> None:
    """Two cases with every activation of large-224-lit, all wrong, and three differences."""
    rng = np.random.default_rng(0)

    def taps(case: str) -> list[TapResult]:
        found = []
        for name in activation_names(LiTConfig()):
            tower = name.partition(".")[0]
            blocks = re.match(r"\w+\.blocks\.\d+", name)
            section = blocks[0] if blocks else f"{tower}.embed" if "." in name else "join"
            errors = [Distance(*rng.uniform(0, 1, 2)) for _ in range(2)]
            found.append(tap(name, rng.uniform(), case=case, section=section, own=errors[0]))
        return found

    results = [CaseResult(Case(c, np.zeros((4, 3, 224, 224))), taps(c)) for c in ("one", "two")]
    scores = rng.normal(size=(4, 8, 256, 256))
    wrong = finding(scores, 2 * scores[::-1], "vision.blocks.0.attn.scores", grid=(16, 16))
    text = page(Report("m", "c", "float32", results, [wrong] * 3))
    assert len(pictures(text)) == 3 * (4 + 8)
    assert len(text.encode()) < 1e6
    assert len(page(verified("text-noncausal")).encode()) < 2e5


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


# ---------------------------------------------------------------------------- in a browser

MEASURE = """
const seen = {};
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, root = page.documentElement;
  const pictures = [...page.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width]);
  const plots = [...page.querySelectorAll("svg.curves")].map(s => s.getBoundingClientRect());
  const back = e => {
    const own = getComputedStyle(e).backgroundColor;
    return own !== "rgba(0, 0, 0, 0)" ? own : back(e.parentElement);
  };
  const texts = [...page.querySelectorAll("h1, h2, .word, .facts, dt, dd, p, a, td, th, .cross")];
  const pairs = texts.map(e => getComputedStyle(e).color + ";" + back(e));
  seen[frame.width] = {
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    overflow: root.scrollWidth - root.clientWidth,
    pictures, plots: plots.map(p => [p.width, p.height]), colours: [...new Set(pairs)],
  };
}
document.body.textContent = JSON.stringify(seen);
"""


def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no headless browser found: none of {', '.join(BROWSERS)} is installed")
    return found


def contrast(pair: str) -> float:
    """Of a text and its ground, by the definition of WCAG 2."""
    levels = []
    for colour in pair.split(";"):
        linear = [
            c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
            for c in (int(n) / 255 for n in re.findall(r"\d+", colour)[:3])
        ]
        levels.append(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return float((max(levels) + 0.05) / (min(levels) + 0.05))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("shown", [hostile, lambda: verified("text-noncausal")])
def test_a_browser_shows_it_at_two_widths(shown: Any, dark: bool, tmp_path: Path) -> None:
    content = escape(page(shown()))
    frames = "".join(
        f'<iframe width="{width}" height="800" srcdoc="{content}"></iframe>'
        for width in (380, 1200)
    )
    script = f"<script>onload = () => {{{MEASURE}}}</script>"
    whole = f'<!DOCTYPE html><meta charset="utf-8"><body>{frames}{script}</body>'
    (tmp_path / "both.html").write_text(whole, encoding="utf-8")
    done = subprocess.run(
        [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1300,900",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         (tmp_path / "both.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    seen = json.loads(re.findall(r"<body>(.*)</body>", done.stdout, re.DOTALL)[0])
    assert set(seen) == {"380", "1200"}
    for width, frame in seen.items():
        assert frame["dark"] == dark
        assert frame["overflow"] == 0
        assert frame["pictures"]
        assert all(natural > 0 and size > 20 for natural, size in frame["pictures"])
        assert frame["plots"]
        assert all(w > 0.7 * int(width) - 60 and h >= 240 for w, h in frame["plots"])
        assert min(contrast(pair) for pair in frame["colours"]) > 4.5
