"""The page of an explanation: well-formed, self-contained, harmless, and its numbers are right.

What it does when somebody picks something is tested in `test_explain_browser.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained import LABELS, lit, of_lit, of_native, wide_image
from pages import HOSTILE, Parsed, pictures

from aimv2_np.explain import Explanation, explain
from aimv2_np.explain.page import page
from aimv2_np.explain.texts import Texts, against_others
from aimv2_np.pages.pictures import CIVIDIS
from aimv2_np.pages.plots import LogScale, decades

PAGES = [of_lit, of_native, lambda: of_native(4 * 180 * 336)]


def data(text: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def floats(packed: str) -> Any:
    return np.frombuffer(base64.b64decode(packed), "<f4")


def changed(**texts: Any) -> Explanation:
    """The packaged model's explanation with something else for its texts."""
    assert of_lit().texts is not None
    return replace(of_lit(), texts=replace(of_lit().texts, **texts))


def section(text: str, name: str) -> str:
    (found,) = re.findall(rf'<section id="{name}">.*?</section>', text, re.DOTALL)
    return str(found)


# ---------------------------------------------------------------------------- what it says


def test_the_probabilities_can_be_read_without_the_script() -> None:
    parsed, texts = Parsed(page(of_lit())), of_lit().texts
    assert texts is not None
    for label, p in zip(LABELS, texts.probabilities, strict=True):
        assert f"{label} {100 * p:.1f} %" in parsed.text
    first = parsed.text.index("cat 70.3 %")
    assert first < parsed.text.index("dog 27.8 %") < parsed.text.index("car 0.1 %")
    ids = [str(given["id"]) for _, given in parsed.elements if "id" in given]
    assert len(set(ids)) == len(ids)
    assert all(given["alt"] for given in parsed.all("img"))
    assert parsed.all("noscript")


def test_it_says_what_a_contribution_is() -> None:
    text = Parsed(page(of_lit())).text
    for said in ("exactly the sum of one term per patch", "which pixels it comes from",
                 "6 blocks of 6 heads", "5, each as 'a photo of {}'"):  # fmt: skip
        assert said in text, said


def test_a_model_without_texts() -> None:
    parsed = Parsed(page(of_native()))
    assert "Which text fits?" not in parsed.text
    assert "pooling head" not in parsed.text
    assert "21 × 32 patches" in parsed.text
    assert "terms" not in data(page(of_native()))


def test_shared_maps_are_said() -> None:
    assert "share one map" not in Parsed(page(of_native())).text
    text = Parsed(page(of_native(4 * 180 * 336))).text
    assert "2 × 2 patches share one map, their mean, which shows sums over 2 × 2 patches" in text
    some = explain(lit(), wide_image(), blocks=[2, 5])
    assert "Here are blocks 2, 5 of 6" in Parsed(page(some)).text


def test_one_text_has_nothing_to_be_compared_with() -> None:
    one = Texts(("cat",), "{}", *(np.ones(1),) * 2, np.ones((1, 64)), np.zeros(1))
    parsed = Parsed(page(replace(of_lit(), texts=one)))
    assert [given for given in parsed.all("input") if given.get("name") == "against"] == []
    assert "cat 100.0 %" in parsed.text


def test_of_many_texts_the_best_are_shown() -> None:
    k = 31
    p = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    terms = np.random.default_rng(0).standard_normal((k, 64))
    labels = tuple(f"text {i}" for i in range(k))
    many = changed(
        labels=labels, logits=p, probabilities=p, contributions=terms, constant=np.zeros(k)
    )
    text = page(many)
    assert text.count('class="label"') == 20
    assert f"… 11 more, {100 * p[:11].sum():.1f} % together" in Parsed(text).text
    sent = floats(data(text)["terms"]).reshape(2, 20, 65)
    np.testing.assert_allclose(sent[1, 0, :64], terms[30], rtol=1e-6)
    np.testing.assert_allclose(sent[0, 19, :64], against_others(terms)[11], rtol=1e-5)


# ---------------------------------------------------------------------------- harmless


@pytest.mark.parametrize("shown", PAGES)
def test_nothing_is_fetched_and_only_its_own_script_runs(shown: Any) -> None:
    text = page(shown())
    parsed = Parsed(text)
    assert not {"link", "iframe", "base", "object", "form"} & {tag for tag, _ in parsed.elements}
    for tag, given in parsed.elements:
        assert not [name for name in given if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "action"):
            assert (given.get(name) or "#").startswith(("#", "data:image/")), (tag, given)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert all(url.startswith("data:image/") for url in re.findall(r"url\(([^)]*)", style))
    assert not re.search(r"@import|</", style)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert not re.search(r"fetch|XMLHttp|import\(|eval|innerHTML|https?:|document\.write", script)
    (policy,) = [g["content"] for g in parsed.all("meta") if "http-equiv" in g]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy)
    assert not re.search(r"https?://", text)


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    labels = (HOSTILE, "</script><script>alert(1)</script>", "<!--", "", "\u202eabc")
    given = replace(changed(labels=labels, prompt=HOSTILE + "{}"), image=HOSTILE, model=HOSTILE)
    given.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_bytes().decode("utf-8")
    parsed, own = Parsed(text), Parsed(page(of_lit()))
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in own.elements]
    assert "</script><script>alert(1)</script>" in parsed.text
    assert "(empty text)" in parsed.text
    assert not re.search(r"[\x00\u202e]", text)


def test_the_same_page_every_time() -> None:
    once, again = (explain(lit(), wide_image(), ["a", "b"]) for _ in range(2))
    assert page(once) == page(again)


def test_it_stays_small() -> None:
    assert len(page(of_lit())) < 300_000


# ---------------------------------------------------------------------------- its numbers


@pytest.mark.parametrize("shown", PAGES)
def test_the_packed_attention_is_that_of_the_explanation(shown: Any) -> None:
    found = shown()
    packed = re.findall(r'<script type="text/plain" class="maps">(.*?)</script>', page(found))
    assert len(packed) == len(found.attention.blocks)
    for i, text in enumerate(packed):
        plain = zlib.decompress(base64.b64decode(text))
        peaks = found.attention.peaks[i]
        np.testing.assert_array_equal(np.frombuffer(plain[: peaks.nbytes], "<f4"), peaks.ravel())
        levels = np.frombuffer(plain[peaks.nbytes :], np.uint8)
        np.testing.assert_array_equal(levels, found.attention.levels[i].ravel())


def test_the_script_gets_the_numbers() -> None:
    found, sent = of_lit(), data(page(of_lit()))
    assert found.texts is not None
    np.testing.assert_array_equal(floats(sent["stream"]), found.residual.stream.ravel())
    added = np.concatenate([found.residual.attention, found.residual.mlp]).ravel()
    np.testing.assert_array_equal(floats(sent["added"]), added)
    terms = floats(sent["terms"]).reshape(2, 5, 65)
    order = found.texts.ranking()
    np.testing.assert_allclose(terms[1].sum(axis=1), found.texts.logits[order], atol=1e-4)
    logits = found.texts.logits
    others = [logits[k] - np.delete(logits, k).mean() for k in order]
    np.testing.assert_allclose(terms[0].sum(axis=1), others, atol=1e-4)
    assert (sent["rows"], sent["columns"], sent["depth"], sent["heads"]) == (8, 8, 6, 6)


def test_the_first_patch_is_what_the_pooling_head_looks_at_most() -> None:
    sent, found = data(page(of_lit())), of_lit()
    assert found.pooling is not None
    assert sent["patch"] == int(np.argmax(found.pooling.sum(axis=0)))
    assert data(page(of_native()))["patch"] == 10 * 32 + 16


def test_a_map_is_brightest_where_it_is_largest() -> None:
    found = of_lit()
    first = pictures(section(page(found), "pooling"))
    assert found.pooling is not None
    assert len(first) == 7
    for row, drawn in zip([found.pooling.mean(axis=0), *found.pooling], first, strict=True):
        assert drawn.shape == (8, 8, 4)
        at = np.unravel_index(int(row.argmax()), (8, 8))
        assert tuple(drawn[at][:3]) == CIVIDIS[-1]
        assert drawn[at][3] == drawn[..., 3].max() == 235
        assert drawn[..., 3].min() < 160  # the image is seen through what is small


def test_what_speaks_against_a_text_is_blue() -> None:
    found = of_lit()
    assert found.texts is not None
    terms = against_others(found.texts.contributions)[found.texts.ranking()[0]].reshape(8, 8)
    drawn = pictures(section(page(found), "texts"))[0]
    blue = drawn[..., 2].astype(int) > drawn[..., 0]
    seen = drawn[..., 3] > 0
    np.testing.assert_array_equal(blue[seen], (terms < 0)[seen])
    assert 5 < blue.sum() < 59


def test_components_are_drawn_at_every_depth() -> None:
    found = of_native()
    drawn = pictures(section(page(found), "components"))
    assert len(drawn) == 4 * 4
    for d in range(4):
        colours = found.components.colours[d].reshape(21, 32, 3)
        np.testing.assert_array_equal(drawn[4 * d][..., :3], colours)


def test_the_plot_shows_the_means() -> None:
    found = of_lit().residual
    text = section(page(of_lit()), "residual")
    low, high = data(page(of_lit()))["scale"]
    for name, values in (("stream", found.stream), ("attention", found.attention)):
        (path,) = re.findall(rf'<path class="{name} mean" d="M([^"]*)"', text)
        numbers = np.array([float(n) for n in path.split()]).reshape(-1, 2)
        read = 10 ** (high - numbers[:, 1] / 1000 * (high - low))
        np.testing.assert_allclose(read, values.mean(axis=1), rtol=0.01)


def test_the_table_holds_the_means() -> None:
    found = of_lit().residual
    rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', section(page(of_lit()), "residual"))
    read = [re.findall(r"[\d.]+", re.sub("<.*?>", " ", row)) for row in rows]
    stream, attention, mlp = (x.mean(axis=1) for x in (found.stream, found.attention, found.mlp))
    wanted = np.stack([np.arange(6), stream[:-1], attention, mlp, stream[1:]], axis=1)
    np.testing.assert_allclose(np.array(read, float), wanted, rtol=0.01)


@pytest.mark.parametrize(
    ("values", "steps", "ends", "labels"),
    [
        ((3.2, 70.0), (1, 2, 5), (2, 100), ["2", "5", "10", "20", "50", "100"]),
        ((100.0,), (1, 2, 5), (100, 1000), ["100", "200", "500", "1000"]),
        ((0, math.inf, 0.3, 2e3), (1, 2, 5), (0.2, 2000), ["10³", "10²", "10¹", "10⁰"]),
        ((2e-3, 3e-7), (1,), (1e-7, 1e-2), ["10⁻²", "10⁻³", "10⁻⁴", "10⁻⁵", "10⁻⁶", "10⁻⁷"]),
        ((5.0,), (1,), (1, 100), ["1", "2", "5", "10", "20", "50", "100"]),
    ],
)
def test_scales_end_near_what_they_hold(values: Any, steps: Any, ends: Any, labels: Any) -> None:
    scale = LogScale.around(values, steps=steps)
    assert (10**scale.low, 10**scale.high) == pytest.approx(ends)
    assert re.findall("<text[^>]*>([^<]*)", decades(scale)) == labels
    assert [scale.y(end) for end in reversed(ends)] == pytest.approx([0, 1])
