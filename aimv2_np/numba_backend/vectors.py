"""A vector of float32 numbers as a type of Numba's, one lane per token of a panel.

LLVM does not make vectors of loops as short as a panel: it unrolls them into scalars first. So the
kernels say what they mean: `load` a row of tokens, compute with `+ - * /`, `store` it. Here is what
these words become in LLVM's language. A vector longer than the processor's is split by LLVM.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"
from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = ["make_load", "make_splat"]

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
    """Write a row of a panel."""
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


@intrinsic
def times_power(typingctx, vector, shifted):
    """`vector · 2^n` where `shifted` is n + 1.5 · 2^23, which has n in its lowest bits.

    In two steps, 2^(n - 1) and 2, so that 2^128 overflows to infinity as it should.
    """

    def codegen(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[1], ir.VectorType(_I32, vector.lanes))
        lanes = ir.VectorType(_I32, vector.lanes)
        bits = builder.shl(bits, ir.Constant(lanes, [23] * vector.lanes))
        bits = builder.add(bits, ir.Constant(lanes, [126 << 23] * vector.lanes))
        half = builder.bitcast(bits, arguments[0].type)
        doubled = builder.fadd(arguments[0], arguments[0])
        return builder.fmul(doubled, half)

    return vector(vector, shifted), codegen


@intrinsic
def zero_where_below(typingctx, vector, x, limit):
    """`vector`, but 0 in the lanes where `x` is below the limit."""

    def codegen(context, builder, signature, arguments):
        value, x_value, limit_value = arguments
        below = builder.fcmp_ordered("<", x_value, splat(builder, limit_value, vector.lanes))
        return builder.select(below, ir.Constant(value.type, None), value)

    return vector(vector, x, types.float32), codegen
