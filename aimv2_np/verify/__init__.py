"""Where does a port of AIMv2 first differ, and which mistake explains it?

    from aimv2_np.verify import Candidate, Case, reference, verify_cases
    print(verify_cases(reference("emoji-lit"), [Case(...)], Candidate("mine", {...})))

walk.py       the reference, section by section, with mistakes planted in it
lanes.py      the truth in float64, and correct runs that show what rounding costs
locate.py     the first activation that rounding does not explain
mistakes/     the library of mistakes, each a small patch of the reference
diagnose.py   which of them explains the difference
report.py     the result
"""

from .candidate import Candidate
from .report import Report
from .run import reference, verify_cases
from .walk import Case

__all__ = ["Candidate", "Case", "Report", "reference", "verify_cases"]
