"""Number formats: how weights lie in memory, and what a product multiplies.

| dtype    | weights  | a word of tokens         | where                                           |
|----------|----------|--------------------------|-------------------------------------------------|
| float32  | float32  | a float32                | everywhere                                      |
| bfloat16 | bfloat16 | two bfloat16             | AVX512-BF16                                     |
|          |          | a float32                | elsewhere: weights are widened, piece by piece  |
| int8     | int8     | four bytes               | AVX512-VNNI                                     |
|          |          | two int16                | elsewhere: weights are widened, piece by piece  |

Sums, norms, softmax and the residual stream are float32 (the sums of integers are int32). Attention
multiplies pairs of bfloat16 where there is AVX512-BF16, also of an int8 model; else float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .intrinsics import DOTS
from .isa import InstructionSet, features

__all__ = ["DTYPES", "TEXT_DTYPE", "Format", "format_of"]

DTYPES = ("float32", "bfloat16", "int8")
# The text encoder runs once per set of texts, and its rounding shows twice as much: in int8, too,
# 98.1 % of 1,644 drawings got the name that float32 gives them, with bfloat16 99.15 % (emoji-lit).
TEXT_DTYPE = {"float32": "float32", "bfloat16": "bfloat16", "int8": "bfloat16"}


@dataclass(frozen=True)
class Format:
    """One row of the table."""

    dtype: str
    weights: np.dtype[Any]  # uint16: the bits of bfloat16
    dot: str  # in a product, a name in intrinsics.DOTS;
    heads_dot: str  # in attention
    widened: bool  # weights are narrower in memory than in products

    @property
    def channels(self) -> int:
        """In a word, as products read them."""
        return DOTS[self.dot].channels

    @property
    def per(self) -> int:
        """Channels in a word of what norms, attention and SwiGLU write."""
        return 1 if self.scaled else self.channels

    @property
    def per_heads(self) -> int:
        """Channels in a word of queries and keys, keys in one of values and their weights."""
        return DOTS[self.heads_dot].channels

    @property
    def scaled(self) -> bool:
        """Weights and tokens are integers, with a scale per output and per token."""
        return self.dtype == "int8"


def format_of(isa: InstructionSet, dtype: str) -> Format:
    """What an instruction set makes of a dtype.

    Tests run every instruction set everywhere: an instruction that is missing is spelled out.
    """
    if dtype == "float32":
        return Format(dtype, np.dtype(np.float32), "number", "number", widened=False)
    dot, heads_dot = getattr(isa, dtype), isa.bfloat16 or "number"
    if not features().issuperset(isa.needs):
        dot, heads_dot = dot.removesuffix("_avx512"), heads_dot.removesuffix("_avx512")
    if dtype == "bfloat16":
        return Format(dtype, np.dtype(np.uint16), dot or "number", heads_dot, widened=not dot)
    return Format(dtype, np.dtype(np.int8), dot or "halves", heads_dot, widened=not dot)
