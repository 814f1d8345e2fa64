"""The errors and warnings a user can meet.

Everything this package raises on purpose derives from `AIMv2Error`, so one `except` clause is
enough. A message says what was found, what was expected, where (file, key, argument) and what to
do about it.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

__all__ = [
    "AIMv2Error",
    "AIMv2Warning",
    "BackendUnavailable",
    "CheckpointError",
    "ConfigError",
    "ImageError",
    "TokenizerError",
    "VerificationError",
    "warn",
]


class AIMv2Error(Exception):
    """Base class of every error that this package raises on purpose."""


class CheckpointError(AIMv2Error):
    """A checkpoint cannot be found, fetched, read, or does not hold the parameters it should."""


class ConfigError(AIMv2Error):
    """A configuration or an argument contradicts the weights, another source, or the model."""


class ImageError(AIMv2Error):
    """An image cannot be read, or does not fit the model."""


class TokenizerError(AIMv2Error):
    """A tokenizer cannot be built, or a text or its token ids cannot be used."""


class BackendUnavailable(AIMv2Error):
    """The backend that was asked for does not exist here or cannot run; says why and the remedy."""


class VerificationError(AIMv2Error):
    """Two sets of activations cannot be compared."""


class AIMv2Warning(UserWarning):
    """The result is what was asked for, but probably not what was meant (e.g. a cut text)."""


def first_line(error: BaseException) -> str:
    """What another library's error says first, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def warn(message: str) -> None:
    """Issue an AIMv2Warning that points at the user's line, not into this package."""
    package = str(Path(__file__).parent)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, AIMv2Warning, stacklevel=level)
