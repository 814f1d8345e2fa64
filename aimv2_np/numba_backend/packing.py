"""Weights as the micro-kernel reads them, once, at load.

A block holds `rows` outputs, and in it the rows of one word of K lie side by side: (blocks, words,
rows, channels of a word). What is missing in the last block or word is zero. Matrices of int8 have
a scale per output, and the sum of its weights, which a token's least channel is multiplied with.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..weights.stored import widened
from ..weights.tree import BlockParams
from .compiled import kernels_for
from .formats import Format, format_of
from .isa import InstructionSet
from .pool import share, thread_count

__all__ = [
    "PackedBlocks",
    "PackedMatrix",
    "aligned_zeros",
    "mapped_zeros",
    "pack",
    "pack_blocks",
    "packed_shape",
    "padded",
    "products",
    "task_memory",
]

Array = Any  # NumPy's
_WHOLE = 4  # channels are padded to a multiple of this, the most that a word holds


def padded(channels: int) -> int:
    """Channels with the zeros that fill the last word."""
    return -(-channels // _WHOLE) * _WHOLE


def aligned_zeros(*shape: int, dtype: Any = np.float32) -> Array:
    """Zeros that begin at a cache line, so that no vector crosses one."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def mapped_zeros(*shape: int, dtype: Any) -> Array:
    """Zeros in a mapping of their own, for what is as large as the weights: in small pages.

    NumPy would ask for large ones. The system takes those from memory that lay free for long, which
    a virtual machine has often given back to its host: loading a large model took 1.4 s instead of
    0.5. Products are as fast from small pages, since they fetch weights ahead.
    """
    private = {} if os.name == "nt" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    count = int(np.prod(shape))
    memory = mmap.mmap(-1, max(count * np.dtype(dtype).itemsize, 1), **private)
    return np.frombuffer(memory, dtype, count).reshape(shape)


def arena(size: int) -> Callable[..., Array]:
    """Zeros that begin at cache lines, one array after the other out of one mapping."""
    memory, used = mapped_zeros(size, dtype=np.uint8), 0

    def take(*shape: int, dtype: Any) -> Array:
        nonlocal used
        start, used = used, used + room(shape, np.dtype(dtype))
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return memory[start : start + nbytes].view(dtype).reshape(shape)

    return take


def room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of an array in whole cache lines."""
    return -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64


def task_memory(threads: int, size: dict[str, int]) -> tuple[Array, Array]:
    """Each thread's own for kernels.multiply: the sums of a task, and weights made wider."""
    return (
        aligned_zeros(threads, size["STACK"] * size["GROUP"], size["ROWS"], size["PANEL"]),
        aligned_zeros(threads, size["ROWS"] * size["DEPTH"]),
    )


@dataclass(frozen=True)
class PackedMatrix:
    """One or two matrices with the outputs of all of them one after the other."""

    weights: Array  # (blocks, words, rows, channels of a word)
    scales: Array  # (blocks · rows,) float32, or (0,) where weights are numbers
    offsets: Array  # (blocks · rows,) float32: Σ of an output's weights, likewise

    def outputs(self, lanes: slice, count: int, width: int) -> Array:
        """The outputs in some lanes of each block, as float32 (count, width)."""
        blocks, words, rows, channels = self.weights.shape
        some = self.weights[:, :, lanes]
        some = some.transpose(0, 2, 1, 3).reshape(-1, words * channels)[:count, :width]
        if some.dtype == np.uint16:
            return widened(some)
        if some.dtype == np.int8:
            scales = self.scales.reshape(blocks, rows)[:, lanes].reshape(-1, 1)
            return some * scales[:count]
        return np.ascontiguousarray(some)


_Four = tuple[PackedMatrix, ...]  # qkv, proj, fc1 with fc3, fc2


def packed_shape(
    outputs: int, width: int, isa: InstructionSet, form: Format, *, paired: bool = False
) -> tuple[int, int, int, int]:
    """Of the weights of a matrix (outputs, width); of each of two, `paired`."""
    lanes = isa.rows // 2 if paired else isa.rows
    blocks, words = -(-padded(outputs) // lanes), padded(width) // form.channels
    return blocks, words, isa.rows, form.channels


def pack(
    matrices: Sequence[Array],
    isa: InstructionSet,
    dtype: str,
    *,
    paired: bool = False,
    new: Callable[..., Array] = aligned_zeros,
) -> PackedMatrix:
    """Matrices (O, K) one below the other; or two of one shape `paired`: each block holds half of
    its rows of one, then the same of the other. `new` gives the memory.
    """
    form = format_of(isa, dtype)
    lanes = isa.rows // 2 if paired else isa.rows
    count = len(matrices[0]) if paired else sum(len(m) for m in matrices)
    shape = packed_shape(count, matrices[0].shape[1], isa, form, paired=paired)
    packed = new(*shape, dtype=form.weights)
    outputs = (shape[0], isa.rows) if form.scaled else (0, 0)
    scales, sums = np.zeros(outputs, np.float32), np.zeros(outputs, np.int32)
    first, lane, threads = 0, 0, thread_count()
    unit = np.dtype(f"u{form.channels * form.weights.itemsize}")  # a word in memory
    rows = np.zeros((threads, shape[1]), unit)
    words = packed.view(unit).reshape(shape[:3])
    for matrix in matrices:
        matrix = np.ascontiguousarray(matrix, np.float32)
        inverses = np.ones(len(matrix), np.float32)
        if form.scaled:
            inverses = _scale(matrix, scales[:, lane : lane + lanes], first)
        share(
            kernels_for(isa, dtype).pack,
            threads,
            *(matrix.ctypes.data, matrix.shape[1], words, sums, lanes, first, lane, inverses, rows),
        )
        first, lane = (0, lanes) if paired else (first + len(matrix), 0)
    return PackedMatrix(packed, scales.reshape(-1), (scales * sums.astype(np.float32)).reshape(-1))


def _scale(matrix: Array, scales: Array, first: int) -> Array:
    """Put each output's scale, its largest weight over 127, where it belongs; return inverses."""
    largest = np.maximum(matrix.max(axis=1), -matrix.min(axis=1))
    places = first + np.arange(len(matrix))
    scales[places // scales.shape[1], places % scales.shape[1]] = largest / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(largest > 0, np.float32(127) / largest, np.float32(0))


@dataclass(frozen=True, eq=False)
class PackedBlocks(Sequence[BlockParams]):
    """All blocks of one encoder; as a sequence, each one unpacked again when it is asked for.

    The unpacked ones are for traces, which run the composed form.
    """

    norms: Array  # (blocks, 2, D)
    matrices: tuple[_Four, ...]
    hidden: int  # F
    dtype: str
    isa: InstructionSet  # whose tiles the weights are laid out for

    def addresses(self) -> Array:
        """Where the weights lie, (blocks, 4) int64: asked for at each run, since a copy moves."""
        return np.array([[m.weights.ctypes.data for m in four] for four in self.matrices], np.int64)

    @cached_property
    def scales(self) -> tuple[Array, Array]:
        """Scales and offsets of all outputs, (blocks, 4, longest)."""
        longest = max(len(m.scales) for m in self.matrices[0])
        scales = np.zeros((len(self), 4, longest), np.float32)
        offsets = np.zeros((len(self), 4, longest), np.float32)
        for i, four in enumerate(self.matrices):
            for j, matrix in enumerate(four):
                scales[i, j, : len(matrix.scales)] = matrix.scales
                offsets[i, j, : len(matrix.offsets)] = matrix.offsets
        return scales, offsets

    def __len__(self) -> int:
        return len(self.norms)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return tuple(self[j] for j in range(*i.indices(len(self))))
        norm_1, norm_2 = self.norms[i]
        width, hidden = len(norm_1), self.hidden
        qkv, proj, pairs, fc2 = self.matrices[i]
        rows = pairs.weights.shape[2]
        every, first, second = slice(None), slice(rows // 2), slice(rows // 2, None)
        q, k, v = qkv.outputs(every, 3 * width, width).reshape(3, width, width)
        return BlockParams(
            norm_1,
            (q, k, v),
            proj.outputs(every, width, width),
            norm_2,
            fc1=pairs.outputs(first, hidden, width),
            fc3=pairs.outputs(second, hidden, width),
            fc2=fc2.outputs(every, width, hidden),
        )


def products(width: int, hidden: int) -> tuple[tuple[int, int, bool], ...]:
    """Outputs and inputs of a block's qkv, proj, fc1 with fc3, and fc2; whether two are paired."""
    return (
        (3 * width, width, False),
        (width, width, False),
        (hidden, width, True),
        (width, hidden, False),
    )


def pack_blocks(blocks: Sequence[BlockParams], isa: InstructionSet, dtype: str) -> PackedBlocks:
    """Every block's weights packed, one block after the other: never two are in memory unpacked."""
    new = None

    def packed(block: BlockParams) -> tuple[Array, _Four, int]:
        nonlocal new
        new = new or arena(len(blocks) * _block_size(block, isa, dtype))
        four = (
            pack(block.qkv, isa, dtype, new=new),
            pack([block.proj], isa, dtype, new=new),
            pack([block.fc1, block.fc3], isa, dtype, paired=True, new=new),
            pack([block.fc2], isa, dtype, new=new),
        )
        return np.stack([block.norm_1, block.norm_2]), four, len(block.fc1)

    norms, matrices, hidden = zip(*map(packed, blocks), strict=True)
    return PackedBlocks(np.stack(norms), matrices, hidden[0], dtype, isa)


def _block_size(block: BlockParams, isa: InstructionSet, dtype: str) -> int:
    """Bytes of a block's packed weights."""
    form = format_of(isa, dtype)
    return sum(
        room(packed_shape(outputs, inputs, isa, form, paired=paired), form.weights)
        for outputs, inputs, paired in products(len(block.norm_1), len(block.fc1))
    )
