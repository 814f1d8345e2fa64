"""What a model accepts: the checks at the boundary, after which the layers trust their input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .backend import Backend, host_dtype
from .config import NATIVE_PATCHES, TextConfig, VisionConfig
from .errors import AIMv2Error, ConfigError, ImageError, TokenizerError, warn

_HOST = (1, 3)  # DLPack's kDLCPU and kDLCUDAHost

__all__ = ["check_pixels", "check_some", "check_tokens"]

Array = NDArray[Any]


def _on_device(value: Any) -> bool:
    """Whether an array lies in memory that NumPy does not read, as DLPack tells."""
    where = None if isinstance(value, np.ndarray) else getattr(value, "__dlpack_device__", None)
    return where is not None and where()[0] not in _HOST


def _taken(value: Any, be: Backend, error: type[AIMv2Error]) -> Any:
    """An array of a device as the backend's own, without a copy where it lies there."""
    try:
        return be.from_dlpack(value)
    except AIMv2Error:
        raise
    except Exception as cause:  # another library's, of another kind for each reason
        kind, index = value.__dlpack_device__()
        raise error(
            f"a {type(value).__name__} on device {index} (DLPack kind {int(kind)}) cannot be read "
            f"by the {be.name} backend: {cause}; copy it to the CPU, or load the model there"
        ) from cause


def _fetched(value: Any, be: Backend) -> Any:
    return be.to_numpy(_taken(value, be, TokenizerError)) if _on_device(value) else value


def _as_array(value: Any, error: type[AIMv2Error], expected: str) -> Array:
    """Anything array-like as a NumPy array of its own, so that nobody changes it later."""
    try:
        return np.array(value)
    except (ValueError, TypeError, RuntimeError) as cause:  # ragged lists; tensors with gradients
        raise error(f"expected {expected}, found {type(value).__name__}: {cause}") from cause


def check_some(pixels: Any, ids: Any, mask: Any) -> None:
    """Images, texts, or both; a mask only beside texts.

    Raises:
        ConfigError: neither, or a mask alone.
    """
    if pixels is None and ids is None:
        raise ConfigError("pass pixel_values, input_ids, or both")
    if mask is not None and ids is None:
        raise ConfigError("attention_mask was passed without input_ids")


def check_pixels(
    values: ArrayLike, config: VisionConfig, dtype: str, be: Backend, *, interpolate: bool
) -> Any:
    """Preprocessed images (B, C, Y, X) that fit a model which computes in `dtype`.

    A new array in `host_dtype(dtype)`; or the backend's own, as it is, if they lie on its device:
    such are not searched for NaN, for which the host would have to wait.

    Raises:
        ImageError: not such an array, NaN or infinite, smaller than a patch, or of another size
            than the learned positions while `interpolate` is False.

    Warns:
        AIMv2Warning: a native-resolution model outside the range it was trained on.
    """
    one_size = "pixel_values as one array (B, C, Y, X); images of several sizes run one by one"
    on_device = _on_device(values)
    pixels: Any = (
        _taken(values, be, ImageError) if on_device else _as_array(values, ImageError, one_size)
    )
    if len(pixels.shape) != 4 or 0 in pixels.shape:
        raise ImageError(
            f"pixel_values have the shape {tuple(pixels.shape)}, expected (B, C, Y, X); "
            "model.preprocess(images) makes them"
        )
    if "float" not in str(pixels.dtype):  # bfloat16 is none of NumPy's
        raise ImageError(
            f"pixel_values are {pixels.dtype}, expected normalised floating-point values; "
            "model.preprocess(images) makes them from raw images"
        )
    _check_size(pixels.shape, config, interpolate)
    if on_device:
        return pixels
    held = host_dtype(dtype)
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        pixels = pixels.astype(held, copy=False)
    if not np.isfinite(pixels).all():
        raise ImageError(f"pixel_values hold NaN, infinity, or a number too large for {held}")
    return pixels


def _check_size(shape: tuple[int, ...], config: VisionConfig, interpolate: bool) -> None:
    _, channels, height, width = shape
    if channels != config.num_channels:
        raise ImageError(f"pixel_values have {channels} channels, expected {config.num_channels}")
    patch, size = config.patch_size, config.image_size
    if min(height, width) < patch:
        raise ImageError(f"an image of {height}×{width} pixels is smaller than a patch ({patch})")
    if size is not None and (height, width) != (size, size) and not interpolate:
        raise ImageError(
            f"the images are {height}×{width} pixels, but the positions of this model were "
            f"learned for {size}×{size}: resize them (model.preprocess does), or pass "
            "interpolate_positions=True to resample the position table"
        )
    patches = (height // patch) * (width // patch)
    if config.is_native and not NATIVE_PATCHES[0] <= patches <= NATIVE_PATCHES[1]:
        warn(
            f"an image of {height}×{width} pixels gives {patches} patches; the native checkpoint "
            f"was trained on {NATIVE_PATCHES[0]} to {NATIVE_PATCHES[1]}"
        )


def check_tokens(
    ids: ArrayLike, mask: ArrayLike | None, config: TextConfig, be: Backend
) -> tuple[Array, Array | None, Array]:
    """Token ids (B, T), a boolean mask (B, T) or None, and where each text ends, (B,); all new.

    All on the host; ids and mask that lie on the backend's device are fetched.

    A text longer than the context is cut so that its end token stays.

    Raises:
        TokenizerError: no such array, ids outside the vocabulary, or a text without an end token
            (the original would silently use the feature of token 0).

    Warns:
        AIMv2Warning: a text was cut.
    """
    input_ids = _check_ids(_fetched(ids, be), config)
    is_end = input_ids == config.eos_token_id
    endless = np.flatnonzero(~is_end.any(axis=1))
    if endless.size:
        raise TokenizerError(
            f"text {endless[0] + 1} of {len(input_ids)} has no end-of-text token "
            f"({config.eos_token_id}), whose feature would stand for the text"
        )
    key_mask = None if mask is None else _check_mask(_fetched(mask, be), input_ids.shape)
    end = is_end.argmax(axis=1)  # the first one: padding repeats the same id
    context = config.max_position_embeddings
    if input_ids.shape[1] > context:
        input_ids, end = _cut(input_ids[:, :context], end, config)
        key_mask = None if key_mask is None else key_mask[:, :context]
    if key_mask is not None and not key_mask[np.arange(len(end)), end].all():
        raise TokenizerError("attention_mask hides the end-of-text token of a text")
    return input_ids, key_mask, end


def _check_ids(ids: ArrayLike, config: TextConfig) -> Array:
    one_length = "input_ids as one array (B, T), all texts padded to one length"
    input_ids = _as_array(ids, TokenizerError, one_length)
    if input_ids.ndim != 2 or not input_ids.size:
        raise TokenizerError(
            f"input_ids have the shape {input_ids.shape}, expected (B, T); "
            "model(..., *model.tokenize(texts)) passes ids and mask"
        )
    if not np.issubdtype(input_ids.dtype, np.integer):
        raise TokenizerError(f"input_ids are {input_ids.dtype}, expected integers")
    if input_ids.min() < 0 or input_ids.max() >= config.vocab_size:
        raise TokenizerError(
            f"input_ids range from {input_ids.min()} to {input_ids.max()}, but the vocabulary "
            f"has the ids 0 to {config.vocab_size - 1}"
        )
    return input_ids


def _check_mask(mask: ArrayLike, shape: tuple[int, ...]) -> Array:
    values = _as_array(mask, TokenizerError, f"an attention_mask {shape}")
    if values.shape != shape:
        raise TokenizerError(f"attention_mask is {values.shape}, but input_ids are {shape}")
    if not np.isin(values, (0, 1)).all():
        raise TokenizerError("attention_mask holds other values than 0 (padding) and 1 (text)")
    return values.astype(bool)


def _cut(input_ids: Array, end: Array, config: TextConfig) -> tuple[Array, Array]:
    """End every text that reaches beyond the context on its last position, in place."""
    last = input_ids.shape[1] - 1
    cut = np.flatnonzero(end > last)
    if cut.size:
        warn(
            f"{cut.size} of {len(end)} texts are longer than the context of "
            f"{config.max_position_embeddings} tokens and were cut, the end token kept"
        )
        input_ids[cut, last] = config.eos_token_id
    return input_ids, np.minimum(end, last)
