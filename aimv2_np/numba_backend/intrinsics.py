"""What Numba cannot say: the micro-kernel, and counters that threads share.

The micro-kernel is written as LLVM code for one tile shape, so that every sum is a register of its
own. It is the same loop for every instruction set; only the shape differs.

    C (rows × panel)  +=  A (rows × K)  ·  B (K × panel)

    for k:                         B[k]:  ░░░░░░░░ ░░░░░░░░   `vectors` loads: tokens
        for row in rows:      A[row, k]:  ▓                   one number, sent to all lanes
            C[row] += A · B       C[row]: ████████ ████████   stay in registers

Tokens lie in the lanes: A broadcasts, B streams. A's strides are constants, because its three
users know theirs: packed weights, keys and values.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import splat

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_BYTE = ir.IntType(8).as_pointer()
_UNROLL = 4


def _constant(number: int) -> ir.Constant:
    return ir.Constant(_I64, number)


@dataclass(frozen=True)
class _Tile:
    """What the micro-kernel's loop consists of, for one shape; `b` builds LLVM code."""

    rows: int
    vectors: int
    lanes: int
    a_row: int  # bytes from a row of A to the next,
    a_step: int  # from a step of K to the next

    @property
    def vector(self) -> Any:
        return ir.VectorType(_F32, self.lanes)

    @property
    def count(self) -> int:
        """Vectors of sums."""
        return self.rows * self.vectors

    def place(self, b: ir.IRBuilder, base: Any, i: int) -> Any:
        """The address of vector i."""
        return b.bitcast(b.gep(base, [_constant(4 * self.lanes * i)]), self.vector.as_pointer())

    def step(self, b: ir.IRBuilder, at_a: Any, at_b: Any, sums: list[Any]) -> list[Any]:
        """The sums after one step of K."""
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        fma = cgutils.get_or_insert_function(b.module, signature, f"llvm.fma.v{self.lanes}f32")
        tokens = [b.load(self.place(b, at_b, v), align=4) for v in range(self.vectors)]
        after = []
        for row in range(self.rows):
            place = b.gep(at_a, [_constant(self.a_row * row)])
            number = b.load(b.bitcast(place, _F32.as_pointer()), align=4)
            weight = splat(b, number, self.lanes)
            for v in range(self.vectors):
                after.append(b.call(fma, [weight, tokens[v], sums[row * self.vectors + v]]))
        return after

    def loop(self, b: ir.IRBuilder, state: list[Any], by: int) -> list[Any]:
        """As many times `by` steps as fit; `state` is what is left of K, A, B, and the sums."""
        before = b.block
        head, body, done = (b.append_basic_block(name) for name in ("head", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        phis = [b.phi(value.type) for value in state]
        for phi, value in zip(phis, state, strict=True):
            phi.add_incoming(value, before)
        left, at_a, at_b, *sums = phis
        b.cbranch(b.icmp_signed(">=", left, _constant(by)), body, done)
        b.position_at_end(body)
        for _ in range(by):
            sums = self.step(b, at_a, at_b, sums)
            at_a = b.gep(at_a, [_constant(self.a_step)])
            at_b = b.gep(at_b, [_constant(4 * self.lanes * self.vectors)])
        for phi, value in zip(phis, [b.sub(left, _constant(by)), at_a, at_b, *sums], strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(done)
        return phis

    def whole(self, b: ir.IRBuilder, steps: Any, a: Any, tokens: Any, c: Any, resume: Any) -> None:
        """Sums from zero or from memory, all steps, sums to memory."""
        before = b.block
        go_on, start = (b.append_basic_block(name) for name in ("go_on", "start"))
        b.cbranch(b.icmp_signed("!=", resume, _constant(0)), go_on, start)
        b.position_at_end(go_on)
        old = [b.load(self.place(b, c, i), align=4) for i in range(self.count)]
        b.branch(start)
        b.position_at_end(start)
        sums = [b.phi(self.vector) for _ in old]
        for phi, value in zip(sums, old, strict=True):
            phi.add_incoming(ir.Constant(self.vector, None), before)
            phi.add_incoming(value, go_on)
        state = self.loop(b, [steps, a, tokens, *sums], _UNROLL)
        _, _, _, *sums = self.loop(b, state, 1)
        for i, value in enumerate(sums):
            b.store(value, self.place(b, c, i), align=4)


def make_microkernel(rows: int, vectors: int, lanes: int, a_row: int, a_step: int) -> Any:
    """The kernel for one tile; `a_row`, `a_step`: bytes from a row of A, a step of K, to the next.

    Its arguments are addresses: steps (of K, at least 1), a, b, c, and whether c holds sums to go
    on from. B moves on by one panel each step; C's rows lie one panel apart.
    """
    tile = _Tile(rows, vectors, lanes, a_row, a_step)

    @intrinsic
    def microkernel(typingctx, steps, a, b, c, resume):
        def codegen(context, builder, signature, arguments):
            steps, *addresses, resume = arguments
            a, b, c = (builder.inttoptr(address, _BYTE) for address in addresses)
            tile.whole(builder, steps, a, b, c, resume)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return microkernel


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
