"""What Numba cannot say: the micro-kernel, and counters that threads share.

The micro-kernel is written as LLVM code for one tile shape, so that every sum is a register of its
own. It is the same loop for every instruction set and number format; only the shape differs, and
the instruction that adds a word's products.

    C (rows × panel)  +=  A (rows × K)  ·  B (K × panel)

    for k:                         B[k]:  ░░░░░░░░ ░░░░░░░░   `vectors` loads: tokens
        for row in rows:      A[row, k]:  ▓                   one word, sent to all lanes
            C[row] += A · B       C[row]: ████████ ████████   stay in registers

A step of K is a word of 32 bits: one float32, two bfloat16, two int16 or four int8 channels. Tokens
lie in the lanes: A broadcasts, B streams. A's strides are constants, because its three users know
theirs: packed weights, keys and values.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import call, splat

__all__ = ["DOTS", "Dot", "fetch_add", "give_way", "make_microkernel", "read_shared"]

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTE = ir.IntType(8).as_pointer()


def _constant(number: int) -> ir.Constant:
    return ir.Constant(_I64, number)


# ---------------------------------------------------------------------------- a step of K


@dataclass(frozen=True)
class Dot:
    """How the products of two words are added to a sum."""

    channels: int  # in a word
    sum: Any  # LLVM's type of a sum
    add: Callable[[ir.IRBuilder, Any, Any, Any], Any]  # builder, weights, tokens, sums -> sums
    unroll: int = 4  # steps in the loop's body; LLVM reorders sums of integers over several of them


def _as(b: ir.IRBuilder, words: Any, element: Any) -> Any:
    """The same bits as a vector of as many other elements."""
    return b.bitcast(words, ir.VectorType(element, words.type.count))


def _number(b: ir.IRBuilder, weights: Any, tokens: Any, sums: Any) -> Any:
    """float32: one product, one rounding."""
    factors = (_as(b, x, _F32) for x in (weights, tokens))
    return call(b, f"llvm.fma.v{sums.type.count}f32", *factors, sums)


def _shifted(b: ir.IRBuilder, words: Any, left: int, right: int, signed: bool = True) -> Any:
    """A part of each word as int32: shifted to the top, then down."""
    lanes = words.type.count
    left_by, right_by = (ir.Constant(words.type, [n] * lanes) for n in (left, right))
    return (b.ashr if signed else b.lshr)(b.shl(words, left_by), right_by)


def _bfloats(b: ir.IRBuilder, weights: Any, tokens: Any, sums: Any) -> Any:
    """Two bfloat16 channels as float32 numbers: what VDPBF16PS does, for machines without it."""
    for part in ("lower", "upper"):
        pair = []
        for words in (weights, tokens):
            if part == "lower":
                bits = b.shl(words, ir.Constant(words.type, [16] * words.type.count))
            else:
                bits = b.and_(words, ir.Constant(words.type, [-65536] * words.type.count))
            pair.append(_as(b, bits, _F32))
        sums = call(b, f"llvm.fma.v{sums.type.count}f32", *pair, sums)
    return sums


def _bfloats_avx512(b: ir.IRBuilder, weights: Any, tokens: Any, sums: Any) -> Any:
    """VDPBF16PS (LLVM also knows it by its older signature, with words instead of pairs)."""
    return call(b, "llvm.x86.avx512bf16.dpbf16ps.512", sums, weights, tokens)


def _halves(b: ir.IRBuilder, weights: Any, tokens: Any, sums: Any) -> Any:
    """Two int16 channels; LLVM knows this pattern as VPMADDWD, or VPDPWSSD where that exists."""
    lanes = sums.type.count
    wide, half = ir.VectorType(_I32, 2 * lanes), ir.VectorType(ir.IntType(16), 2 * lanes)
    left, right = (b.sext(b.bitcast(x, half), wide) for x in (weights, tokens))
    products = b.mul(left, right)
    undefined = ir.Constant(wide, ir.Undefined)
    even, odd = (
        b.shuffle_vector(
            products,
            undefined,
            ir.Constant(ir.VectorType(_I32, lanes), list(range(first, 2 * lanes, 2))),
        )
        for first in (0, 1)
    )
    return b.add(sums, b.add(even, odd))


def _bytes(b: ir.IRBuilder, weights: Any, tokens: Any, sums: Any) -> Any:
    """Four channels, int8 weights and uint8 tokens: what VPDPBUSD does, for machines without it."""
    for byte in range(4):
        left = 24 - 8 * byte
        factor = _shifted(b, weights, left, 24)
        sums = b.add(sums, b.mul(factor, _shifted(b, tokens, left, 24, signed=False)))
    return sums


def _bytes_avx512(b: ir.IRBuilder, weights: Any, tokens: Any, sums: Any) -> Any:
    """VPDPBUSD: unsigned bytes come first."""
    return call(b, "llvm.x86.avx512.vpdpbusd.512", sums, tokens, weights)


DOTS = {
    "number": Dot(1, _F32, _number),
    "bfloats": Dot(2, _F32, _bfloats),
    "bfloats_avx512": Dot(2, _F32, _bfloats_avx512),
    "halves": Dot(2, _I32, _halves, unroll=1),
    "bytes": Dot(4, _I32, _bytes, unroll=1),
    "bytes_avx512": Dot(4, _I32, _bytes_avx512),
}


def _prefetch(b: ir.IRBuilder, place: Any) -> None:
    """Bring a cache line into L2."""
    to_read, near, data = (ir.Constant(_I32, n) for n in (0, 2, 1))
    call(b, "llvm.prefetch.p0", place, to_read, near, data, returns=ir.VoidType())


# ---------------------------------------------------------------------------- the tile


@dataclass(frozen=True)
class _Tile:
    """What the micro-kernel's loop consists of, for one shape; `b` builds LLVM code."""

    dot: Dot
    rows: int
    vectors: int
    lanes: int
    a_row: int  # bytes from a row of A to the next,
    a_step: int  # from a step of K to the next
    fetched: int  # bytes ahead that a step brings nearer
    rescaled: bool  # sums from memory are multiplied first

    @property
    def words(self) -> Any:
        return ir.VectorType(_I32, self.lanes)

    @property
    def sums(self) -> Any:
        return ir.VectorType(self.dot.sum, self.lanes)

    @property
    def count(self) -> int:
        """Vectors of sums."""
        return self.rows * self.vectors

    def place(self, b: ir.IRBuilder, base: Any, i: int, vector: Any) -> Any:
        """The address of vector i."""
        return b.bitcast(b.gep(base, [_constant(4 * self.lanes * i)]), vector.as_pointer())

    def step(self, b: ir.IRBuilder, at_a: Any, at_b: Any, sums: list[Any]) -> list[Any]:
        """The sums after one step of K."""
        places = [self.place(b, at_b, v, self.words) for v in range(self.vectors)]
        tokens = [b.load(place, align=4) for place in places]
        after = []
        for row in range(self.rows):
            place = b.gep(at_a, [_constant(self.a_row * row)])
            word = b.load(b.bitcast(place, _I32.as_pointer()), align=4)
            weight = splat(b, word, self.lanes)
            for v in range(self.vectors):
                after.append(self.dot.add(b, weight, tokens[v], sums[row * self.vectors + v]))
        return after

    def loop(self, b: ir.IRBuilder, state: list[Any], by: int) -> list[Any]:
        """As many times `by` steps as fit; `state`: steps left; A, B and ahead; the sums."""
        before = b.block
        head, body, done = (b.append_basic_block(name) for name in ("head", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        phis = [b.phi(value.type) for value in state]
        for phi, value in zip(phis, state, strict=True):
            phi.add_incoming(value, before)
        left, at_a, at_b, ahead, *sums = phis
        b.cbranch(b.icmp_signed(">=", left, _constant(by)), body, done)
        b.position_at_end(body)
        for _ in range(by):
            sums = self.step(b, at_a, at_b, sums)
            at_a = b.gep(at_a, [_constant(self.a_step)])
            at_b = b.gep(at_b, [_constant(4 * self.lanes * self.vectors)])
        if self.fetched:
            for line in range(0, self.fetched * by, 64):
                _prefetch(b, b.gep(ahead, [_constant(line)]))
            ahead = b.gep(ahead, [_constant(self.fetched * by)])
        after = [b.sub(left, _constant(by)), at_a, at_b, ahead, *sums]
        for phi, value in zip(phis, after, strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(done)
        return phis

    def whole(self, b: ir.IRBuilder, steps: Any, places: Any, resume: Any) -> None:
        """Sums from zero or from memory, all steps, sums to memory."""
        a, tokens, extra, c = places
        ahead = b.gep(a, [_constant(self.rows * self.a_row)]) if self.rescaled else extra
        before, rows = b.block, [self.place(b, c, i, self.sums) for i in range(self.count)]
        go_on, start = (b.append_basic_block(name) for name in ("go_on", "start"))
        b.cbranch(b.icmp_signed("!=", resume, _constant(0)), go_on, start)
        b.position_at_end(go_on)
        old = [b.load(row, align=4) for row in rows]
        if self.rescaled:
            scales = [self.place(b, extra, v, self.sums) for v in range(self.vectors)]
            factors = [b.load(scale, align=4) for scale in scales] * self.rows
            old = [b.fmul(*pair) for pair in zip(old, factors, strict=True)]
        b.branch(start)
        b.position_at_end(start)
        sums = [b.phi(self.sums) for _ in old]
        for phi, value in zip(sums, old, strict=True):
            phi.add_incoming(ir.Constant(self.sums, None), before)
            phi.add_incoming(value, go_on)
        state = [steps, a, tokens, ahead, *sums]
        for by in sorted({self.dot.unroll, 1}, reverse=True):
            state = self.loop(b, state, by)
        for row, value in zip(rows, state[4:], strict=True):
            b.store(value, row, align=4)


def make_microkernel(
    dot: str,
    rows: int,
    vectors: int,
    lanes: int,
    a_row: int,
    a_step: int,
    fetched: int = 0,
    rescaled: bool = False,
) -> Any:
    """The kernel for one tile; `a_row`, `a_step`: bytes from a row of A, a step of K, to the next.

    Its arguments are addresses: steps (of K, at least 1), a, b, c, whether c holds sums to go on
    from, and one more. B moves on by one panel of words each step; C's rows lie one panel apart.
    The last one is that of what will be read after this tile. Each step brings `fetched` bytes of
    it nearer, because a core alone only does so within a page. If `rescaled`, it is instead that
    of a panel's row which the sums in c are multiplied with first; A's next rows are read next.
    """
    tile = _Tile(DOTS[dot], rows, vectors, lanes, a_row, a_step, fetched, rescaled)

    @intrinsic
    def microkernel(typingctx, steps, a, b, c, resume, extra):
        def codegen(context, builder, signature, arguments):
            steps, a, b, c, resume, extra = arguments
            places = [builder.inttoptr(address, _BYTE) for address in (a, b, extra, c)]
            tile.whole(builder, steps, places, resume)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return microkernel


# ---------------------------------------------------------------------------- memory


@intrinsic
def fetch_add(typingctx, address, amount):
    """Add to the int64 at an address, whole before any other thread; returns what was there."""

    def codegen(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def read_shared(typingctx, address):
    """The int64 at an address, as other threads left it."""

    def codegen(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def give_way(typingctx):
    """Let another thread have this core, if one waits for it."""

    def codegen(context, builder, signature, arguments):
        if os.name == "posix":
            nothing = ir.FunctionType(_I32, [])
            builder.call(cgutils.get_or_insert_function(builder.module, nothing, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen
