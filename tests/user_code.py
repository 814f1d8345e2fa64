"""What a user writes, for `mypy --strict` to judge: the public names are typed. Never run."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import aimv2_np


def embed(path: Path) -> NDArray[np.float32]:
    model = aimv2_np.load("large-patch14-224-lit", local_files_only=True)
    if not isinstance(model, aimv2_np.LiTPipeline):
        raise TypeError("a model with a text encoder is needed")
    width: int = model.config.vision.hidden_size
    probabilities: NDArray[np.float32] = model.classify(path, ["a cat"]).probabilities
    output: aimv2_np.LiTOutput = model(np.zeros((1, 3, width, width)))
    trace: aimv2_np.Trace = model.trace(path, "a cat", names="*.pooled")
    assert output.image_embeds is not None
    return np.concatenate([probabilities, output.image_embeds, trace["vision.pooled"]])


def features(path: Path) -> int:
    model: aimv2_np.VisionEncoder = aimv2_np.VisionEncoder  # type: ignore[assignment]
    positions: int | None = model.config.image_size
    pictures: dict[str, Path] = aimv2_np.samples()
    embed(pictures["cat"])
    return positions or len(aimv2_np.list_models())
