"""The Numba kernels against the definition in float64, with the tiles of every instruction set.

Also of those that this machine lacks: LLVM then splits their vectors, which is slow but right.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from golden_cases import RANDOM_LIT

import aimv2_np
from aimv2_np import layers, ops
from aimv2_np.backend import NUMPY, get_backend
from aimv2_np.numba_backend import compiled
from aimv2_np.numba_backend.compiled import constants, kernels_for
from aimv2_np.numba_backend.formats import format_of
from aimv2_np.numba_backend.isa import FORCE, INSTRUCTION_SETS, InstructionSet
from aimv2_np.numba_backend.packing import pack_blocks
from aimv2_np.numba_backend.pool import THREADS, run, thread_count
from aimv2_np.numba_backend.transformer import transformer
from aimv2_np.numba_backend.vectors import store
from aimv2_np.weights.tree import BlockParams

EPS = 1e-5
BY_NAME = {isa.name: isa for isa in INSTRUCTION_SETS}
# avx512vnni and avx512bf16 have the float32 kernels of avx512.
ISAS = pytest.mark.parametrize(
    "isa", [BY_NAME[n] for n in ("avx512", "avx2", "neon", "plain")], ids=lambda isa: isa.name
)
# Those whose products differ: pairs of bfloat16, widened; four bytes, two int16.
NARROW = [
    ("avx512bf16", "bfloat16"),
    ("avx2", "bfloat16"),
    ("avx512vnni", "bfloat16"),
    ("avx512bf16", "int8"),
    ("avx512vnni", "int8"),
    ("avx2", "int8"),
]
EVERY = [(name, "float32") for name in ("avx512", "avx2", "neon", "plain")] + NARROW
# width, hidden, heads, tokens of each sequence, causal: ragged wherever something can be ragged
SHAPES = [
    (64, 96, 2, [32], False),
    (64, 128, 1, [150], True),
    (48, 40, 3, [1], False),
    (60, 50, 4, [37, 37, 37], True),  # heads of 15
    (128, 65, 1, [5, 70, 1, 131], False),  # sizes packed into one batch
    (21, 7, 7, [3, 18], True),  # heads of 3; fewer hidden channels than a tile has rows
    (600, 530, 2, [300], False),  # more than one piece of K, and more panels than a task takes
    (32, 2100, 2, [40], False),  # more than one piece of K where a word holds two or four channels
]


def make_blocks(width: int, hidden: int, seed: int = 0, count: int = 2) -> tuple[BlockParams, ...]:
    rng = np.random.default_rng(seed)

    def weight(outputs: int, inputs: int) -> Any:
        return (rng.standard_normal((outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)

    def norm() -> Any:
        return (rng.random(width) + 0.5).astype(np.float32)

    return tuple(
        BlockParams(
            norm(),
            (weight(width, width), weight(width, width), weight(width, width)),
            weight(width, width),
            norm(),
            weight(hidden, width),
            weight(hidden, width),
            weight(width, hidden),
        )
        for _ in range(count)
    )


def as_float64(block: BlockParams) -> BlockParams:
    q, k, v = (part.astype(float) for part in block.qkv)
    others = {name: a.astype(float) for name, a in block._asdict().items() if name != "qkv"}
    return BlockParams(qkv=(q, k, v), **others)


def defined(
    x: Any, blocks: Any, heads: int, lengths: list[int], backend: Any = NUMPY, **sees: Any
) -> Any:
    """layers.transformer, one sequence at a time."""
    ends = np.cumsum(lengths)
    parts = [x[end - length : end][None] for end, length in zip(ends, lengths, strict=True)]
    return np.concatenate(
        [layers.transformer(backend, part, blocks, heads, EPS, **sees)[0] for part in parts]
    )


@ISAS
@pytest.mark.parametrize(("width", "hidden", "heads", "lengths", "causal"), SHAPES)
def test_blocks_are_those_of_the_definition(
    isa: InstructionSet, width: int, hidden: int, heads: int, lengths: list[int], causal: bool
) -> None:
    """float32's error is at most twice that of NumPy's float32, both against float64."""
    blocks = make_blocks(width, hidden)
    x = np.random.default_rng(1).standard_normal((sum(lengths), width)).astype(np.float32)
    truth = defined(x.astype(float), [as_float64(b) for b in blocks], heads, lengths, causal=causal)
    numpy = defined(x, blocks, heads, lengths, causal=causal)
    packed = pack_blocks(blocks, isa, "float32")
    found = transformer(x, packed, heads, EPS, 2, lengths=lengths, causal=causal)
    assert np.abs(found - truth).max() <= 2 * np.abs(numpy - truth).max()


def to_bfloat16(x: Any) -> Any:
    """The nearest numbers with 8 significant bits, ties to even."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


def in_steps(x: Any) -> Any:
    """Each row in steps of a 127th of its largest number: int8, made numbers again."""
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.rint(x / np.where(step == 0, 1, step)) * step


def in_own_steps(x: Any) -> Any:
    """Each row in 255 steps from its least number to its largest."""
    least = x.min(axis=-1, keepdims=True)
    step = (x.max(axis=-1, keepdims=True) - least) / 255
    return np.rint((x - least) / np.where(step == 0, 1, step)) * step + least


def linear_in_steps(x: Any, weight: Any) -> Any:
    return in_own_steps(x) @ in_steps(weight).T


def linear_in_pairs(x: Any, weight: Any) -> Any:
    return to_bfloat16(x) @ to_bfloat16(weight).T


KEYS = constants(BY_NAME["avx512bf16"], format_of(BY_NAME["avx512bf16"], "bfloat16"))["KEYS"]


def attention_in_pairs(q: Any, k: Any, v: Any, **sees: Any) -> Any:
    """Weights are rounded while the largest score so far, KEYS keys at a time, is subtracted."""
    scale = np.sqrt(q.shape[-1])
    unit = scale / np.log2(np.e)  # of queries, so that weights are powers of 2
    scores = ops.attention_scores(to_bfloat16(q / unit) * unit, to_bfloat16(k), **sees)
    context, total = np.zeros_like(q), np.zeros((*q.shape[:-1], 1))
    largest = np.maximum(scores.max(axis=-1, keepdims=True), -1e300)
    for end in range(KEYS, scores.shape[-1] + KEYS, KEYS):
        some = np.s_[..., end - KEYS : end]
        peak = np.maximum(scores[..., :end].max(axis=-1, keepdims=True), -1e300)  # nothing seen yet
        weights, grown = np.exp(scores[some] - peak), np.exp(peak - largest)
        context += to_bfloat16(weights) @ to_bfloat16(v[..., end - KEYS : end, :]) * grown
        total += weights.sum(axis=-1, keepdims=True) * grown
    return context / np.maximum(total, 1e-300)


# What each format rounds, spelled out in float64.
MEANT = {
    ("avx512bf16", "bfloat16"): replace(
        NUMPY, linear=linear_in_pairs, attention=attention_in_pairs
    ),
    ("avx2", "bfloat16"): replace(NUMPY, linear=lambda x, w: x @ to_bfloat16(w).T),
    ("avx512vnni", "bfloat16"): replace(NUMPY, linear=lambda x, w: x @ to_bfloat16(w).T),
    ("avx512bf16", "int8"): replace(NUMPY, linear=linear_in_steps, attention=attention_in_pairs),
    ("avx512vnni", "int8"): replace(NUMPY, linear=linear_in_steps),
    ("avx2", "int8"): replace(NUMPY, linear=linear_in_steps),
}


@pytest.mark.parametrize(("name", "dtype"), NARROW)
@pytest.mark.parametrize(("width", "hidden", "heads", "lengths", "causal"), SHAPES)
def test_narrow_formats_round_what_they_should(
    name: str, dtype: str, width: int, hidden: int, heads: int, lengths: list[int], causal: bool
) -> None:
    """Their distance to what they round, spelled out in float64, is far below that to the truth.

    It is not 0, because a number that lies between two steps may go the other way, and then others
    that depend on it: one block, not two.
    """
    blocks, isa = make_blocks(width, hidden, count=1), BY_NAME[name]
    x = np.random.default_rng(1).standard_normal((sum(lengths), width)).astype(np.float32)
    exact = [as_float64(b) for b in blocks]
    truth = defined(x.astype(float), exact, heads, lengths, causal=causal)
    meant = defined(
        x.astype(float), exact, heads, lengths, backend=MEANT[name, dtype], causal=causal
    )
    packed = pack_blocks(blocks, isa, dtype)
    found = transformer(x, packed, heads, EPS, 2, lengths=lengths, causal=causal)
    assert np.linalg.norm(found - meant) < 0.5 * np.linalg.norm(meant - truth)


def test_both_forms_of_int8_compute_the_same_integers() -> None:
    blocks, lengths = make_blocks(60, 50), [37, 5]
    x = np.random.default_rng(1).standard_normal((42, 60)).astype(np.float32)
    x[3], x[7, 5] = 0, np.inf  # a token of zeros; one that spreads NaN
    found = [
        transformer(x, pack_blocks(blocks, BY_NAME[name], "int8"), 4, EPS, 1, lengths=lengths)
        for name in ("avx512vnni", "avx2")
    ]
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(found[1]))
    assert np.isnan(found[0][:37]).any()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "dtype"), NARROW)
def test_packing_rounds_to_the_nearest(name: str, dtype: str) -> None:
    blocks = make_blocks(50, 37)
    rounded = to_bfloat16 if dtype == "bfloat16" else in_steps
    for before, after in zip(blocks, pack_blocks(blocks, BY_NAME[name], dtype), strict=True):
        for field in ("proj", "fc1", "fc2", "fc3"):
            expected = rounded(getattr(before, field).astype(float))
            np.testing.assert_allclose(getattr(after, field), expected, rtol=1e-6, atol=0)
        for one, other in zip(before.qkv, after.qkv, strict=True):
            np.testing.assert_allclose(other, rounded(one.astype(float)), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("name", "dtype"), EVERY)
@pytest.mark.parametrize("causal", [True, False])
def test_hidden_keys(name: str, dtype: str, causal: bool) -> None:
    """The first 140 keys hidden, more than are taken at a time; the last; all of a sequence.

    A query that sees no key at all gets zeros, as the definition has it.
    """
    blocks, lengths, isa = make_blocks(32, 48, count=1), [150] * 3, BY_NAME[name]
    assert constants(isa, format_of(isa, dtype))["KEYS"] < 140
    x = np.random.default_rng(2).standard_normal((450, 32)).astype(np.float32)
    mask = np.ones((3, 150), bool)
    mask[0, :140] = mask[1, 111:] = mask[2] = False
    double = [as_float64(b) for b in blocks]
    sees = {"causal": causal, "key_mask": mask}
    apart = x.reshape(3, 150, 32).astype(float)
    truth, meant = (
        layers.transformer(backend, apart, double, 2, EPS, **sees).reshape(450, 32)
        for backend in (NUMPY, MEANT.get((name, dtype), NUMPY))
    )
    found = transformer(x, pack_blocks(blocks, isa, dtype), 2, EPS, 1, lengths=lengths, **sees)
    if dtype == "float32":
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5)
    else:
        assert np.linalg.norm(found - meant) < 0.5 * np.linalg.norm(meant - truth)


@ISAS
def test_packing_loses_nothing(isa: InstructionSet) -> None:
    blocks = make_blocks(50, 37)
    for before, after in zip(blocks, pack_blocks(blocks, isa, "float32"), strict=True):
        for one, other in zip(before, after, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(("name", "dtype"), [("avx2", "float32"), *NARROW])
def test_the_number_of_threads_changes_no_bit(name: str, dtype: str) -> None:
    isa = BY_NAME[name]
    packed = pack_blocks(make_blocks(64, 80), isa, dtype)
    x = np.random.default_rng(3).standard_normal((90, 64)).astype(np.float32)
    found = [transformer(x, packed, 2, EPS, threads, lengths=[40, 50]) for threads in (1, 2, 3, 2)]
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("name", "dtype"), EVERY)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_spread_as_in_numpy(name: str, dtype: str, odd: float) -> None:
    """In one token of the first of two sequences: the second stays finite.

    Causal or not, it reaches earlier tokens too: hidden values are multiplied with 0, not left out.
    """
    blocks, lengths = make_blocks(32, 48), [100, 9]
    x = np.random.default_rng(4).standard_normal((109, 32)).astype(np.float32)
    x[84, 7] = odd
    with np.errstate(invalid="ignore"):
        expected = defined(x, blocks, 2, lengths, causal=True)
    packed = pack_blocks(blocks, BY_NAME[name], dtype)
    found = transformer(x, packed, 2, EPS, 1, lengths=lengths, causal=True)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.isnan(found).any()
    assert np.isfinite(found[100:]).all()


def applied(isa: InstructionSet, name: str, x: Any) -> Any:
    """A function of vectors on an array."""
    kernels, step = kernels_for(isa, "float32"), isa.panel
    function, load = getattr(kernels, name), kernels.load

    @numba.njit
    def apply(x: Any) -> None:
        for i in range(0, len(x), step):
            store(x.ctypes.data + 4 * i, function(load(x.ctypes.data + 4 * i)))

    found = x.copy()
    apply(found)
    return found


def units(found: Any, truth: Any) -> float:
    """The largest error in units of the last place."""
    return float((np.abs(found - truth) / np.spacing(np.abs(truth).astype(np.float32))).max())


@ISAS
def test_exp_to_two_units_in_the_last_place(isa: InstructionSet) -> None:
    x = np.linspace(-86.9, 88.7, 32 * 5000, dtype=np.float32)
    assert units(applied(isa, "exp", x), np.exp(x.astype(float))) <= 2
    odd = np.resize(np.array([np.inf, 89, -np.inf, -110, 0, np.nan], np.float32), 32)
    expected = [np.inf, np.inf, 0, 0, 1, np.nan]
    np.testing.assert_array_equal(applied(isa, "exp", odd)[:6], expected)


@ISAS
def test_silu_to_three_units_in_the_last_place(isa: InstructionSet) -> None:
    x = np.linspace(-80, 80, 32 * 5000, dtype=np.float32)
    truth = x.astype(float) / (1 + np.exp(-x.astype(float)))
    assert units(applied(isa, "silu", x), truth) <= 3
    odd = np.resize(np.array([np.inf, 0, -0.0, np.nan, -1e30], np.float32), 32)
    np.testing.assert_array_equal(applied(isa, "silu", odd)[:5], [np.inf, 0, 0, np.nan, 0])


def test_tiles_fit_the_registers() -> None:
    registers = {"avx2": 16, "neon": 32, "plain": 16}
    for isa in INSTRUCTION_SETS:
        most = registers.get(isa.name, 32)
        assert isa.rows * isa.vectors + isa.vectors + 2 <= most  # one for a product of integers
        assert isa.panel % isa.heads_rows == 0
        assert constants(isa, format_of(isa, "float32"))["KEYS"] % isa.panel == 0
        assert isa.rows % (4 if isa.bfloat16 else 2) == 0  # gate and up halves, in pairs


# ---------------------------------------------------------------------------- as a backend


@pytest.fixture(scope="module")
def models() -> Any:
    """The packaged model on both backends."""
    return [aimv2_np.load("emoji-lit", backend=name) for name in ("numpy", "numba")]


def test_a_whole_model_agrees_with_numpy(models: Any) -> None:
    images, texts = list(aimv2_np.samples().values())[:5], ["cat", "a photo of two dogs", ""]
    for method, given in (("encode_image", images), ("encode_text", texts)):
        numpy, numba = (getattr(model, method)(given) for model in models)
        np.testing.assert_allclose(numba, numpy, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.9999), ("int8", 0.999)])
def test_narrow_weights_change_little(dtype: str, least: float) -> None:
    """Of the packaged model, which was trained: the samples and their words."""
    models = [aimv2_np.load("emoji-lit", dtype=d) for d in ("float32", dtype)]
    words, pictures = list(aimv2_np.samples()), list(aimv2_np.samples().values())
    prompts = [f"a photo of {word}" for word in words]
    exact, narrow = ((m.encode_image(pictures), m.encode_text(prompts)) for m in models)
    for one, other in zip(exact, narrow, strict=True):
        assert (one * other).sum(axis=1).min() >= least
    chosen = [(images @ texts.T).argmax(axis=1) for images, texts in (exact, narrow)]
    assert np.mean(chosen[0] == chosen[1]) >= 0.99


def test_a_trace_runs_the_composed_form_on_unpacked_weights(models: Any) -> None:
    picture = aimv2_np.samples()["cat"]
    numpy, numba = (model.trace(picture, "a cat") for model in models)
    assert list(numba) == list(numpy)
    for name in numpy:  # the patch embedding is the kernels' own
        np.testing.assert_allclose(numba[name], numpy[name], rtol=1e-5, atol=1e-4, err_msg=name)
    fused = models[1].encode_image(picture)
    np.testing.assert_allclose(fused, numba["image_embeds"], rtol=0, atol=2e-6)


def test_two_threads_may_call_one_model_at_once(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"a photo of {n} cats" for n in range(40)]
    monkeypatch.setenv(THREADS, "2")
    alone = models[1].encode_text(texts)
    found: list[Any] = []
    callers = [
        threading.Thread(target=lambda: found.append(models[1].encode_text(texts)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    assert all(np.array_equal(one, alone) for one in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # threads are the point here
def test_a_forked_worker_does_not_hang(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "2")
    picture = aimv2_np.samples()["cat"]  # enough work for two threads
    expected = models[1].encode_image(picture)  # the parent's pool is running
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if np.array_equal(models[1].encode_image(picture), expected) else 1)
        finally:
            os._exit(2)
    killer = threading.Timer(60, os.kill, (child, signal.SIGKILL))
    killer.start()
    status = os.waitpid(child, 0)[1]
    killer.cancel()
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_threads_can_be_counted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("abc", "0", "-1", "40000"):
        monkeypatch.setenv(THREADS, wrong)
        with pytest.raises(aimv2_np.BackendUnavailable, match="expected a number from 1 to 1024"):
            get_backend("numba")
    monkeypatch.setenv(THREADS, "3")
    assert thread_count() == 3
    monkeypatch.delenv(THREADS)
    assert thread_count() >= 1
    seen: list[tuple[int, int]] = []
    run(lambda thread, threads, _: seen.append((thread, threads)), 3, np.zeros(2, np.int64))
    assert sorted(seen) == [(0, 3), (1, 3), (2, 3)]


def test_a_thread_that_is_interrupted_keeps_nobody_waiting() -> None:
    """The other one waits for a counter, as kernels do at a meeting, until it is told to stop."""
    counters = np.zeros(2, np.int64)

    def kernel(thread: int, threads: int, shared: Any) -> None:
        if thread == 0:
            raise KeyboardInterrupt
        while shared[1] < threads:
            time.sleep(0.001)

    for _ in range(2):  # and the next call finds the pool as it was
        counters[:] = 0
        with pytest.raises(KeyboardInterrupt):
            run(kernel, 2, counters)


def test_a_copy_of_a_model_has_weights_of_its_own(models: Any) -> None:
    """Kernels take addresses, and a copy that kept the original's would read freed memory."""
    copied = pickle.loads(pickle.dumps(models[1].params.vision.blocks))
    assert not set(copied.addresses().flat) & set(models[1].params.vision.blocks.addresses().flat)
    assert np.array_equal(copied[3].fc2, models[1].params.vision.blocks[3].fc2)


def test_an_instruction_set_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCE, "plain")
    plain = aimv2_np.load(RANDOM_LIT, backend="numba").encode_text("cat")
    monkeypatch.delenv(FORCE)
    best = aimv2_np.load(RANDOM_LIT, backend="numba").encode_text("cat")
    np.testing.assert_allclose(plain, best, rtol=0, atol=1e-5)
    monkeypatch.setenv(FORCE, "mmx")
    named = f"{FORCE}=mmx: this processor runs .*plain"
    with pytest.raises(aimv2_np.BackendUnavailable, match=named):
        get_backend("numba")


def test_a_machine_without_a_writable_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Numba sees one: none of its places for a cache can be used."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    monkeypatch.setattr("aimv2_np.numba_backend.kernels_for", compiled._made.__wrapped__)
    with pytest.raises(aimv2_np.BackendUnavailable, match="set NUMBA_CACHE_DIR to a folder"):
        get_backend("numba")


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(aimv2_np.BackendUnavailable, match="NUMBA_DISABLE_JIT is set"):
        get_backend("numba")


def test_only_the_cpu() -> None:
    with pytest.raises(aimv2_np.BackendUnavailable, match="runs on the CPU, not on 0"):
        get_backend("numba", device=0)


_LATER = """
import aimv2_np
from aimv2_np.numba_backend.compiled import kernels_for
from aimv2_np.numba_backend.formats import format_of
from aimv2_np.numba_backend.isa import choose
model = aimv2_np.load("emoji-lit", backend="numba")
model.encode_image(aimv2_np.samples()["cat"])
model.encode_text(["a cat", "a photo of two dogs"])
print(kernels_for(choose(), "float32").compiled)
"""


def test_after_warmup_a_fresh_process_compiles_nothing(tmp_path: Path) -> None:
    """With a cache folder of its own that is empty at first."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), FORCE: "plain"}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    first = python("-m", "aimv2_np", "warmup", "--dtype", "float32", "--json")
    assert json.loads(first.stdout)["compiled"] > 5
    said = "aimv2_np: compiling the kernels for plain, once (about 10 s for each dtype)"
    assert first.stderr.splitlines() == [said]
    second = python("-m", "aimv2_np", "warmup", "--dtype", "float32")
    assert second.stdout.strip() == "plain: nothing to compile, the cache has all kernels"
    later = python("-c", _LATER)
    assert (later.stdout.strip(), later.stderr) == ("[]", "")
