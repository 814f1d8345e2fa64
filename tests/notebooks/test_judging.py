"""How exercises are judged, on answers of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aimv2_np import AIMv2Error
from aimv2_np.lessons import Verdict, check
from aimv2_np.lessons.judging import Unanswered, Wrong, array, call, choice, number


def wrong(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Wrong) as hint:
        function(*args, **kwargs)
    return str(hint.value)


def test_verdicts_read_well() -> None:
    assert repr(Verdict("right", "so it is.")) == "✓ right: so it is."
    assert repr(Verdict("wrong", "look again")) == "✗ not right: look again"
    assert repr(Verdict("unanswered")) == "… not answered yet"


@pytest.mark.parametrize("answer", [..., None, [1, ...], (..., ...), lambda: ...])
def test_no_answer_is_no_wrong_answer(answer: Any) -> None:
    if callable(answer):
        with pytest.raises(Unanswered):
            call(answer)
    else:
        assert check("01.count", answer).status == "unanswered"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("01.nonsense", "there is no exercise '01.nonsense'; there are 01.count, "),
        ("77.count", "there is no lesson '77'"),
        ("", "there is no lesson ''"),
    ],
)
def test_an_unknown_exercise_is_an_error(name: str, says: str) -> None:
    with pytest.raises(AIMv2Error) as error:
        check(name, 1)
    assert says in str(error.value)


def test_numbers() -> None:
    number(1530, 1530)
    number(np.float32(1530.0), 1530)
    number("1530", 1530)
    assert wrong(number, 1600, 1530, {1600: "round down"}) == "round down"
    assert "too large" in wrong(number, 1531, 1530)
    assert "too small" in wrong(number, -1, 1530)
    assert "found a list" in wrong(number, [1], 1530)
    assert "an array of the shape (2,)" in wrong(number, np.ones(2), 1530)
    assert wrong(number, float("nan"), 1530) == "a number is asked for, found NaN"
    assert "inf is too large" in wrong(number, float("inf"), 1530)


def test_arrays() -> None:
    right = np.array([[1.0, -np.inf], [3.0, 4.0]])
    array(right.astype(np.float32), right)
    array(right.tolist(), right)
    assert "should be (2, 2), found (4,)" in wrong(array, right.ravel(), right)
    assert "NaN" in wrong(array, right * np.nan, right)
    assert "1 of 4 numbers differ" in wrong(array, np.where(right == 3, 9, right), right)
    assert "1 of 4 numbers differ" in wrong(array, np.where(right < 0, 0, right), right)
    assert wrong(array, right.T, right, [(right.T, "transposed")]) == "transposed"
    assert wrong(array, right[0], right, [(right[0], "a row of it")]) == "a row of it"
    assert "an array is asked for, found a str" in wrong(array, "right", right)
    assert "an array is asked for" in wrong(array, [[1], [1, 2]], right)


def test_choices() -> None:
    choice(" rows ", "rows", {"columns": "the other way round"})
    assert wrong(choice, "columns", "rows", {"columns": "the other way"}) == "the other way"
    assert "choose one of 'columns', 'rows'" in wrong(choice, 7, "rows", {"columns": ""})


def test_functions_get_copies_and_what_they_raise_is_a_hint() -> None:
    x = np.ones(3)

    def changes(x: Any) -> Any:
        x += 1
        return x

    assert call(changes, x).tolist() == [2, 2, 2]
    assert x.tolist() == [1, 1, 1]
    assert "raised ZeroDivisionError" in wrong(call, lambda x: 1 / 0, x)
    assert "returns nothing" in wrong(call, lambda x: None, x)
    assert "of the shapes (3,)" in wrong(call, lambda x: 1 / 0, x)
    assert "a function is asked for, found an int" in wrong(call, 3, x)
