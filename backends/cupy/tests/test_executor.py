"""Graphs, memory and devices: what is recorded and kept, and what happens when memory is full."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_device import NumpyDevice

from aimv2_np import layers, ops
from aimv2_np.backend import NUMPY
from aimv2_np.errors import AIMv2Warning
from aimv2_np.testing import random_models
from aimv2_np_cupy import executor
from aimv2_np_cupy.device import STORED
from aimv2_np_cupy.executor import Executor, Layers, Packed, bucket, shares
from aimv2_np_cupy.replicas import Replicas, divided
from aimv2_np_cupy.table import table

MODEL = random_models.make("learned")
WIDTH, HEADS, EPS = 48, 4, 1e-5


class Noting(NumpyDevice):
    """Notes what was recorded, and what ran: launches one by one, or those of a record."""

    def __init__(self, memory: float = np.inf) -> None:
        super().__init__(memory)
        self.records, self.replays, self.launches, self.releases = 0, 0, 0, 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.records += 1
        replay = super().record(work)

        def noted() -> None:
            self.replays += 1
            replay()

        return noted

    def launch(self, *args: Any) -> None:
        self.launches += 1
        super().launch(*args)

    def release(self) -> None:
        self.releases += 1


def blocks(device: NumpyDevice, dtype: str = "float32") -> Layers:
    prepared = table(device).prepare(MODEL.params, dtype)
    return Layers(tuple(prepared.blocks), HEADS, EPS, causal=False)


def tokens(rows: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


def run(one: Executor | Replicas, how: Layers, x: Any, lengths: tuple[int, ...]) -> Any:
    out = np.full_like(x, np.nan)
    one.run(how, x, Packed(lengths, lengths), out)
    return out


def expected(x: Any, lengths: tuple[int, ...]) -> Any:
    """The definition, in float64."""
    wide = [p._replace(**{n: a.astype(float) for n, a in p._asdict().items() if n != "qkv"},
                       qkv=tuple(a.astype(float) for a in p.qkv))
            for p in MODEL.params.blocks]  # fmt: skip
    x = x.astype(float)[None]
    return layers.transformer(NUMPY, x, wide, HEADS, EPS, lengths=list(lengths))[0]


def right(found: Any, x: Any, lengths: tuple[int, ...]) -> None:
    np.testing.assert_allclose(found, expected(x, lengths), atol=2e-5)


def test_a_shape_that_comes_twice_is_recorded() -> None:
    device = Noting()
    one, how = Executor(device), blocks(device)
    counts = []
    for seed in range(4):
        x = tokens(10, seed)
        before = device.launches
        right(run(one, how, x, (5, 5)), x, (5, 5))
        counts.append((device.records, device.replays, device.launches - before))
    each = 4 * len(how.blocks)
    assert counts == [(0, 0, each), (1, 1, each), (1, 2, 0), (1, 3, 0)]


def test_another_batch_length_or_dtype_is_another_shape() -> None:
    device = Noting()
    one, how = Executor(device), blocks(device)
    for rows, lengths in ((5, (5,)), (10, (5, 5)), (6, (6,)), (5, (5,))):
        x = tokens(rows)
        right(run(one, how, x, lengths), x, lengths)
    assert len(one.plans) == 3
    assert device.records == 1
    small = blocks(device, "bfloat16")
    run(one, small, device.asarray(tokens(5), "bfloat16"), (5,))
    assert len(one.plans) == 4


def test_batches_of_nearly_one_size_share_a_record() -> None:
    """9 to 16 have their own, 17 and 18 are one; rows too many do not change the others."""
    assert [bucket(n) for n in (1, 2, 7, 8, 9, 15, 16, 17, 18, 33, 64, 65, 100)] == [
        1, 2, 7, 8, 9, 15, 16, 18, 18, 36, 64, 72, 104,
    ]  # fmt: skip
    assert all(n <= bucket(n) <= n * 9 / 8 for n in range(1, 2000))
    device = Noting()
    one, how = Executor(device), blocks(device)
    for count in (18, 17, 18, 17):
        x, lengths = tokens(2 * count, count), (2,) * count
        right(run(one, how, x, lengths), x, lengths)
    assert (len(one.plans), device.records) == (1, 1)


def test_what_was_not_used_for_longest_goes() -> None:
    device = Noting()
    one, how = Executor(device), blocks(device)
    for length in [*range(1, executor.PLANS + 1), 1, 99]:
        run(one, how, tokens(length), (length,))
    kept = [key[2] for key in one.plans]
    assert kept == [*range(3, executor.PLANS + 1), 1, 99]


def test_packs_of_several_lengths_are_not_kept() -> None:
    device = Noting()
    one, how = Executor(device), blocks(device)
    for _ in range(3):
        x = tokens(12)
        right(run(one, how, x, (3, 8, 1)), x, (3, 8, 1))
    assert (len(one.plans), device.records) == (0, 0)


def test_padding_that_moves_is_told_to_a_record() -> None:
    """The same shape with other masks: a graph must read them anew."""
    be = table(NumpyDevice())
    how = blocks(NumpyDevice())
    x = be.asarray(tokens(12).reshape(3, 4, WIDTH), "float32")
    for counts in ([4, 4, 4], [1, 2, 4], [3, 4, 2], [4, 4, 4]):
        mask = np.arange(4) < np.array(counts)[:, None]
        found = be.transformer(be, x, how.blocks, HEADS, EPS, causal=True, key_mask=mask)
        sees: dict[str, Any] = {"causal": True, "key_mask": mask}
        right = layers.transformer(NUMPY, x, MODEL.params.blocks, HEADS, EPS, **sees)
        np.testing.assert_allclose(found, right, atol=2e-5)


class Library(NumpyDevice):
    """A device with a library's attention, which notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int, bool]] = []
        self.ran = 0

    def library_attention(self, qkv: Any, out: Any, batch: int, heads: int, causal: bool) -> Any:
        self.asked.append((batch, heads, causal))

        def work() -> None:
            self.ran += 1
            split = qkv.reshape(batch, -1, 3, heads, out.shape[1] // heads).transpose(2, 0, 3, 1, 4)
            out[...] = ops.attention(*split, causal=causal).swapaxes(1, 2).reshape(out.shape)

        return lambda: self._queue(work)


def test_a_library_has_the_attention_of_whole_batches() -> None:
    """Not of padded ones, though they are of the same shape; not of packs."""
    device = Library()
    be, how = table(device), blocks(device)
    x = be.asarray(tokens(12).reshape(3, 4, WIDTH), "float32")
    for counts in ([4, 4, 4], [1, 2, 4], [4, 4, 4], [1, 2, 3]):
        before, mask = device.ran, np.arange(4) < np.array(counts)[:, None]
        sees: dict[str, Any] = {"causal": True, "key_mask": mask}
        found = be.transformer(be, x, how.blocks, HEADS, EPS, **sees)
        right = layers.transformer(NUMPY, x, MODEL.params.blocks, HEADS, EPS, **sees)
        np.testing.assert_allclose(found, right, atol=2e-5)
        assert device.ran - before == (len(how.blocks) if min(counts) == 4 else 0)
    run(Executor(device), how, tokens(12), (3, 8, 1))
    assert device.asked == [(3, HEADS, True)]


def test_a_mask_with_holes_is_composed() -> None:
    device = Noting()
    be, how = table(device), blocks(device)
    mask = np.array([[True, False, True]])
    x = be.asarray(tokens(3)[None], "float32")
    found = be.transformer(be, x, how.blocks, HEADS, EPS, causal=False, key_mask=mask)
    right = layers.transformer(NUMPY, x, MODEL.params.blocks, HEADS, EPS, key_mask=mask)
    np.testing.assert_allclose(found, right, atol=2e-5)


def test_queues_do_not_share_memory() -> None:
    """What one stream has not read yet, another one must not overwrite."""
    device = Noting()
    one, how = Executor(device), blocks(device)
    for queue in ("a", "b", "a", "b"):
        device.queue = lambda queue=queue: queue  # type: ignore[method-assign,assignment,misc]
        run(one, how, tokens(5), (5,))
    assert [key[-1] for key in one.plans] == ["a", "b"]
    first, second = one.plans.values()
    assert first.stream is not second.stream


def test_the_residual_stream_is_float32() -> None:
    """In 16 bits a large one would swallow what blocks add."""
    device = NumpyDevice()
    one, how = Executor(device), blocks(device, "bfloat16")
    x = device.asarray(tokens(5), STORED["bfloat16"])
    right = expected(x.astype(np.float32), (5,))
    run(one, how, x, (5,))
    (plan,) = one.plans.values()
    assert plan.stream.dtype == np.float32
    off = np.abs(plan.stream[:5] - right).max()
    in_16_bits = np.abs(plan.stream[:5].astype(x.dtype).astype(np.float32) - right).max()
    assert off < in_16_bits


def test_threads_do_not_meet_in_one_memory() -> None:
    device = NumpyDevice()
    one, how = Executor(device), blocks(device)
    inputs = [tokens(10, seed) for seed in range(8)]
    right = [expected(x, (5, 5)) for x in inputs]
    found: list[Any] = [None] * 8

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = run(one, how, inputs[i], (5, 5))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found, right, atol=2e-5)


def test_shares_of_bounded_size() -> None:
    def found(lengths: list[int], rows: int) -> list[tuple[int, int, int, int]]:
        return [(s.start, s.stop, r.start, r.stop) for s, r in shares(lengths, rows)]

    assert found([4, 4, 4], 12) == [(0, 3, 0, 12)]
    assert found([4, 4, 4], 8) == [(0, 2, 0, 8), (2, 3, 8, 12)]
    assert found([9, 1, 1], 4) == [(0, 1, 0, 9), (1, 3, 9, 11)]
    most = executor.MOST  # a grid takes 65535
    assert bucket(most) <= 65535
    assert found([1] * 70_000, 70_000) == [(0, most, 0, most), (most, 70_000, most, 70_000)]


def needed(lengths: tuple[int, ...]) -> int:
    """Bytes that one plan takes."""
    device = NumpyDevice()
    plan = executor.Plan(device, blocks(device), lengths, np.float32, whole=True)
    named = (plan.stream, plan.normed, plan.qkv, plan.gate_up, plan.hidden)
    return sum(array.nbytes for array in named)


def test_too_little_memory_halves_the_batch_and_says_so_once() -> None:
    device = Noting(memory=needed((5,)) * 2.5)
    one, how = Executor(device), blocks(device)
    x, lengths = tokens(40), (5,) * 8
    with pytest.warns(AIMv2Warning, match="too small for 8 sequences at once") as said:
        right(run(one, how, x, lengths), x, lengths)
    assert len(said) == 1
    assert one.rows == 10
    run(one, how, x, lengths)  # nothing is said again: warnings of ours are errors in the tests


def test_the_memory_of_other_shapes_is_given_up_first() -> None:
    device = Noting(memory=needed((5,)) * 4.5)
    one, how = Executor(device), blocks(device)
    for lengths in ((5,), (5,) * 4, (5,) * 3):
        x = tokens(sum(lengths))
        right(run(one, how, x, lengths), x, lengths)
    assert device.releases == 2
    assert one.rows is None


def test_one_sequence_that_does_not_fit_is_an_error() -> None:
    device = Noting(memory=needed((5,)) * 0.9)
    one, how = Executor(device), blocks(device)
    with pytest.warns(AIMv2Warning, match="too small"), pytest.raises(MemoryError):
        run(one, how, tokens(10), (5, 5))


def test_devices_get_even_shares() -> None:
    def found(lengths: list[int], among: int) -> list[tuple[int, int, int, int, int]]:
        return [(k, s.start, s.stop, r.start, r.stop) for k, s, r in divided(lengths, among)]

    assert found([4, 4, 4, 4], 2) == [(0, 0, 2, 0, 8), (1, 2, 4, 8, 16)]
    assert found([4] * 5, 2) == [(0, 0, 3, 0, 12), (1, 3, 5, 12, 20)]
    assert found([7], 2) == [(0, 0, 1, 0, 7)]
    assert found([9, 1, 1], 2) == [(0, 0, 1, 0, 9), (1, 1, 3, 9, 11)]
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, 50, size=rng.integers(1, 20)).tolist()
        parts = found(lengths, 3)
        assert [p[1] for p in parts][1:] == [p[2] for p in parts][:-1]
        assert (parts[0][1], parts[-1][2], parts[-1][4]) == (0, len(lengths), sum(lengths))
        assert max(p[4] - p[3] for p in parts) <= sum(lengths) / 3 + max(lengths)


def test_each_device_computes_its_share_with_its_own_weights() -> None:
    first, second = Noting(), Noting()
    how = blocks(first)
    one = Replicas([Executor(first), Executor(second)])
    for seed in range(3):
        x = tokens(20, seed)
        right(run(one, how, x, (5,) * 4), x, (5,) * 4)
    assert first.launches == second.launches > 0
    assert (first.replays, second.replays) == (2, 2)
    copies = one.copies[how]
    assert copies[0].blocks[0].proj.array is how.blocks[0].proj.array
    assert copies[1].blocks[0].proj.array is not how.blocks[0].proj.array
