"""AIMv2 in readable NumPy: load any checkpoint, run both encoders, classify an image.

    import aimv2_np
    model = aimv2_np.load("emoji-lit")  # packaged; for photographs "large-patch14-224-lit"
    print(model.classify(aimv2_np.samples()["cat"], ["cat", "dog", "pizza"]))

Names are imported when they are first used, so that importing the package stays cheap.
"""

from typing import TYPE_CHECKING

from .lazy import lazily

__version__ = "0.1.0"

_WHERE = {
    "load": "loader",
    "list_models": "loader",
    "samples": "hub",
    "available_backends": "backend",
    "Backend": "backend",
    "VisionConfig": "config",
    "TextConfig": "config",
    "LiTConfig": "config",
    "VisionEncoder": "models",
    "TextEncoder": "models",
    "LiT": "models",
    "VisionPipeline": "pipelines",
    "LiTPipeline": "pipelines",
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
    from .backend import Backend as Backend
    from .backend import available_backends as available_backends
    from .config import LiTConfig as LiTConfig
    from .config import TextConfig as TextConfig
    from .config import VisionConfig as VisionConfig
    from .errors import AIMv2Error as AIMv2Error
    from .errors import AIMv2Warning as AIMv2Warning
    from .errors import BackendUnavailable as BackendUnavailable
    from .errors import CheckpointError as CheckpointError
    from .errors import ConfigError as ConfigError
    from .errors import ImageError as ImageError
    from .errors import TokenizerError as TokenizerError
    from .errors import VerificationError as VerificationError
    from .hub import samples as samples
    from .images import ImageProcessor as ImageProcessor
    from .loader import list_models as list_models
    from .loader import load as load
    from .models import LiT as LiT
    from .models import TextEncoder as TextEncoder
    from .models import VisionEncoder as VisionEncoder
    from .outputs import Classification as Classification
    from .outputs import EncoderOutput as EncoderOutput
    from .outputs import LiTOutput as LiTOutput
    from .pipelines import LiTPipeline as LiTPipeline
    from .pipelines import VisionPipeline as VisionPipeline
    from .tokenizer import Tokenizer as Tokenizer
    from .trace import Trace as Trace
    from .trace import activation_names as activation_names

__getattr__, __dir__ = lazily(__name__, _WHERE)
