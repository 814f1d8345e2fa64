"""Vectors whose lanes hold the bits of something else: two bfloat16, or integers.

Such a vector is only loaded, stored, or given to the functions here, in LLVM's language again.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .vectors import bits_of, call, in_all_lanes, in_parts, joined, numbers_of, splat

__all__ = [
    *("make_pair", "make_store_bfloats", "make_widen", "store_bfloat", "store_bytes"),
    *("four_bytes", "from_integers", "two_halves"),
]

_I8, _I16, _I32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _rounded(b: Any, vector: Any) -> Any:
    """float32 to bfloat16, in the upper halves of int32 lanes whose lower ones mean nothing.

    To the nearest, ties to even; NaN stays NaN.
    """
    bits = bits_of(b, vector)
    last = b.and_(b.lshr(bits, in_all_lanes(bits, 16)), in_all_lanes(bits, 1))
    nearest = b.add(bits, b.add(last, in_all_lanes(bits, 0x7FFF)))
    quiet = b.or_(bits, in_all_lanes(bits, 1 << 22))
    return b.select(b.fcmp_unordered("uno", vector, vector), quiet, nearest)


def _upper(b: Any, bits: Any) -> Any:
    """The upper halves of int32 lanes."""
    return b.trunc(b.lshr(bits, in_all_lanes(bits, 16)), ir.VectorType(_I16, bits.type.count))


def _integers(b: Any, vector: Any) -> Any:
    """Numbers between ±2^22 rounded to int32: adding 1.5 · 2^23 leaves them in the lowest bits."""
    magic = 12582912.0
    shifted = b.fadd(vector, ir.Constant(vector.type, [magic] * vector.type.count))
    bits = bits_of(b, shifted)
    return b.sub(bits, in_all_lanes(bits, 0x4B400000))


def _packed(b: Any, vectors: Any, width: int) -> Any:
    """The lowest `width` bits of each vector's lanes, side by side in words."""
    word = None
    for i, vector in enumerate(vectors):
        bits = _integers(b, vector)
        bits = b.and_(bits, in_all_lanes(bits, (1 << width) - 1))
        bits = b.shl(bits, in_all_lanes(bits, width * i)) if i else bits
        word = bits if word is None else b.or_(word, bits)
    return word


def _narrowed(b: Any, low: Any, high: Any) -> Any:
    """VCVTNE2PS2BF16: two vectors of 16 numbers as one of 32 bfloat16."""
    halves = ir.VectorType(_I16, 32)
    return call(b, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", high, low, returns=halves)


def make_pair(*, native: bool) -> Any:
    """`pair(even, odd)`: words of two bfloat16, the even channel in the lower half.

    `native`: with AVX512-BF16, which takes numbers too small for a full exponent as 0.
    """

    def spelled_out(b, even, odd):
        low, high = _rounded(b, even), _rounded(b, odd)
        low = b.lshr(low, in_all_lanes(low, 16))
        high = b.and_(high, in_all_lanes(high, -65536))
        return b.or_(low, high)

    def instruction(b, even, odd):
        zipped = ir.Constant(ir.VectorType(_I32, 32), [i // 2 + 16 * (i % 2) for i in range(32)])
        undefined = ir.Constant(ir.VectorType(_I16, 32), ir.Undefined)
        words = []
        for low, high in zip(in_parts(b, even, 16), in_parts(b, odd, 16), strict=True):
            halves = b.shuffle_vector(_narrowed(b, low, high), undefined, zipped)
            words.append(b.bitcast(halves, ir.VectorType(_I32, 16)))
        return joined(b, words)

    @intrinsic
    def pair(typingctx, even, odd):
        def codegen(context, builder, signature, arguments):
            words = instruction if native else spelled_out
            return numbers_of(builder, words(builder, *arguments))

        return even(even, odd), codegen

    return pair


@intrinsic
def two_halves(typingctx, a, b):
    """Words of two int16, rounded from numbers of at most 255."""

    def codegen(context, builder, signature, arguments):
        return numbers_of(builder, _packed(builder, arguments, 16))

    return a(a, b), codegen


@intrinsic
def four_bytes(typingctx, a, b, c, d):
    """Words of four uint8, rounded from numbers of at most 255."""

    def codegen(context, builder, signature, arguments):
        return numbers_of(builder, _packed(builder, arguments, 8))

    return a(a, b, c, d), codegen


@intrinsic
def from_integers(typingctx, vector):
    """Lanes that hold int32, as numbers."""

    def codegen(context, builder, signature, arguments):
        return builder.sitofp(bits_of(builder, arguments[0]), arguments[0].type)

    return vector(vector), codegen


def make_store_bfloats(*, native: bool) -> Any:
    """`store_bfloats(address, vector)`: half as many bytes as `store`; `native` as in make_pair."""

    @intrinsic
    def store_bfloats(typingctx, address, vector):
        def codegen(context, builder, signature, arguments):
            address, value = arguments
            if native and vector.lanes > 1:
                halves = _narrowed(builder, *in_parts(builder, value, 16))
            else:
                halves = _upper(builder, _rounded(builder, value))
            builder.store(halves, builder.inttoptr(address, halves.type.as_pointer()), align=2)
            return context.get_dummy_value()

        return types.void(types.int64, vector), codegen

    return store_bfloats


@intrinsic
def store_bfloat(typingctx, address, number):
    """Write one number as bfloat16."""

    def codegen(context, builder, signature, arguments):
        half = _upper(builder, _rounded(builder, splat(builder, arguments[1], 1)))
        builder.store(half, builder.inttoptr(arguments[0], half.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


@intrinsic
def store_bytes(typingctx, address, vector):
    """Write a vector's lanes, numbers of at most 127, rounded to int8; returns their sum."""

    def codegen(context, builder, signature, arguments):
        integers = _integers(builder, arguments[1])
        lanes = integers.type.count
        bytes_ = builder.trunc(integers, ir.VectorType(_I8, lanes))
        place = builder.inttoptr(arguments[0], bytes_.type.as_pointer())
        builder.store(bytes_, place, align=1)
        name = f"llvm.vector.reduce.add.v{lanes}i32"
        total = call(builder, name, integers, returns=_I32)
        return builder.sext(total, ir.IntType(64))

    return types.int64(types.int64, vector), codegen


def make_widen(kind: str, lanes: int) -> Any:
    """`widen(source, target)`: so many bfloat16 as float32, or int8 as int16; both addresses."""

    @intrinsic
    def widen(typingctx, source, target):
        def codegen(context, builder, signature, arguments):
            narrow, wide = (_I16, _I32) if kind == "bfloat16" else (_I8, _I16)
            narrow, wide = (ir.VectorType(element, lanes) for element in (narrow, wide))
            source, target = (
                builder.inttoptr(address, vector.as_pointer())
                for address, vector in zip(arguments, (narrow, wide), strict=True)
            )
            values = builder.load(source, align=1)
            if kind == "bfloat16":
                values = builder.zext(values, wide)
                values = builder.shl(values, in_all_lanes(values, 16))
            else:
                values = builder.sext(values, wide)
            builder.store(values, target, align=2)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return widen
