"""AIMv2 in readable NumPy: load any checkpoint, run both encoders, classify an image.

    import aimv2_np
    model = aimv2_np.load("large-patch14-224-lit")
    print(model.classify("cat.jpg", ["a cat", "a dog"]))

Names are imported when they are first used, so that importing the package stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "load": "loader",
    "list_models": "loader",
    "available_backends": "backend",
    "Backend": "backend",
    "VisionConfig": "config",
    "TextConfig": "config",
    "LiTConfig": "config",
    "VisionEncoder": "models",
    "TextEncoder": "models",
    "LiT": "models",
    "EncoderOutput": "outputs",
    "LiTOutput": "outputs",
    "Classification": "outputs",
    "ImageProcessor": "images",
    "Tokenizer": "tokenizer",
    "Trace": "trace",
    "activation_names": "trace",
    "AIMv2Error": "errors",
    "AIMv2Warning": "errors",
    "BackendUnavailable": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ImageError": "errors",
    "TokenizerError": "errors",
    "VerificationError": "errors",
}

__all__ = ["__version__", *_WHERE]

if TYPE_CHECKING:
    from .backend import Backend, available_backends
    from .config import LiTConfig, TextConfig, VisionConfig
    from .errors import (
        AIMv2Error,
        AIMv2Warning,
        BackendUnavailable,
        CheckpointError,
        ConfigError,
        ImageError,
        TokenizerError,
        VerificationError,
    )
    from .images import ImageProcessor
    from .loader import list_models, load
    from .models import LiT, TextEncoder, VisionEncoder
    from .outputs import Classification, EncoderOutput, LiTOutput
    from .tokenizer import Tokenizer
    from .trace import Trace, activation_names


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
