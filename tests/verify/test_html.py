"""The HTML page: well-formed, self-contained, harmless, small, and it says what was found.

Its drawings are judged in `test_html_drawings.py`, its looks in `test_html_browser.py`.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_pages import NAME, finding, hostile, report, tap, verified
from pages import Parsed, pictures

import aimv2_np
from aimv2_np.config import LiTConfig
from aimv2_np.errors import AIMv2Error
from aimv2_np.pages.markup import Markup, el, number, times
from aimv2_np.trace import activation_names
from aimv2_np.verify import Case, Report
from aimv2_np.verify.finding import Cause
from aimv2_np.verify.html import page, write_page
from aimv2_np.verify.locate import ALLOWED, CaseResult, TapResult
from aimv2_np.verify.measure import Distance
from aimv2_np.verify.mistakes import every

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
                 "err as much as they would in bfloat16", "unknown at"):  # fmt: skip
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
