"""The HTML page in a browser: nothing overflows, drawings are seen, texts can be read."""

from __future__ import annotations

import json
import re
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest
from browser import browser, contrast
from html_pages import hostile, verified

from aimv2_np.verify.html import page

pytestmark = pytest.mark.notebooks

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
