"""A vector of float32 numbers as a type of Numba's, one lane per token of a panel.

LLVM does not make vectors of loops as short as a panel: it unrolls them into scalars first. So the
kernels say what they mean: `load` a row of tokens, compute with `+ - * /`, `store` it. Here is what
these words become in LLVM's language. A vector longer than the processor's is split by LLVM.

A lane may also hold the 32 bits of something else: two bfloat16, integers. Such a vector is only
loaded, stored, or given to the functions under "words".
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    *("make_load", "make_pair", "make_splat", "make_store_bfloats", "make_times_power"),
    *("make_widen", "splat", "store", "store_bfloat"),
    *("at_least", "at_most", "root"),
    *("four_bytes", "from_integers", "store_bytes", "two_halves"),
]

_I8, _I16, _I32, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
_FUSE = ("contract",)  # a product and a sum may become one instruction, as in ops' BLAS


class Vector(types.Type):
    """So many float32 lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"vector{lanes}")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_F32, vector.lanes))


def splat(builder: Any, scalar: Any, lanes: int) -> Any:
    """LLVM code that puts a scalar into every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


# ---------------------------------------------------------------------------- memory


def make_load(lanes: int) -> Any:
    """`load(address)`: a row of a panel."""

    @intrinsic
    def load(typingctx, address):
        def codegen(context, builder, signature, arguments):
            row = ir.VectorType(_F32, lanes).as_pointer()
            return builder.load(builder.inttoptr(arguments[0], row), align=4)

        return Vector(lanes)(types.int64), codegen

    return load


def make_splat(lanes: int) -> Any:
    """`splat(number)`: the same float32 in every lane."""

    @intrinsic
    def in_all(typingctx, number):
        def codegen(context, builder, signature, arguments):
            return splat(builder, arguments[0], lanes)

        return Vector(lanes)(types.float32), codegen

    return in_all


@intrinsic
def store(typingctx, address, vector):
    """Write a row of a panel; of words, too."""
    if not isinstance(vector, Vector):
        return None

    def codegen(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        builder.store(arguments[1], place, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, vector), codegen


# ---------------------------------------------------------------------------- arithmetic


def _arithmetic(operation: Any, instruction: str) -> None:
    """An operator between two vectors, and between a vector and a number."""

    @intrinsic
    def both(typingctx, a, b):
        def codegen(context, builder, signature, arguments):
            wide = [
                splat(builder, value, (a if isinstance(a, Vector) else b).lanes)
                if value.type == _F32
                else value
                for value in arguments
            ]
            return getattr(builder, instruction)(*wide, flags=_FUSE)

        result = a if isinstance(a, Vector) else b
        return result(a, b), codegen

    @overload(operation)
    def choose(a, b):
        kinds = [isinstance(x, Vector) for x in (a, b)]
        if not any(kinds) or not all(x == types.float32 or isinstance(x, Vector) for x in (a, b)):
            return None
        return lambda a, b: both(a, b)


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operation, _instruction)


def _selection(comparison: str) -> Any:
    """`b` in the lanes where `a` compares so with it, else `a`: NaN in `a` stays."""

    @intrinsic
    def select(typingctx, a, b):
        def codegen(context, builder, signature, arguments):
            a_value, b_value = arguments
            if b_value.type == _F32:
                b_value = splat(builder, b_value, a.lanes)
            chosen = builder.fcmp_ordered(comparison, a_value, b_value)
            return builder.select(chosen, b_value, a_value)

        return a(a, b), codegen

    return select


at_least = _selection("<")
at_most = _selection(">")


@intrinsic
def root(typingctx, vector):
    """The square root of every lane."""

    def codegen(context, builder, signature, arguments):
        kind = arguments[0].type
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind]), f"llvm.sqrt.v{vector.lanes}f32"
        )
        return builder.call(function, arguments)

    return vector(vector), codegen


def make_times_power(*, native: bool) -> Any:
    """`times_power(vector, n, shifted)`: `vector · 2^n`; `shifted` is n + 1.5 · 2^23.

    `native`: VSCALEFPS, of 16 lanes. Without it n is taken from the lowest bits of `shifted`, must
    be at least -126, and at -126 the result is 0. It goes in two steps, 2^(n - 1) and 2, so that
    2^128 overflows to infinity as it should.
    """

    def spelled_out(b, vector, n, shifted):
        bits = _bits(b, shifted)
        bits = b.shl(bits, _all(bits, 23))
        half = _numbers(b, b.add(bits, _all(bits, 126 << 23)))
        return b.fmul(b.fadd(vector, vector), half)

    def instruction(b, vector, n, shifted):
        parts = zip(_in_parts(b, vector, 16), _in_parts(b, n, 16), strict=True)
        return _joined(b, [_scaled(b, *part) for part in parts])

    @intrinsic
    def times_power(typingctx, vector, n, shifted):
        def codegen(context, builder, signature, arguments):
            return (instruction if native else spelled_out)(builder, *arguments)

        return vector(vector, n, shifted), codegen

    return times_power


def _scaled(b: Any, vector: Any, n: Any) -> Any:
    """VSCALEFPS, in all 16 lanes, rounding to the nearest."""
    mask, rounding = ir.Constant(ir.IntType(16), -1), ir.Constant(_I32, 4)
    arguments = [vector, n, vector, mask, rounding]
    kind = ir.FunctionType(vector.type, [argument.type for argument in arguments])
    name = "llvm.x86.avx512.mask.scalef.ps.512"
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


# ---------------------------------------------------------------------------- words


def _bits(b: Any, vector: Any) -> Any:
    """The lanes' bits as int32."""
    return b.bitcast(vector, ir.VectorType(_I32, vector.type.count))


def _numbers(b: Any, bits: Any) -> Any:
    return b.bitcast(bits, ir.VectorType(_F32, bits.type.count))


def _all(like: Any, number: int) -> Any:
    """A constant in every lane of a vector of integers."""
    return ir.Constant(like.type, [number] * like.type.count)


def _rounded(b: Any, vector: Any) -> Any:
    """float32 to bfloat16, in the upper halves of int32 lanes whose lower ones mean nothing.

    To the nearest, ties to even; NaN stays NaN.
    """
    bits = _bits(b, vector)
    last = b.and_(b.lshr(bits, _all(bits, 16)), _all(bits, 1))
    nearest = b.add(bits, b.add(last, _all(bits, 0x7FFF)))
    quiet = b.or_(bits, _all(bits, 1 << 22))
    return b.select(b.fcmp_unordered("uno", vector, vector), quiet, nearest)


def _upper(b: Any, bits: Any) -> Any:
    """The upper halves of int32 lanes."""
    return b.trunc(b.lshr(bits, _all(bits, 16)), ir.VectorType(_I16, bits.type.count))


def _integers(b: Any, vector: Any) -> Any:
    """Numbers between ±2^22 rounded to int32: adding 1.5 · 2^23 leaves them in the lowest bits."""
    magic = 12582912.0
    shifted = b.fadd(vector, ir.Constant(vector.type, [magic] * vector.type.count))
    bits = _bits(b, shifted)
    return b.sub(bits, _all(bits, 0x4B400000))


def _packed(b: Any, vectors: Any, width: int) -> Any:
    """The lowest `width` bits of each vector's lanes, side by side in words."""
    word = None
    for i, vector in enumerate(vectors):
        bits = _integers(b, vector)
        bits = b.and_(bits, _all(bits, (1 << width) - 1))
        bits = b.shl(bits, _all(bits, width * i)) if i else bits
        word = bits if word is None else b.or_(word, bits)
    return word


def _in_parts(b: Any, vector: Any, lanes: int) -> list[Any]:
    """A vector cut into shorter ones."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    starts = range(0, vector.type.count, lanes)
    places = (list(range(start, start + lanes)) for start in starts)
    index = ir.VectorType(_I32, lanes)
    return [b.shuffle_vector(vector, undefined, ir.Constant(index, at)) for at in places]


def _joined(b: Any, parts: list[Any]) -> Any:
    """As many vectors one after the other in a longer one; 1 or 2."""
    if len(parts) == 1:
        return parts[0]
    count = 2 * parts[0].type.count
    index = ir.Constant(ir.VectorType(_I32, count), list(range(count)))
    return b.shuffle_vector(*parts, index)


def _narrowed(b: Any, low: Any, high: Any) -> Any:
    """VCVTNE2PS2BF16: two vectors of 16 numbers as one of 32 bfloat16."""
    kind = ir.FunctionType(ir.VectorType(_I16, 32), [low.type] * 2)
    function = cgutils.get_or_insert_function(
        b.module, kind, "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
    )
    return b.call(function, [high, low])


def make_pair(*, native: bool) -> Any:
    """`pair(even, odd)`: words of two bfloat16, the even channel in the lower half.

    `native`: with AVX512-BF16, which takes numbers too small for a full exponent as 0.
    """

    def spelled_out(b, even, odd):
        low, high = _rounded(b, even), _rounded(b, odd)
        low = b.lshr(low, _all(low, 16))
        high = b.and_(high, _all(high, -65536))
        return b.or_(low, high)

    def instruction(b, even, odd):
        zipped = ir.Constant(ir.VectorType(_I32, 32), [i // 2 + 16 * (i % 2) for i in range(32)])
        undefined = ir.Constant(ir.VectorType(_I16, 32), ir.Undefined)
        words = []
        for low, high in zip(_in_parts(b, even, 16), _in_parts(b, odd, 16), strict=True):
            halves = b.shuffle_vector(_narrowed(b, low, high), undefined, zipped)
            words.append(b.bitcast(halves, ir.VectorType(_I32, 16)))
        return _joined(b, words)

    @intrinsic
    def pair(typingctx, even, odd):
        def codegen(context, builder, signature, arguments):
            words = instruction if native else spelled_out
            return _numbers(builder, words(builder, *arguments))

        return even(even, odd), codegen

    return pair


@intrinsic
def two_halves(typingctx, a, b):
    """Words of two int16, rounded from numbers of at most 255."""

    def codegen(context, builder, signature, arguments):
        return _numbers(builder, _packed(builder, arguments, 16))

    return a(a, b), codegen


@intrinsic
def four_bytes(typingctx, a, b, c, d):
    """Words of four uint8, rounded from numbers of at most 255."""

    def codegen(context, builder, signature, arguments):
        return _numbers(builder, _packed(builder, arguments, 8))

    return a(a, b, c, d), codegen


@intrinsic
def from_integers(typingctx, vector):
    """Lanes that hold int32, as numbers."""

    def codegen(context, builder, signature, arguments):
        return builder.sitofp(_bits(builder, arguments[0]), arguments[0].type)

    return vector(vector), codegen


def make_store_bfloats(*, native: bool) -> Any:
    """`store_bfloats(address, vector)`: half as many bytes as `store`; `native` as in make_pair."""

    @intrinsic
    def store_bfloats(typingctx, address, vector):
        def codegen(context, builder, signature, arguments):
            address, value = arguments
            if native:
                halves = _narrowed(builder, *_in_parts(builder, value, 16))
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
        kind = ir.FunctionType(_I32, [integers.type])
        name = f"llvm.vector.reduce.add.v{lanes}i32"
        total = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [integers])
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
                values = builder.shl(values, _all(values, 16))
            else:
                values = builder.sext(values, wide)
            builder.store(values, target, align=2)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return widen
