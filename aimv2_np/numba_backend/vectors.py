"""A vector of float32 numbers as a type of Numba's, one lane per token of a panel.

LLVM does not make vectors of loops as short as a panel: it unrolls them into scalars first. So the
kernels say what they mean: `load` a row of tokens, compute with `+ - * /`, `store` it. Here is what
these words become in LLVM's language. A vector longer than the processor's is split by LLVM.

A lane may also hold the 32 bits of something else: narrow_vectors.py.
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
    *("at_least", "at_most", "make_load", "make_splat", "make_times_power", "root", "store"),
    *("bits_of", "call", "in_all_lanes", "in_parts", "joined", "numbers_of", "splat"),
]

_I32, _F32 = ir.IntType(32), ir.FloatType()
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
        return call(builder, f"llvm.sqrt.v{vector.lanes}f32", *arguments)

    return vector(vector), codegen


def make_times_power(*, native: bool) -> Any:
    """`times_power(vector, n, shifted)`: `vector · 2^n`; `shifted` is n + 1.5 · 2^23.

    `native`: VSCALEFPS, of 16 lanes. Without it n is taken from the lowest bits of `shifted`, must
    be at least -126, and at -126 the result is 0. It goes in two steps, 2^(n - 1) and 2, so that
    2^128 overflows to infinity as it should.
    """

    def spelled_out(b, vector, n, shifted):
        bits = bits_of(b, shifted)
        bits = b.shl(bits, in_all_lanes(bits, 23))
        half = numbers_of(b, b.add(bits, in_all_lanes(bits, 126 << 23)))
        return b.fmul(b.fadd(vector, vector), half)

    def instruction(b, vector, n, shifted):
        parts = zip(in_parts(b, vector, 16), in_parts(b, n, 16), strict=True)
        return joined(b, [_scaled(b, *part) for part in parts])

    @intrinsic
    def times_power(typingctx, vector, n, shifted):
        def codegen(context, builder, signature, arguments):
            return (instruction if native else spelled_out)(builder, *arguments)

        return vector(vector, n, shifted), codegen

    return times_power


def _scaled(b: Any, vector: Any, n: Any) -> Any:
    """VSCALEFPS, in all 16 lanes, rounding to the nearest."""
    mask, rounding = ir.Constant(ir.IntType(16), -1), ir.Constant(_I32, 4)
    return call(b, "llvm.x86.avx512.mask.scalef.ps.512", vector, n, vector, mask, rounding)


# ---------------------------------------------------------------------------- LLVM code


def call(b: Any, name: str, *arguments: Any, returns: Any = None) -> Any:
    """A call of one of LLVM's own functions."""
    kind = ir.FunctionType(returns or arguments[0].type, [a.type for a in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


def bits_of(b: Any, vector: Any) -> Any:
    """The lanes' bits as int32."""
    return b.bitcast(vector, ir.VectorType(_I32, vector.type.count))


def numbers_of(b: Any, bits: Any) -> Any:
    return b.bitcast(bits, ir.VectorType(_F32, bits.type.count))


def in_all_lanes(like: Any, number: int) -> Any:
    """A constant in every lane of a vector of integers."""
    return ir.Constant(like.type, [number] * like.type.count)


def in_parts(b: Any, vector: Any, lanes: int) -> list[Any]:
    """A vector cut into shorter ones."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    starts = range(0, vector.type.count, lanes)
    places = (list(range(start, start + lanes)) for start in starts)
    index = ir.VectorType(_I32, lanes)
    return [b.shuffle_vector(vector, undefined, ir.Constant(index, at)) for at in places]


def joined(b: Any, parts: list[Any]) -> Any:
    """As many vectors one after the other in a longer one; 1 or 2."""
    if len(parts) == 1:
        return parts[0]
    count = 2 * parts[0].type.count
    index = ir.Constant(ir.VectorType(_I32, count), list(range(count)))
    return b.shuffle_vector(*parts, index)
