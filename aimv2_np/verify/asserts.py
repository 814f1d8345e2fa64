"""For the test suites of other projects: does a port match, yes or no?

from aimv2_np.verify import assert_matches
assert_matches("large-patch14-224-lit", "outputs.safetensors")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VerificationError
from ..models import LiT, VisionEncoder
from ..weights.files import shown
from .candidate import Candidate, asked, images_apart
from .files import read_candidate
from .gather import Stored, by_case, gathered, stored
from .inputs import RAW, Inputs, make_inputs, read_inputs
from .lanes import as_dtype
from .locate import CaseResult
from .preprocess import compare_raw
from .report import Report
from .run import known_names, reference, verify_cases
from .walk import Case, Tick, silent

__all__ = ["as_candidate", "as_inputs", "as_reference", "assert_matches", "only", "report_on"]

Path_ = str | os.PathLike[str]
_SHOWN = 4  # names that a message lists
Ported = Path_ | Candidate | Mapping[str, Any] | Callable[..., Any]


def assert_matches(
    model: Any,
    candidate: Ported,
    *,
    inputs: Inputs | Sequence[Case] | Path_ | None = None,
    dtype: str | None = None,
    names: Path_ | None = None,
    taps: str | Iterable[str] | None = None,
    require: str | Iterable[str] = (),
) -> Report:
    """Assert that a port computes what the model does, up to rounding.

    Args:
        model: a name, folder or file, as `load` takes it, or a `reference`, made once for many.
        candidate: the port's activations, by our names or by another program's: a .safetensors or
            .npz file, a mapping {case: {name: array}} or {"case/name": array} (with a single case
            {name: array} will do), a `Candidate`; or the port itself, a function that takes
            pixel_values, input_ids and attention_mask and returns {name: array}.
        inputs: what the port was run on: a file, `Inputs`, or cases. By default those that
            `make_inputs` makes.
        dtype: in which the port computes; by default what a file says, else float32.
        names: what its activations are called: a scheme or a JSON file, as in `read_candidate`.
        taps: one or more glob patterns: compared is what matches one, and each must match
            something. By default whatever is given is compared.
        require: one or more glob patterns of activations that must be given in every case that has
            them, such as "*.resid_post"; "*" is everything.

    Returns:
        The report of a port that is right.

    Raises:
        AssertionError: it is not; the message says where it first differs and, perhaps, why.
        VerificationError: nothing can be compared, or something required is not given.
    """
    __tracebackhide__ = True  # pytest shows the test's line, not ours
    report = report_on(
        model, candidate, inputs=inputs, dtype=dtype, names=names, taps=taps, require=require
    )
    if not report.ok:
        raise AssertionError(str(report))
    return report


def report_on(
    model: Any,
    candidate: Ported,
    *,
    inputs: Inputs | Sequence[Case] | Path_ | None = None,
    dtype: str | None = None,
    names: Path_ | None = None,
    taps: str | Iterable[str] | None = None,
    require: str | Iterable[str] = (),
    tick: Tick = silent,
) -> Report:
    """What `assert_matches` asserts to be right.

    Raises:
        VerificationError: nothing can be compared, or something required is not given.
    """
    pipeline = as_reference(model)
    given = as_inputs(pipeline, inputs)
    port = as_candidate(candidate, given.cases, model=pipeline, dtype=dtype, names=names)
    if taps is not None:
        port = only(port, taps)
    if RAW in port.cases:
        port = replace(port, cases={**port.cases, RAW: images_apart(port, len(given.sources))})
    check_required(port, _known(pipeline, given), require)
    report = _report(pipeline, given, port, tick)
    if not report.compared:
        raise VerificationError(
            f"{port.name} gives nothing of {report.model} that could be compared: it gives "
            f"{_listed(n for case in port.cases for n in port.names(case))}"
        )
    return report


def _report(pipeline: Any, inputs: Inputs, port: Candidate, tick: Tick) -> Report:
    """The calls of the model, and what was made of raw images and texts."""
    raw, calls = RAW in port.cases, set(port.cases) - {RAW}
    report = Report(pipeline.name, port.name, port.dtype, [], [], port.notes)
    if calls:
        report = verify_cases(pipeline, inputs.cases, port, tick=tick)
    if raw:
        taps, findings = compare_raw(pipeline, inputs, port)
        results = [*report.results, CaseResult(Case(RAW), taps)]
        report = replace(report, results=results, findings=[*report.findings, *findings])
    return replace(report, known=_known(pipeline, inputs))


def _known(pipeline: Any, inputs: Inputs) -> dict[str, list[str]]:
    """What a port can give, by case."""
    known = known_names(pipeline, inputs.cases) | {RAW: asked(inputs)}
    return {case: names for case, names in known.items() if names}


def check_required(
    port: Candidate, known: Mapping[str, Sequence[str]], require: str | Iterable[str]
) -> None:
    """Refuse a port that does not give all that is known and matches some patterns.

    Raises:
        VerificationError: it does not, or a pattern matches nothing.
    """
    for pattern in [require] if isinstance(require, str) else require:
        wanted = [(c, n) for c, names in known.items() for n in names if fnmatchcase(n, pattern)]
        missing = [f"{case}/{name}" for case, name in wanted if name not in {*port.names(case)}]
        if not wanted:
            raise VerificationError(f"required is {pattern!r}, which matches no activation")
        if missing:
            raise VerificationError(
                f"{port.name} does not give what is required: {_listed(missing)}"
            )


# ---------------------------------------------------------------------------- what was passed


def as_reference(model: Any) -> Any:
    """A model to compare with: one that is made already, or the `reference` of a name.

    Raises:
        VerificationError: a model whose weights were laid out for another backend.
    """
    if isinstance(model, str | os.PathLike):
        return reference(model)
    if not isinstance(model, VisionEncoder | LiT):
        raise VerificationError(
            f"expected a model's name, folder or file, or aimv2_np.verify.reference(...) of one, "
            f"found {type(model).__name__}"
        )
    if model.backend.name != "numpy":
        raise VerificationError(
            f"this model was loaded for the backend {model.backend.name}: pass its name, or "
            "aimv2_np.verify.reference(name)"
        )
    return model


def as_inputs(pipeline: Any, inputs: Inputs | Sequence[Case] | Path_ | None) -> Inputs:
    """What a port is run on.

    Raises:
        VerificationError: none were passed for a model that cannot make any, or something else.
    """
    if isinstance(inputs, Inputs):
        return inputs
    if isinstance(inputs, str | os.PathLike):
        return read_inputs(inputs)
    if inputs is None and hasattr(pipeline, "processor"):
        return make_inputs(pipeline)
    cases = [inputs] if isinstance(inputs, Case) else list(inputs or ())
    if not cases or not all(isinstance(case, Case) for case in cases):
        raise VerificationError("inputs: expected a file, Inputs, or a list of at least one Case")
    for case in cases:
        if "/" in case.name or case.name == RAW:
            raise VerificationError(f"inputs: a case cannot be called {shown(case.name)}")
    if len({case.name for case in cases}) < len(cases):
        raise VerificationError("inputs: two cases have the same name")
    return Inputs(cases, [], [])


def as_candidate(
    candidate: Ported,
    cases: Sequence[Case],
    *,
    model: Any = None,
    dtype: str | None = None,
    names: Path_ | None = None,
) -> Candidate:
    """A port's activations; a function needs the model that it is to match.

    Raises:
        VerificationError: something that holds no activations, or those of other cases.
    """
    scheme = None if names is None else os.fspath(names)
    if isinstance(candidate, Candidate):
        _check_cases(candidate.name, candidate.cases, cases)
        return candidate if dtype is None else replace(candidate, dtype=as_dtype(dtype))
    if isinstance(candidate, str | os.PathLike):
        return read_candidate(Path(candidate), cases, names=scheme, dtype=dtype)
    if isinstance(candidate, Mapping):
        arrays = by_case("the mapping", _flat(candidate, cases), [case.name for case in cases])
        found = gathered("the mapping", arrays, cases, scheme, stated=dtype)
        return Candidate("candidate", found.cases, as_dtype(found.dtype), found.notes)
    if callable(candidate) and model is not None:
        from .adapters import function

        return function.candidate(model, cases, candidate, dtype or "float32", names=scheme)
    or_a_function = "" if model is None else " or a function"
    raise VerificationError(
        f"candidate: expected a file, a mapping of arrays, a Candidate{or_a_function}, found "
        f"{type(candidate).__name__}"
    )


def _check_cases(where: str, given: Iterable[str], cases: Sequence[Case]) -> None:
    known = [*(case.name for case in cases), RAW]
    for name in given:
        if name not in known:
            raise VerificationError(
                f"{where} gives a case {shown(name)}; the inputs have {', '.join(known)}"
            )


def _flat(given: Mapping[str, Any], cases: Sequence[Case]) -> dict[str, Stored]:
    """A mapping's arrays as "case/name"."""
    nested = {str(case): arrays for case, arrays in given.items() if isinstance(arrays, Mapping)}
    _check_cases("the mapping", nested, cases)
    flat = {str(key): array for key, array in given.items() if not isinstance(array, Mapping)}
    flat |= {f"{case}/{n}": array for case, arrays in nested.items() for n, array in arrays.items()}
    return {key: _stored(key, array) for key, array in flat.items()}


def _stored(where: str, value: Any) -> Stored:
    """An array, or a tensor of another library."""
    if type(value).__module__.partition(".")[0] == "torch":
        from .adapters.torch_modules import to_numpy

        value = to_numpy(value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors on a device
        raise VerificationError(f"the mapping's {shown(where)} is no array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise VerificationError(
            f"the mapping's {shown(where)} holds {array.dtype}, expected an array of numbers"
        )
    return stored(array)


# ---------------------------------------------------------------------------- a part of it


def only(port: Candidate, taps: str | Iterable[str]) -> Candidate:
    """The activations whose names match one of some glob patterns.

    Raises:
        VerificationError: a pattern that matches nothing.
    """
    patterns = [taps] if isinstance(taps, str) else list(taps)
    given = {name for case in port.cases for name in port.names(case)}
    for pattern in patterns or [""]:
        if not any(fnmatchcase(name, pattern) for name in given):
            raise VerificationError(
                f"{port.name} gives nothing that matches {pattern!r}; it gives {_listed(given)}"
            )
    return port.some(lambda _, name: any(fnmatchcase(name, p) for p in patterns))


def _listed(names: Iterable[str]) -> str:
    found = sorted(set(names))
    more = f", … ({len(found)} names)" if len(found) > _SHOWN else ""
    return ", ".join(map(shown, found[:_SHOWN])) + more if found else "nothing"
