"""Models that take images and texts: the encoders with their image processor and tokenizer.

`aimv2_np.load` returns one of these. They add no mathematics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from . import ops
from .config import NATIVE_PATCHES
from .errors import AIMv2Error, ConfigError, ImageError, TokenizerError
from .image_files import as_list, describe, no_image
from .models import LiT, VisionEncoder
from .outputs import Classification, HostArray
from .tokenizer import Tokenizer, Tokens, as_texts
from .trace import Recorder, Trace, activation_names

if TYPE_CHECKING:
    from .images import ImageProcessor

__all__ = [
    "LiTPipeline", "Pipeline", "VisionPipeline", "computed_nan", "frame", "no_text_encoder",
]  # fmt: skip

PROMPT = "a photo of {}"  # what `classify` puts around a text unless told otherwise
# Patches that run at once, unless one image has more: images together then take no more memory than
# one of the largest size that the native checkpoint was trained on.
PATCH_BATCH = NATIVE_PATCHES[1]
THREADS = min(os.cpu_count() or 1, 8)  # that prepare images for a device
TEXT_BATCH = 64  # prompts that run at once in encode_text, so that memory stays bounded


class ImageMethods:
    """What every model can do with images. `info` says where the model comes from."""

    vision: VisionEncoder
    info: dict[str, Any]
    processor: ImageProcessor

    @property
    def name(self) -> str:
        """What the model was loaded as."""
        return str(self.info["name"])

    def __repr__(self) -> str:
        parameters = f"{self.info['parameters'] / 1e6:.1f} M parameters"
        parts = [parameters, self.vision.dtype, self.vision.backend.name]
        if self.info.get("quirks"):
            parts.append("with the quirks of " + ", ".join(self.info["quirks"]))
        return f"<{self.name}: {', '.join(parts)}>"

    def preprocess(self, images: Any, *, exif: bool = True) -> Any:
        """Images to normalised pixels: (B, 3, Y, X), or a list of (3, Y, X) for a native model.

        `exif=False` ignores the orientation tag, as transformers does.
        """
        pixels = self.processor(images, exif=exif)
        return pixels if self.vision.config.is_native else _stack(pixels)

    def patch_features(self, images: Any, *, exif: bool = True) -> Any:
        """Features after the final norm: (B, N, D), or a list of (N_i, D) for a native model.

        An image's numbers do not depend on its neighbours: they are those it has alone, unless a
        device computes, whose products may round otherwise in a larger batch.
        """
        features = list(self._each(images, exif, lambda x, pooled: x))
        return features if self.vision.config.is_native else np.stack(features)

    def _each(
        self, images: Any, exif: bool, wanted: Callable[[Any, Any], Any]
    ) -> Iterator[HostArray]:
        """What is wanted of each image's features and pooled vector, in batches of bounded size."""
        be = self.vision.backend
        fetch = be.fetch or partial(partial, be.to_numpy)
        crops = self.processor.crops(images, exif=exif, threads=THREADS if be.offloads else 0)
        waiting: list[Any] = []  # what the device may still be computing
        for batch in _batches(crops, self.vision.config.patch_size):
            queued = [fetch(wanted(*outputs)) for outputs in self._outputs(batch)]
            ready, waiting = (waiting, queued) if be.offloads else (queued, [])
            for fetched in ready:
                yield from fetched()
        for fetched in waiting:
            yield from fetched()

    def _outputs(self, crops: list[HostArray]) -> list[tuple[Any, Any]]:
        """`vision.forward` of all at once, or of each, which then has the numbers it has alone."""
        be, values = self.vision.backend, self.processor.values
        if be.offloads and len({crop.shape for crop in crops}) == 1:
            return [self.vision.forward(be.normalize(np.stack(crops), values))]
        return self.vision.packed([be.normalize(crop, values) for crop in crops])


class VisionPipeline(ImageMethods, VisionEncoder):
    """A vision encoder with its image processor."""

    def __init__(self, *model: Any, processor: ImageProcessor, info: dict[str, Any]) -> None:
        super().__init__(*model)
        self.vision, self.processor, self.info = self, processor, info

    def encode_image(
        self, images: Any, *, pool: str | None = None, normalize: bool = True, exif: bool = True
    ) -> HostArray:
        """One vector per image, (B, D): with `pool="mean"` the mean of its patch features.

        Raises:
            ConfigError: no `pool`, for a checkpoint without a pooling head that was trained.
        """
        if pool is None and self.config.use_head:
            vectors = np.stack([*self._each(images, exif, lambda x, pooled: pooled)])
            return ops.l2_normalize(vectors) if normalize else vectors
        if pool != "mean":
            raise ConfigError(
                f"{self.name} has no image embedding of its own: pass pool='mean' for the mean "
                f"of its patch features (found pool={pool!r})"
            )
        each = self._each(images, exif, lambda x, pooled: x)
        vectors = np.stack([features.mean(axis=0) for features in each])
        return ops.l2_normalize(vectors) if normalize else vectors

    def trace(
        self,
        images: Any = None,
        *,
        pixel_values: ArrayLike | None = None,
        names: str | Iterable[str] = "*",
        interpolate_positions: bool = False,
        exif: bool = True,
    ) -> Trace:
        """Every activation whose name matches one of the glob patterns `names`.

        All scores at once are made only if one matches: `names="*.resid_post"` stays small.
        Images of a native model must be of one size.
        """
        recorder = Recorder(activation_names(self.config), names)
        _exactly_one(images=images, pixel_values=pixel_values)
        if images is not None:
            pixel_values = _stack(self.preprocess(images, exif=exif))
        assert pixel_values is not None  # one of the two
        self.forward(pixel_values, interpolate_positions, tap=recorder.tap())
        return recorder.trace(self.info, self.backend)

    def _no_text(self, *_: Any, **__: Any) -> NoReturn:
        raise no_text_encoder(self.name)

    tokenize = encode_text = classify = _no_text


class LiTPipeline(ImageMethods, LiT):
    """An image-text model with its image processor and, if its files are there, its tokenizer."""

    def __init__(
        self,
        *model: Any,
        processor: ImageProcessor,
        tokenizer: Tokenizer | None,
        info: dict[str, Any],
    ) -> None:
        super().__init__(*model)
        self.processor, self.tokenizer, self.info = processor, tokenizer, info

    def tokenize(self, texts: str | Sequence[str]) -> Tokens:
        """Texts to `input_ids` and `attention_mask`, both (K, T), padded to the longest."""
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.info['folder']} has no tokenizer files (tokenizer.json, or vocab.json "
                "and merges.txt); add them, or pass input_ids"
            )
        return self.tokenizer(texts)

    def encode_image(self, images: Any, *, normalize: bool = True, exif: bool = True) -> HostArray:
        """Embeddings of images, (B, projection width), each as it is alone."""
        be, projector = self.backend, self.params.image_projector
        each = self._each(images, exif, lambda x, pooled: be.linear(pooled, projector))
        features = np.stack([*each])
        return ops.l2_normalize(features) if normalize else features

    def encode_text(self, texts: str | Sequence[str], *, normalize: bool = True) -> HostArray:
        """Embeddings of texts, (K, projection width)."""
        tokens = self.tokenize(texts)
        batches = range(0, len(tokens.input_ids), TEXT_BATCH)
        features = np.concatenate(
            [self.text_features(*(part[i : i + TEXT_BATCH] for part in tokens)) for i in batches]
        )
        return ops.l2_normalize(features) if normalize else features

    def classify(
        self,
        images: Any,
        texts: str | Sequence[str],
        *,
        prompt: str = PROMPT,
        exif: bool = True,
    ) -> Classification:
        """Zero-shot classification: how well each text fits each image.

        `prompt` frames every text; "{}" uses them as they are.
        """
        labels, images = tuple(as_texts(texts)), as_list(images)
        text = self.encode_text(frame(labels, prompt))
        image = self.encode_image(images, exif=exif)
        return Classification(labels, self.probabilities(image, text), _names(images))

    def probabilities(self, image_embeds: HostArray, text_embeds: HostArray) -> HostArray:
        """How well each of K texts fits each of B images, (B, K); rows sum to 1.

        Takes what `encode_image` and `encode_text` return, so that texts are encoded only once.
        """
        probabilities: HostArray = ops.softmax(self.logit_scale * (image_embeds @ text_embeds.T))
        if not np.isfinite(probabilities).all():
            raise computed_nan(self.name)
        return probabilities

    def trace(
        self,
        images: Any = None,
        texts: str | Sequence[str] | None = None,
        *,
        pixel_values: ArrayLike | None = None,
        input_ids: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None,
        names: str | Iterable[str] = "*",
        interpolate_positions: bool = False,
        exif: bool = True,
    ) -> Trace:
        """Activations of images, texts, or both, and of what joins them; see VisionPipeline."""
        if images is not None:
            _exactly_one(images=images, pixel_values=pixel_values)
            pixel_values = _stack(self.preprocess(images, exif=exif))
        if texts is not None:
            _exactly_one(texts=texts, input_ids=input_ids, attention_mask=attention_mask)
            input_ids, attention_mask = self.tokenize(texts)
        if pixel_values is None and input_ids is None:
            raise ConfigError("pass images, texts, or both (or pixel_values, input_ids)")
        made = {"images": pixel_values is not None, "texts": input_ids is not None}
        recorder = Recorder(activation_names(self.config, **made), names)
        tap, image, text = recorder.tap(), None, None
        if pixel_values is not None:
            image = self.vision.forward(pixel_values, interpolate_positions, tap=tap)[1]
        if input_ids is not None:
            text = self.text.forward(input_ids, attention_mask, tap=tap)[1]
        self.join(image, text, tap)
        return recorder.trace(self.info, self.backend)


Pipeline: TypeAlias = VisionPipeline | LiTPipeline


def no_text_encoder(name: str) -> ConfigError:
    """The error of a vision-only model that is asked to read text."""
    return ConfigError(
        f"{name} is a vision-only model without a text encoder; large-patch14-224-lit has one"
    )


def computed_nan(name: str) -> AIMv2Error:
    """The error of a model whose outputs are no numbers."""
    return AIMv2Error(f"{name} computed NaN; load(..., check=True) finds NaN in its weights")


def frame(texts: Iterable[str], prompt: str) -> list[str]:
    """Each text where the prompt has its {}."""
    if not isinstance(prompt, str) or "{}" not in prompt:
        raise ConfigError(f"the prompt {prompt!r:.80} has no {{}} where the text belongs")
    return [prompt.replace("{}", text) for text in texts]


def _batches(crops: Iterable[HostArray], patch: int) -> Iterator[list[HostArray]]:
    """Images (Y, X, C) in their order, as many at a time as PATCH_BATCH allows, at least one."""
    batch: list[HostArray] = []
    patches = 0
    for image in crops:
        more = (image.shape[0] // patch) * (image.shape[1] // patch)
        if batch and patches + more > PATCH_BATCH:
            yield batch
            batch, patches = [], 0
        batch.append(image)
        patches += more
    if not batch:
        raise no_image()
    yield batch


def _stack(pixels: Sequence[HostArray]) -> HostArray:
    """Preprocessed images of one size as one batch."""
    sizes = sorted({f"{image.shape[1]}×{image.shape[2]}" for image in pixels})
    if len(sizes) != 1:
        raise ImageError(f"these images cannot run as one batch: their sizes are {sizes}")
    return np.stack(pixels)


def _names(images: list[Any]) -> tuple[str, ...]:
    """What the rows of a classification are called."""
    return tuple(
        describe(source, "" if isinstance(source, str | os.PathLike) else f"image {i}")
        for i, source in enumerate(images, 1)
    )


def _exactly_one(**sources: Any) -> None:
    if sum(value is not None for value in sources.values()) != 1:
        raise ConfigError(f"pass one of {' and '.join(sources)}")
