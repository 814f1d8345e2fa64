"""What the verifier says of raw images and texts that a port prepared, for a model of any size."""

from __future__ import annotations

from functools import cache
from typing import Any

import golden_cases

from aimv2_np.images import ImageProcessor
from aimv2_np.verify import Candidate, Case, Report, reference
from aimv2_np.verify.inputs import Inputs, make_inputs
from aimv2_np.verify.locate import CaseResult, TapResult
from aimv2_np.verify.preprocess import compare_raw


@cache
def pipeline(size: int | str | None = "emoji-lit") -> tuple[Any, Inputs]:
    """emoji-lit, or a vision model with the preprocessing for a size, and its inputs."""
    if size == "emoji-lit":
        model = reference("emoji-lit")
    else:
        kind = "vision-native" if size is None else "vision-absolute"
        model = reference(golden_cases.GOLDEN / kind / "transformers")
        model.processor = ImageProcessor.for_size(size)
    return model, make_inputs(model)


def compared(size: Any, given: dict[str, Any], dtype: str = "float32") -> Report:
    model, inputs = pipeline(size)
    taps, findings = compare_raw(model, inputs, Candidate("port", {"raw": given}, dtype))
    result = CaseResult(Case("raw"), taps)
    return Report(model.name, "port", dtype, [result], findings)


def taps(report: Report) -> list[TapResult]:
    return report.results[0].taps
