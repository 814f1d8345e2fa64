"""The page of an explanation in a browser: what is picked is shown, and it is the right thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, contrast, running
from explained import LABELS, native, of_lit, of_native
from pages import HOSTILE

from aimv2_np.explain import Explanation, explain
from aimv2_np.explain.texts import against_others

pytestmark = pytest.mark.notebooks

FIRST = 10 * 32 + 16  # the native model's, in the middle
COARSE = 4 * 180 * 336  # weights that leave cells of 2 × 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with running(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def shown(browser: Page, tmp_path: Path) -> Iterator[Any]:
    """Shows an explanation; at the end nothing may have complained or asked for anything."""
    file = tmp_path / "page.html"

    def show(found: Explanation, width: int = 1200, **look: Any) -> Page:
        found.write(file)
        browser.look(width, **look)
        browser.open(file)
        return browser

    yield show
    assert browser.complaints() == []
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert asked == [file.as_uri()]


def status(page: Page) -> str:
    return page.text("#attends-status")


def percent(part: float) -> str:
    return f"{float(f'{100 * part:.3g}'):g} %" if part < 0.0995 else f"{100 * part:.1f} %"


def drawn(page: Page, selector: str) -> Any:
    """The pixels of a canvas, (rows, columns, 4)."""
    width, height, values = page.evaluate(
        f"(c => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height)"
        f".data]])(document.querySelector({selector!r}))"
    )
    return np.array(values).reshape(height, width, 4)


def outline(page: Page, picture: str) -> list[float]:
    """Where the outline in a picture lies: left, top, width, height in patches."""
    found = page.evaluate(
        f"(p => {{ const s = p.querySelector('.mark').style; "
        "return ['left', 'top', 'width', 'height'].map(side => parseFloat(s[side]) / 100); })"
        f"(document.querySelector({picture!r}))"
    )
    columns, rows = page.evaluate(
        "[data => [data.columns, data.rows]][0]"
        "(JSON.parse(document.querySelector('#data').textContent))"
    )
    return [round(x * n, 3) for x, n in zip(found, (columns, rows) * 2, strict=True)]


# ---------------------------------------------------------------------------- attention


def test_it_begins_with_a_patch(shown: Any) -> None:
    page, found = shown(of_lit()), of_lit()
    assert found.pooling is not None
    patch = int(found.pooling.mean(axis=0).argmax())
    row, column = divmod(patch, 8)
    asked = f"Patch {patch} (row {row}, column {column}), block 3, mean of heads: reads "
    assert status(page).startswith(asked)
    assert outline(page, "#attends") == [column, row, 1, 1]
    assert page.text("#block-number") == "3"


def test_a_click_picks_a_patch_and_shows_whom_it_attends_to(shown: Any) -> None:
    page, found = shown(of_lit()), of_lit()
    page.click("#attends", across=5.5 / 8, down=2.5 / 8)
    assert "Patch 21 (row 2, column 5), block 3, mean of heads" in status(page)
    read = np.mean([found.attention.weights(3, head)[21] for head in range(6)], axis=0)
    best = int(read.argmax())
    assert percent(float(read[best])) in status(page)
    assert page.text("#attention .most") == percent(float(read[best]))
    half = int(np.searchsorted(np.cumsum(np.sort(read)[::-1]), read.sum() / 2)) + 1
    assert f"Half of all comes from {half} of 64 patches." in status(page)
    image = drawn(page, "#attends canvas")
    assert image[..., :3].reshape(64, 3)[best].tolist() == [254, 232, 56]
    order = np.argsort(read)
    bright = image.reshape(64, 4)[:, 0]  # of cividis red only rises
    assert (np.diff(bright[order].astype(int)) >= -1).all()
    assert outline(page, "#for-text") == [5, 2, 1, 1]  # all pictures follow


def test_a_patch_that_reads_itself_is_called_so(shown: Any) -> None:
    read = np.mean([of_lit().attention.weights(3, head) for head in range(6)], axis=0)
    own = int(np.flatnonzero(read.argmax(axis=1) == np.arange(64))[0])
    page = shown(of_lit())
    page.click("#attends", across=(own % 8 + 0.5) / 8, down=(own // 8 + 0.5) / 8)
    assert f"reads {percent(float(read[own, own]))} from itself, " in status(page)


def test_hovering_shows_a_patch_for_as_long_as_it_lasts(shown: Any) -> None:
    page = shown(of_lit())
    page.click("#attends", across=0.5 / 8, down=0.5 / 8)
    page.hover("#attends", across=7.5 / 8, down=7.5 / 8)
    assert "Patch 63 (row 7, column 7)" in status(page)
    page.hover("h1")
    assert "Patch 0 (row 0, column 0)" in status(page)


def test_a_finger_picks_a_patch(shown: Any) -> None:
    page = shown(of_lit(), 360)
    page.tap("#attends", across=3.5 / 8, down=6.5 / 8)
    assert "Patch 51 (row 6, column 3)" in status(page)
    page.tap("#for-text", across=4.5 / 8, down=6.5 / 8)
    assert "Patch 52 (row 6, column 4)" in status(page)


def test_keys_move_the_patch(shown: Any) -> None:
    page = shown(of_lit())
    page.evaluate("document.querySelector('#attends').focus()")
    for key in ("Home", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp",
                "ArrowUp", "ArrowUp", "ArrowRight", "ArrowDown"):  # fmt: skip
        page.press(key)
    assert "Patch 9 (row 1, column 1)" in status(page)  # it does not leave the image
    for key, patch in (("End", "15 (row 1, column 7)"), ("PageDown", "63 (row 7, column 7)"),
                       ("ArrowDown", "63 (row 7, column 7)"), ("ArrowLeft", "62 (row 7, column 6)"),
                       ("PageUp", "6 (row 0, column 6)")):  # fmt: skip
        page.press(key)
        assert f"Patch {patch}" in status(page)


def test_only_the_section_in_use_is_read_aloud(shown: Any) -> None:
    page = shown(of_lit())
    for picture in ("for-text", "attends"):
        page.evaluate(f"document.querySelector('#{picture}').focus()")
        live = page.evaluate(
            "[...document.querySelectorAll('.status')].filter(e => e.ariaLive === 'polite')"
            ".map(e => e.id)"
        )
        assert live == [f"{picture}-status"]
    page.evaluate("document.querySelector('#block').focus()")
    page.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "block 4"


def test_everything_can_be_reached_with_the_tab_key(shown: Any) -> None:
    page = shown(of_lit())
    reached = []
    for _ in range(10):
        page.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.name || ''")
        )
    assert reached[:6] == ["for-text", "text", "against", "attends", "asked", "block"]
    assert reached[6:8] == ["head", ""]  # of the table, its summary
    assert "component" in reached


def test_blocks_and_heads_are_chosen_with_keys_and_clicks(shown: Any) -> None:
    page, found = shown(of_lit()), of_lit()
    page.evaluate("document.querySelector('#block').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.text("#block-number") == "5"
    page.click("label.pick:nth-child(4)")
    assert ", block 5, head 2: " in status(page)
    page.press("ArrowRight")
    assert ", block 5, head 3: " in status(page)
    page.click("#attends", across=0.5 / 8, down=0.5 / 8)
    top = float(found.attention.weights(5, 3)[0].max())
    assert page.text("#attention .most") == percent(top)
    captions = page.evaluate(
        "[...document.querySelectorAll('#attention .detail')].map(e => e.textContent)"
    )
    tops = [float(found.attention.weights(5, head)[0].max()) for head in range(6)]
    assert captions[1:] == [f"≤ {percent(top)}" for top in tops]


def test_the_other_way_round_it_shows_who_attends_to_the_patch(shown: Any) -> None:
    page, found = shown(of_lit()), of_lit()
    lead = page.text("#attention > p")
    page.click("#attends", across=5.5 / 8, down=2.5 / 8)
    page.click("input[name=asked][value='1']")
    read = np.mean([found.attention.weights(3, head)[:, 21] for head in range(6)], axis=0)
    best = int(read.argmax())
    other = "itself" if best == 21 else f"patch {best} "
    assert f": provides {percent(float(read[best]))} of what is read by {other}" in status(page)
    image = drawn(page, "#attends canvas")
    assert image[..., :3].reshape(64, 3)[best].tolist() == [254, 232, 56]
    assert page.text("#attention > p") != lead
    page.click("input[name=asked][value='0']")
    assert " reads " in status(page)
    assert page.text("#attention > p") == lead


def test_who_attends_to_a_cell_of_a_large_image(shown: Any) -> None:
    found = of_native(4 * 77 * 176)
    query, key = found.attention.query_cell, found.attention.key_cell
    assert query != key
    page = shown(found)
    page.click("input[name=asked][value='1']")
    page.click("#attends", across=31.5 / 32, down=20.5 / 21)
    row, column = 20 // key * key, 31 // key * key
    size = [min(key, 32 - column), min(key, 21 - row)]
    assert outline(page, "#attends") == [column, row, *size]
    read = np.mean([found.attention.weights(1, head)[:, -1] for head in range(2)], axis=0)
    cell, across = int(read.argmax()), -(-32 // query)
    where = f"row {cell // across * query}, column {cell % across * query}"
    wanted = f"of what is read by the {query} × {query} patches from {where}"
    assert f"{percent(float(read.max()))} {wanted}" in status(page)
    page.click("input[name=asked][value='0']")
    assert outline(page, "#attends")[:2] == [31 // query * query, 20 // query * query]


def test_a_long_text_stays_short_where_it_is_repeated(shown: Any) -> None:
    found = of_lit()
    assert found.texts is not None
    labels = ("مرحبا " * 400, *LABELS[1:])
    page = shown(replace(found, texts=replace(found.texts, labels=labels)), 360)
    assert len(page.text("#for-text-status")) < 400
    heights = page.evaluate("[...document.querySelectorAll('.label')].map(e => e.offsetHeight)")
    assert max(heights) <= 4 * 24
    assert page.evaluate("document.querySelector('.label').matches(':dir(rtl)')")


def test_tiles_of_a_tall_image_stay_on_the_screen(shown: Any) -> None:
    image = np.random.default_rng(3).integers(0, 256, (560, 42, 3), dtype=np.uint8)
    page = shown(explain(native(), image))
    heights = page.evaluate("[...document.querySelectorAll('.small')].map(e => e.offsetHeight)")
    assert 200 < max(heights) <= 250


def test_cells_of_a_large_image(shown: Any) -> None:
    found = of_native(COARSE)
    page = shown(found)
    page.click("#attends", across=31.5 / 32, down=20.5 / 21)  # the cell at the corner
    assert status(page).startswith(
        "The 2 × 2 patches from row 20, column 30, block 1, mean of heads"
    )
    assert outline(page, "#attends") == [30, 20, 2, 1]
    read = np.mean([found.attention.weights(1, head)[-1] for head in range(2)], axis=0)
    cell = int(read.argmax())
    patch = cell // 16 * 2 * 32 + cell % 16 * 2
    where = f"row {patch // 32}, column {patch % 32}"
    assert f"reads {percent(float(read.max()))} from the 2 × 2 patches from {where}, " in status(
        page
    )
    image = drawn(page, "#attends canvas")
    assert image.shape == (21, 32, 4)
    bright = np.argwhere((image[..., :3] == [254, 232, 56]).all(axis=-1))
    assert bright[0].tolist() == [patch // 32, patch % 32]


# ---------------------------------------------------------------------------- texts, depth


def test_a_text_is_chosen_and_its_terms_shown(shown: Any) -> None:
    page, found = shown(of_lit()), of_lit().texts
    assert found is not None
    page.click("label.text:nth-child(3)")
    page.click("#for-text", across=6.5 / 8, down=4.5 / 8)
    k = found.ranking()[2]
    said = page.text("#for-text-status")
    term = against_others(found.contributions)[k, 38]
    total = found.logits[k] - np.delete(found.logits, k).mean()
    assert f"to the logit of “{LABELS[k]}” against the mean of the others" in said
    assert f"Patch 38 (row 4, column 6) adds {term:+.3g} to" in said
    assert said.endswith(f"together {total:+.3g}.")
    page.click("input[name=against][value='1']")
    said = page.text("#for-text-status")
    assert f"adds {found.contributions[k, 38]:+.3g} to the logit of “{LABELS[k]}”; all" in said
    assert said.endswith(f"together {found.logits[k]:+.3g}.")
    image, terms = drawn(page, "#for-text canvas").reshape(64, 4), found.contributions[k]
    assert image[int(np.abs(terms).argmax()), 3] == image[:, 3].max() == 235
    visible = image[:, 3] > 8
    np.testing.assert_array_equal((image[:, 0] > image[:, 2])[visible], (terms > 0)[visible])


def test_the_plot_follows_the_patch(shown: Any) -> None:
    page, found = shown(of_lit()), of_lit().residual
    page.click("#attends", across=0.5 / 8, down=4.5 / 8)
    said = page.text("#residual-status")
    assert f"Patch 32 (row 4, column 0) in block 3: length {found.stream[3, 32]:.0f} before" in said
    wanted = (f"attention adds {found.attention[3, 32]:.3g}, MLP adds {found.mlp[3, 32]:.3g}; "
              f"length {found.stream[4, 32]:.0f} after.")  # fmt: skip
    assert said.endswith(wanted)
    low, high = page.evaluate("JSON.parse(document.querySelector('#data').textContent).scale")
    path = page.evaluate("document.querySelector('.plot path.mlp.one').getAttribute('d')")
    numbers = np.array([float(n) for n in path[1:].split()]).reshape(-1, 2)
    read = 10 ** (high - numbers[:, 1] / 1000 * (high - low))
    np.testing.assert_allclose(read, found.mlp[:, 32], rtol=0.01)


def test_components_are_shown_one_by_one(shown: Any) -> None:
    page = shown(of_lit())
    for i in (2, 0):
        page.click(f"input[name=component][value='{i}']")
        visible = page.evaluate(
            "[...document.querySelectorAll('.version')].filter(e => e.offsetWidth > 0)"
            ".map(e => e.className)"
        )
        assert visible == [f"version c{i}"] * 8


# ---------------------------------------------------------------------------- looks

LOOKS = """
(() => {
  const back = e => {
    const own = getComputedStyle(e).backgroundColor;
    return own !== "rgba(0, 0, 0, 0)" ? own : back(e.parentElement);
  };
  const seen = [...document.querySelectorAll("h1, h2, p, dt, dd, b, .detail, .label, .number, " +
    "legend, label span, output, summary, .status")]
    .filter(e => e.offsetWidth > 0 && [...e.childNodes].some(n => n.nodeType === 3));
  return {
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    colours: [...new Set(seen.map(e => getComputedStyle(e).color + ";" + back(e)))],
    pictures: [...document.querySelectorAll(".picture[id]")].map(e => e.getBoundingClientRect())
      .map(b => [b.width, b.height, b.right]),
    tiles: [...document.querySelectorAll(".small")].filter(e => e.offsetWidth > 0)
      .map(e => e.offsetWidth),
    moving: document.getAnimations().length,
  };
})()
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 700, 1200])
@pytest.mark.parametrize("kind", ["lit", "native"])
def test_it_fits_and_can_be_read(shown: Any, kind: str, width: int, dark: bool) -> None:
    found = of_lit() if kind == "lit" else of_native()
    seen = shown(found, width, dark=dark).evaluate(LOOKS)
    assert seen["dark"] == dark
    assert seen["overflow"] == 0
    assert min(contrast(pair) for pair in seen["colours"]) > 4.5
    rows, columns = found.grid
    for across, down, right in seen["pictures"]:
        assert across > min(0.85 * width, 400) * min(1, columns / rows) - 40
        assert across / down == pytest.approx(columns / rows, rel=0.02)
        assert right <= width
    assert min(seen["tiles"]) >= 80
    assert seen["moving"] == 0


def test_a_window_that_changes_keeps_the_patches_where_they_are(shown: Any) -> None:
    page = shown(of_lit(), 1200)
    page.look(360)
    page.click("#attends", across=2.5 / 8, down=1.5 / 8)
    assert "Patch 10 (row 1, column 2)" in status(page)


def test_without_scripts_it_can_be_read(browser: Page, tmp_path: Path) -> None:
    of_lit().write(tmp_path / "page.html")
    browser.look(1200)
    browser.open(tmp_path / "page.html", scripts=False)
    photograph = tmp_path / "page.png"
    browser.photograph(photograph, width=1200)
    assert photograph.stat().st_size > 50_000
    assert "nothing can be chosen" in browser.text("noscript")
    assert browser.evaluate("document.querySelector('#attends img').naturalWidth") == 8
    assert browser.evaluate("document.querySelectorAll('canvas').length") == 0
    assert browser.evaluate("document.querySelector('#block').disabled")
    assert browser.evaluate("document.querySelector('#texts fieldset').offsetWidth") == 0


def test_hostile_labels_do_nothing(shown: Any) -> None:
    found = of_lit()
    assert found.texts is not None
    labels = (HOSTILE, "</script><script>window.bad = 1</script>", "c", "d", "e")
    hostile = replace(found, texts=replace(found.texts, labels=labels), image=HOSTILE)
    page = shown(hostile)
    for i in range(1, 6):
        page.click(f"label.text:nth-child({i})")
    assert page.evaluate("window.bad === undefined")
    assert page.evaluate("document.querySelectorAll('#for-text-status *').length") == 0
