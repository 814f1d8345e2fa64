"""From a model and a candidate's activations to a report."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ..errors import AIMv2Warning, VerificationError
from ..loader import load
from ..trace import activation_names
from .candidate import Candidate
from .diagnose import diagnose
from .lanes import LAZY, as_dtype, is_small, truth
from .locate import compare
from .report import Report
from .walk import Case, Tick, names_of, silent

__all__ = ["known_names", "reference", "verify_cases"]

_INPUTS = {"pixel_values", "input_ids"}  # handed back they say nothing


def reference(model: Any, **where: Any) -> Any:
    """A model to verify against: in float64, its blocks left in the files until they are needed."""
    return load(model, backend=LAZY, dtype="float64", **where)


def known_names(model: Any, cases: Sequence[Case]) -> dict[str, list[str]]:
    """What a candidate can give of each case, other than its inputs."""
    return {case.name: [n for n in names_of(model, case) if n not in _INPUTS] for case in cases}


def _check_depth(pipeline: Any, cases: Sequence[Case], candidate: Candidate) -> None:
    """Refuse activations of blocks that the model does not have: they are another model's."""
    known, model = set(activation_names(pipeline.config)), getattr(pipeline, "name", "the model")
    for case in cases:
        strange = [n for n in candidate.names(case.name) if ".blocks." in n and n not in known]
        if strange:
            raise VerificationError(
                f"{candidate.name} gives {strange[0]}, which {model} does not have: is it another "
                "model's?"
            )


def _threads(pipeline: Any) -> Any:
    """BLAS on one thread for a small model: on a busy machine more would wait for each other."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if is_small(pipeline) else None, user_api="blas")


def verify_cases(
    pipeline: Any, cases: Sequence[Case], candidate: Candidate, *, tick: Tick = silent
) -> Report:
    """Compare a candidate with a `reference` on some cases, and explain what differs.

    `tick` is told what is being done.

    Raises:
        VerificationError: the candidate gives no activation of any case.
    """
    as_dtype(candidate.dtype)
    given = [case for case in cases if set(candidate.names(case.name)) - _INPUTS]
    _check_depth(pipeline, given, candidate)
    if not given:
        known = ", ".join(sorted(case.name for case in cases))
        raise VerificationError(f"{candidate.name} gives no activation of the cases {known}")
    with warnings.catch_warnings(), _threads(pipeline):
        warnings.simplefilter("ignore", AIMv2Warning)  # texts that are too long are meant
        model = truth(pipeline)
        results = [compare(model, case, candidate, tick=tick) for case in given]
        findings = diagnose(model, candidate, results, tick, [c for c in cases if c not in given])
    return Report(
        str(getattr(pipeline, "name", "the model")),
        candidate.name,
        candidate.dtype,
        results,
        findings,
        candidate.notes,
        known_names(model, cases),
    )
