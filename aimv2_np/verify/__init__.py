"""Where does a port of AIMv2 first differ, and which mistake explains it?

    from aimv2_np.verify import Candidate, Case, reference, verify_cases
    print(verify_cases(reference("emoji-lit"), [Case(...)], Candidate("mine", {...})))

walk.py       the reference, section by section, with mistakes planted in it
lanes.py      the truth in float64, and correct runs that show what rounding costs
locate.py     the first activation that rounding does not explain
mistakes/     the library of mistakes, each a small patch of the reference
diagnose.py   which of them explains the difference
report.py     the result

Names are imported when they are first used: pytest loads pytest_plugin.py in every run of whoever
has the package.
"""

from typing import TYPE_CHECKING

from ..lazy import lazily

_WHERE = {
    "Candidate": "candidate",
    "Case": "walk",
    "Inputs": "inputs",
    "Report": "report",
    "assert_matches": "asserts",
    "make_inputs": "inputs",
    "reference": "run",
    "verify_cases": "run",
}

__all__ = ["Candidate", "Case", "Inputs", "Report", "assert_matches", "make_inputs", "reference",
           "verify_cases"]  # fmt: skip

if TYPE_CHECKING:
    from .asserts import assert_matches as assert_matches
    from .candidate import Candidate as Candidate
    from .inputs import Inputs as Inputs
    from .inputs import make_inputs as make_inputs
    from .report import Report as Report
    from .run import reference as reference
    from .run import verify_cases as verify_cases
    from .walk import Case as Case

__getattr__, __dir__ = lazily(__name__, _WHERE)
