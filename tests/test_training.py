"""The parts of training/ that figures and captions hang on and that need nothing but NumPy.

training/ is a folder of scripts and no package; tests/compare/test_training.py judges those that
need torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TRAINING = Path(__file__).parents[1] / "training"


@pytest.fixture(scope="module")
def training() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TRAINING)
        yield {name: import_module(name) for name in ("scores", "captions", "emoji")}


def test_a_rank_counts_the_wrong_ones_that_score_no_lower(training: dict[str, ModuleType]) -> None:
    scores = np.array(
        [
            [0.9, 0.1, 0.5],  # right: 0, the best
            [0.9, 0.1, 0.5],  # right: 1, the worst
            [0.5, 0.5, 0.1],  # right: 0, a tie counts against it
            [0.1, 0.2, np.nan],  # right: 1, what cannot be compared counts against it too
            [np.nan, 0.1, 0.2],  # right: 0, no success either
        ]
    )
    found = training["scores"].ranks(scores, np.array([0, 1, 0, 1, 0]))
    assert found.tolist() == [0, 2, 1, 1, 2]


def test_top_1_and_top_5_are_percentages_of_rows(training: dict[str, ModuleType]) -> None:
    scores = np.tile(np.arange(8.0), (4, 1))  # column 7 is the best everywhere
    right = np.array([7, 6, 3, 2])  # ranks 0, 1, 4, 5
    assert training["scores"].summary(scores, right) == {"top-1": 25.0, "top-5": 75.0}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("cat", "a photo of a cat"),
        ("umbrella", "a photo of an umbrella"),
        ("unicorn", "a photo of a unicorn"),
        ("hourglass done", "a photo of an hourglass done"),
        ("8 ball", "a photo of an 8 ball"),
        ("grapes", "a photo of grapes"),
        ("glass of milk", "a photo of a glass of milk"),
        ("people with bunny ears", "a photo of people with bunny ears"),
    ],
)
def test_articles(training: dict[str, ModuleType], words: str, sentence: str) -> None:
    assert training["captions"].in_template("a photo of {a}", words) == sentence


@pytest.mark.parametrize(
    ("icon", "bare"),
    [
        ("cat-fill", "cat"),
        ("cat-fill-2", "cat"),
        ("hot-dog", "hot-dog"),
        ("bell-off", "bell-off"),  # crossed out: another picture
        ("heart-broken", "heart-broken"),  # no style either
        ("clock-7", "clock-7"),  # an hour,
        ("mouse-2", "mouse"),  # a version
        ("outline", "outline"),
    ],
)
def test_icons_are_named_without_their_style(
    training: dict[str, ModuleType], icon: str, bare: str
) -> None:
    assert training["emoji"].without_style(icon) == bare
