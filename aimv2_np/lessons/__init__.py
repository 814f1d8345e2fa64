"""What the lessons in notebooks/ need besides the library: the checks of their exercises.

    from aimv2_np.lessons import check
    check("01.count", answer)       # not answered yet; wrong, and a hint; or right

It lives in the package because in Colab there are only a notebook and what was installed. The
solutions are not here, and no check knows them: it has values worked out on their own.

scoring.py      how many drawings a model names right, for the cells that break it
judging.py      verdicts, and the comparisons that give hints
lesson_….py     the exercises of a lesson
"""

from typing import TYPE_CHECKING

from ..lazy import lazily

_WHERE = {"Verdict": "judging", "check": "judging", "named_right": "scoring"}

__all__ = ["Verdict", "check", "named_right"]

if TYPE_CHECKING:
    from .judging import Verdict as Verdict
    from .judging import check as check
    from .scoring import named_right as named_right

__getattr__, __dir__ = lazily(__name__, _WHERE)
