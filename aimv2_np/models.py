"""The three models on tensors (on images and texts: pipelines.py): two encoders, and LiT."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from . import layers
from .backend import NUMPY, Backend, in_scope
from .checks import check_pixels, check_some, check_tokens
from .config import LiTConfig, TextConfig, VisionConfig
from .grids import Positions
from .ops import Array
from .outputs import EncoderOutput, HostArray, LiTOutput, to_host
from .trace import NO_TAP, Recorder, Tap, activation_names
from .weights.tree import LiTParams, TextParams, VisionParams

Config = TypeVar("Config", bound=VisionConfig | TextConfig)
Params = TypeVar("Params", bound=VisionParams | TextParams)


class Encoder(Generic[Config, Params]):
    """What both encoders share."""

    forward: Callable[..., tuple[Array, Array | None]]  # features after the final norm, pooled

    def __init__(
        self, config: Config, params: Params, backend: Backend = NUMPY, dtype: str = "float32"
    ) -> None:
        self.config, self.params, self.backend, self.dtype = config, params, backend, dtype

    def transformer(self, x: Array, tap: Tap, **sees: Any) -> Array:
        """All blocks: in the backend's own form, or composed where a tap must see inside."""
        be, c = self.backend, self.config
        run = be.transformer if tap is NO_TAP else partial(layers.transformer, tap=tap)
        return run(be, x, self.params.blocks, c.num_attention_heads, c.rms_norm_eps, **sees)

    def run(
        self, *inputs: Any, hidden_states: bool = False, attentions: bool = False
    ) -> EncoderOutput:
        """`forward` as an EncoderOutput of the backend's arrays, with what is to be kept."""
        patterns = ["*.embed", "*.resid_post"] * hidden_states + ["*.attn.pattern"] * attentions
        if not patterns:
            return EncoderOutput(*self.forward(*inputs))
        recorder = Recorder(activation_names(self.config), patterns)
        return EncoderOutput.kept(*self.forward(*inputs, tap=recorder.tap()), recorder.arrays)


class VisionEncoder(Encoder[VisionConfig, VisionParams]):
    """AIMv2's vision encoder: patch embedding, positions, blocks, final norm, perhaps a head."""

    @in_scope
    def forward(
        self, pixel_values: ArrayLike, interpolate: bool = False, *, tap: Tap = NO_TAP
    ) -> tuple[Array, Array | None]:
        """Pixels (B, C, Y, X) to patch features (B, N, D) and, with a head, (B, D)."""
        x = self.transformer(self.embed(pixel_values, interpolate, tap), tap.scope("vision."))
        return self.finish(x, tap.scope("vision."))

    @in_scope
    def packed(self, images: Sequence[Array]) -> list[tuple[Array, Array | None]]:
        """`forward` of each image, (C, Y, X) and of any size, with one run through the blocks.

        An image's numbers are those it has alone, to the last bit: all else is done one by one.
        """
        each = [self.embed(image[None]) for image in images]
        lengths = [x.shape[1] for x in each]
        x = self.transformer(self.backend.concatenate(each, axis=1), NO_TAP, lengths=lengths)
        return [self.finish(one) for one in layers.sequences(x, lengths)]

    def embed(self, pixel_values: ArrayLike, interpolate: bool = False, tap: Tap = NO_TAP) -> Array:
        """Pixels (B, C, Y, X) to what enters the blocks, (B, N, D)."""
        be, c, p = self.backend, self.config, self.params
        given = check_pixels(pixel_values, c, self.dtype, be, interpolate=interpolate)
        pixels = be.asarray(tap("pixel_values", given), self.dtype)
        tap = tap.scope("vision.")
        x = tap("patch_embed", be.patch_embed(pixels, p.patch_weight, p.patch_bias))  # (B, N, D)
        x = tap("patch_norm", be.rms_norm(x, p.patch_norm, c.rms_norm_eps))
        return tap("embed", x + tap("pos_embed", self.positions(*pixels.shape[2:])))

    def finish(self, x: Array, tap: Tap = NO_TAP) -> tuple[Array, Array | None]:
        """What leaves the blocks, (B, N, D), to features (B, N, D) and, with a head, (B, D)."""
        be, c, p = self.backend, self.config, self.params
        x = tap("norm", be.rms_norm(x, p.post_trunk_norm, c.rms_norm_eps))
        if p.head is None:
            return x, None
        pool = be.attention_pool if tap is NO_TAP else layers.attention_pool
        return x, pool(be, x, p.head, c.num_attention_heads, tap=tap)

    def positions(self, height: int, width: int) -> Array:
        """The position embedding for images of a size in pixels, (N, D)."""
        table, c = self.params.pos_embed, self.config
        rows, columns = height // c.patch_size, width // c.patch_size
        if table is not None and rows == columns == c.grid_size:
            return table
        return self.backend.asarray(self.grids(rows, columns), self.dtype)

    @cached_property
    def grids(self) -> Positions:
        """The position embedding for a grid, on the host."""
        return Positions(self.params.pos_embed, self.config.hidden_size, self.backend, self.dtype)

    def __call__(
        self, pixel_values: ArrayLike, *, output_hidden_states: bool = False,
        output_attentions: bool = False, interpolate_positions: bool = False, as_numpy: bool = True,
    ) -> EncoderOutput:  # fmt: skip
        """Encode preprocessed images (B, C, Y, X), of NumPy or on the backend's device (DLPack).

        `interpolate_positions=True` resamples learned positions to the images' grid
        (`ops.resample_positions`); without it an image of another size is an ImageError.
        `as_numpy=False` returns the backend's own arrays, which stay on its device.
        """
        keep = {"hidden_states": output_hidden_states, "attentions": output_attentions}
        out = self.run(pixel_values, interpolate_positions, **keep)
        return to_host(out, self.backend) if as_numpy else out


class TextEncoder(Encoder[TextConfig, TextParams]):
    """AIMv2's text encoder: token and position embedding, causal blocks, final norm.

    Always causal, whatever mask is passed. A text's feature is that of its first end-of-text
    token; padding repeats that token, so the last one would be wrong.
    """

    @in_scope
    def forward(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None, *, tap: Tap = NO_TAP
    ) -> tuple[Array, Array]:
        """Token ids (B, T) to token features (B, T, D) and text features (B, D)."""
        x, key_mask, end = self.embed(input_ids, attention_mask, tap)
        x = self.transformer(x, tap.scope("text."), causal=True, key_mask=key_mask)
        return self.finish(x, end, tap.scope("text."))

    def embed(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None, tap: Tap = NO_TAP
    ) -> tuple[Array, HostArray | None, HostArray]:
        """What enters the blocks (B, T, D), the keys that are seen (B, T), each text's end (B,)."""
        ids, key_mask, end = check_tokens(input_ids, attention_mask, self.config, self.backend)
        ids, tap = tap("input_ids", ids), tap.scope("text.")
        x = tap("token_embed", self.backend.embed_tokens(ids, self.params.text_embedding))
        x = tap("embed", x + tap("pos_embed", self.params.positional_embedding[: ids.shape[1]]))
        return x, key_mask, end

    def finish(self, x: Array, end: HostArray, tap: Tap = NO_TAP) -> tuple[Array, Array]:
        """What leaves the blocks to token features (B, T, D) and those at each end (B, D)."""
        be, c, p = self.backend, self.config, self.params
        x = tap("norm", be.rms_norm(x, p.post_trunk_norm, c.rms_norm_eps))
        return x, tap("pooled", x[np.arange(len(end)), end])

    def __call__(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None, *,
        output_hidden_states: bool = False, output_attentions: bool = False, as_numpy: bool = True,
    ) -> EncoderOutput:  # fmt: skip
        """Encode token ids (B, T); `attention_mask` (B, T) is 0 where a text is padded."""
        keep = {"hidden_states": output_hidden_states, "attentions": output_attentions}
        out = self.run(input_ids, attention_mask, **keep)
        return to_host(out, self.backend) if as_numpy else out


class LiT:
    """An image-text model: both encoders, and their projections into one space."""

    def __init__(
        self, config: LiTConfig, params: LiTParams, backend: Backend = NUMPY, dtype: str = "float32"
    ) -> None:
        self.config, self.params, self.backend, self.dtype = config, params, backend, dtype
        self.vision = VisionEncoder(config.vision, params.vision, backend, dtype)
        self.text = TextEncoder(config.text, params.text, backend, dtype)

    @cached_property
    def logit_scale(self) -> HostArray:
        """exp(clamp(log_logit_scale, 0, ln max)): the inverse temperature of the softmax, ()."""
        log_scale = self.backend.to_numpy(self.params.log_logit_scale)
        return np.asarray(np.exp(np.clip(log_scale, 0, math.log(self.config.max_logit_scale))))

    @in_scope
    def join(self, image: Array | None, text: Array | None, tap: Tap = NO_TAP) -> dict[str, Array]:
        """Pooled features (B, D) and (K, D) to embeddings and, given both, logits each way."""
        be, p, out = self.backend, self.params, {}
        towers = ("image", image, p.image_projector), ("text", text, p.text_projector)
        for tower, pooled, projector in towers:
            if pooled is not None:
                features = tap(f"{tower}_features", be.linear(pooled, projector))
                out[f"{tower}_embeds"] = tap(f"{tower}_embeds", be.l2_normalize(features))
        if image is not None and text is not None:
            scale = be.asarray(tap("logit_scale", self.logit_scale), self.dtype)
            logits = scale * be.linear(out["image_embeds"], out["text_embeds"])  # (B, K)
            logits = out["logits_per_image"] = tap("logits_per_image", logits)
            out["logits_per_text"] = tap("logits_per_text", logits.T)
        return out

    def __call__(
        self, pixel_values: ArrayLike | None = None, input_ids: ArrayLike | None = None,
        attention_mask: ArrayLike | None = None, *, output_hidden_states: bool = False,
        output_attentions: bool = False, interpolate_positions: bool = False, as_numpy: bool = True,
    ) -> LiTOutput:  # fmt: skip
        """Images (B, C, Y, X), texts (K, T), or both, to embeddings and logits."""
        check_some(pixel_values, input_ids, attention_mask)
        keep = {"hidden_states": output_hidden_states, "attentions": output_attentions}
        image = text = None
        if pixel_values is not None:
            image = self.vision.run(pixel_values, interpolate_positions, **keep)
        if input_ids is not None:
            text = self.text.run(input_ids, attention_mask, **keep)
        joined = self.join(image and image.pooler_output, text and text.pooler_output)
        out = LiTOutput(**joined, vision_model_output=image, text_model_output=text)
        return to_host(out, self.backend) if as_numpy else out

    def image_features(
        self, pixel_values: ArrayLike, *, interpolate_positions: bool = False
    ) -> HostArray:
        """Projected, not normalised (transformers: get_image_features), (B, projection width)."""
        pooled = self.vision.forward(pixel_values, interpolate_positions)[1]
        features = self.backend.linear(pooled, self.params.image_projector)
        return np.asarray(self.backend.to_numpy(features))

    def text_features(
        self, input_ids: ArrayLike, attention_mask: ArrayLike | None = None
    ) -> HostArray:
        """Projected, not normalised (transformers: get_text_features), (K, projection width)."""
        pooled = self.text.forward(input_ids, attention_mask)[1]
        features = self.backend.linear(pooled, self.params.text_projector)
        return np.asarray(self.backend.to_numpy(features))
