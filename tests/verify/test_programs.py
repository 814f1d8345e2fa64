"""Programs and functions as candidates: run, read, compared; and what goes wrong with them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aimv2_np.errors import VerificationError
from aimv2_np.testing import random_models
from aimv2_np.verify import Candidate, verify_cases
from aimv2_np.verify.adapters import function, program
from aimv2_np.verify.adapters.running import Shelf
from aimv2_np.verify.inputs import Inputs

# A port of the patch embedding that shares nothing with this package, and may forget the bias.
PORT = """
import sys
import numpy as np
from safetensors.numpy import load_file, save_file

_, inputs, outputs, weights, mistake = sys.argv
w, found = np.load(weights), {}
for key, pixels in load_file(inputs).items():
    case, name = key.split("/")
    if name == "pixel_values":
        b, c, y, x = pixels.shape
        p = w["kernel"].shape[-1]
        cut = pixels.reshape(b, c, y // p, p, x // p, p).transpose(0, 2, 4, 1, 3, 5)
        rows = cut.reshape(b, -1, c * p * p) @ w["kernel"].reshape(len(w["kernel"]), -1).T
        rows = rows if mistake == "no-bias" else rows + w["bias"]
        norm = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5) * w["norm"]
        found[case + "/patch_embed.proj"] = rows.astype(np.float32)
        found[case + "/patch_embed.norm"] = norm.astype(np.float32)
if outputs.endswith(".safetensors"):
    save_file(found, outputs)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, so that one can look whether they are left."""
    folder = tmp_path / "temporary files"  # a path with a space in it
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def python(code: str, *more: str) -> str:
    return shlex.join([sys.executable, "-c", code, "{inputs}", "{outputs}", *more])


def learned() -> Any:
    return Inputs(random_models.cases("learned"), [], [], model="learned")


def port(tmp_path: Path, mistake: str) -> Candidate:
    p = random_models.make("learned").params
    weights = tmp_path / "weights.npz"
    np.savez(weights, kernel=p.patch_weight, bias=p.patch_bias, norm=p.patch_norm)
    return program.candidate(python(PORT, str(weights), mistake), learned())


# ---------------------------------------------------------------------------- programs


def test_a_program_that_is_right(tmp_path: Path, temporary: Path) -> None:
    candidate = port(tmp_path, "none")
    report = verify_cases(random_models.make("learned"), random_models.cases("learned"), candidate)
    assert report.ok, report
    assert report.compared == 2 * 2  # cases, activations
    assert candidate.dtype == "float32"
    assert len(list(temporary.iterdir())) == 1  # kept while its arrays can be read
    del candidate, report
    assert list(temporary.iterdir()) == []


def test_a_program_with_a_mistake(tmp_path: Path) -> None:
    candidate = port(tmp_path, "no-bias")
    report = verify_cases(random_models.make("learned"), random_models.cases("learned"), candidate)
    (finding,) = report.findings
    assert finding.wrong.name == "vision.patch_embed"
    assert finding.causes[0].proved
    assert "bias" in finding.causes[0].id


def test_an_archive_that_numpy_named_itself() -> None:
    """numpy.savez("outputs.safetensors") writes outputs.safetensors.npz."""
    code = "import sys, numpy as n; n.savez(sys.argv[2], **{'squares/vision.norm': n.ones(3)})"
    assert program.candidate(python(code), learned()).get("squares", "vision.norm") is not None


FAILURES = [
    (
        "import sys; print('out of', 'luck', file=sys.stderr); sys.exit(7)",
        "exit code 7.*out of luck",
    ),
    ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    ("print('nothing to do')", "wrote no file.*nothing to do"),
    ("pass", "wrote no file.*said nothing"),
    ("import sys; open(sys.argv[2], 'w').close()", "empty"),
    ("import sys; print('x' * 10**6); sys.exit(1)", "exit code 1"),
]


@pytest.mark.parametrize(("code", "words"), FAILURES)
def test_programs_that_fail(code: str, words: str, temporary: Path) -> None:
    with pytest.raises(VerificationError, match=f"(?s){words}") as caught:
        program.candidate(python(code), learned())
    assert len(str(caught.value)) < 3000
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("my_port --in {inputs}", "no {outputs}.*my_port --in {inputs} --out {outputs}"),
        ("my_port", "no {inputs} and no {outputs}"),
        ("", "no {inputs}"),
        ("my_port '{inputs} {outputs}", "No closing quotation"),
        ("/no/such/port {inputs} {outputs}", "cannot be started: No such file"),
        ("/dev/null {inputs} {outputs}", "cannot be started: Permission denied"),
    ],
)
def test_commands_that_cannot_be_run(command: str, words: str, temporary: Path) -> None:
    with pytest.raises(VerificationError, match=words):
        program.candidate(command, learned())
    assert list(temporary.iterdir()) == []


# A program with a child of its own, which notes both their numbers.
SLOW = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[3] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.replace(sys.argv[3] + ".part", sys.argv[3])
time.sleep(600)
"""


def alive(number: str) -> bool:
    """Whether a process runs; one that only waits to be noticed by its parent does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_dead(numbers: Path) -> bool:
    """Within a moment."""
    for _ in range(100):
        if not any(alive(number) for number in numbers.read_text().split()):
            return True
        time.sleep(0.05)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@needs_proc
def test_a_program_that_takes_too_long(tmp_path: Path, temporary: Path) -> None:
    numbers = tmp_path / "numbers"
    with pytest.raises(VerificationError, match="longer than 3 seconds"):
        program.candidate(python(SLOW, str(numbers)), learned(), timeout=3)
    assert all_dead(numbers)
    assert list(temporary.iterdir()) == []


INTERRUPTED = """
import sys
sys.path.insert(0, sys.argv[1])
import test_programs
from aimv2_np.verify.adapters import program
command = test_programs.python(test_programs.SLOW, sys.argv[2])
program.candidate(command, test_programs.learned())
"""


@needs_proc
def test_an_interrupt_ends_the_program_and_leaves_no_files(tmp_path: Path, temporary: Path) -> None:
    numbers, here = tmp_path / "numbers", Path(__file__).parent
    verifier = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(here), str(numbers)],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(here.parent)},
        stderr=subprocess.PIPE,
    )
    while not numbers.exists():
        assert verifier.poll() is None
        time.sleep(0.05)
    assert len(list(temporary.iterdir())) == 1
    verifier.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in verifier.communicate(timeout=60)[1]
    assert all_dead(numbers)
    assert list(temporary.iterdir()) == []


@needs_proc
def test_sigterm_ends_the_program_too(tmp_path: Path, temporary: Path) -> None:
    numbers = tmp_path / "numbers"
    command = ["verify", "emoji-lit", "--run", python(SLOW, str(numbers))]
    verifier = subprocess.Popen(
        [sys.executable, "-m", "aimv2_np", *command],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
    )
    while not numbers.exists():
        assert verifier.poll() is None
        time.sleep(0.05)
    verifier.terminate()
    assert b"terminated" in verifier.communicate(timeout=60)[1]
    assert verifier.returncode == 143
    assert all_dead(numbers)
    assert list(temporary.iterdir()) == []


# ---------------------------------------------------------------------------- what adapters share


def test_a_shelf_gives_back_what_was_put_there(temporary: Path) -> None:
    shelf = Shelf()
    arrays = {
        "turned": np.arange(6.0).reshape(2, 3).T,
        "one": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.float32),
        "half": np.array([1.5], np.float16),
    }
    shelf.update(arrays)
    shelf["half"] = arrays["half"] = np.array([[2.5, 3.5]], np.float16)
    assert list(shelf) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(shelf[name], array)
        assert shelf[name].dtype == array.dtype
    del shelf["one"]
    assert "one" not in shelf
    assert len(shelf) == 3
    big = Shelf()
    tracemalloc.start()
    for i in range(20):
        big[str(i)] = np.full(1 << 18, i, np.float64)  # 2 MB each
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()
    assert big["7"].sum() == 7 << 18
    del shelf, big
    assert list(temporary.iterdir()) == []


# ---------------------------------------------------------------------------- functions


def run(kind: str, returned: Any, **options: Any) -> Candidate:
    """A candidate that returns the same for every case."""

    def encode(**inputs: Any) -> Any:
        return returned

    return function.candidate(
        random_models.make(kind), random_models.cases(kind), encode, **options
    )


def test_a_function_gets_what_a_case_has() -> None:
    seen = []

    def encode(**inputs: Any) -> Any:
        seen.append({name: (a.shape, a.flags.writeable) for name, a in inputs.items()})
        return {"text.norm": np.zeros(3)}

    function.candidate(random_models.make("lit"), random_models.cases("lit"), encode)
    tokens = ((5, 12), True)
    assert seen == [
        {"pixel_values": ((3, 3, 30, 30), True), "input_ids": tokens, "attention_mask": tokens},
        {"input_ids": ((1, 7), True)},
    ]


X = np.ones((2, 3), np.float32)


def test_a_mapping_may_be_nested_as_transformers_outputs_are() -> None:
    returned = {
        "vision_model_output": {"hidden_states": (X, X + 1), "pooler_output": None},
        "logits_per_image": X + 2,
        "loss": None,
    }
    found = run("lit", returned)
    assert sorted(found.names("pairs")) == [
        "logits_per_image",
        "vision.blocks.0.resid_post",
        "vision.embed",
    ]
    np.testing.assert_array_equal(found.get("pairs", "vision.embed"), X)


@pytest.mark.parametrize(
    ("kind", "names"),
    [("lit", ["logits_per_image", "text_embeds"]), ("learned", ["vision.norm", "vision.norm"])],
)
def test_one_array_is_the_final_output(kind: str, names: list[str]) -> None:
    found = run(kind, X)
    assert [list(found.names(case.name)) for case in random_models.cases(kind)] == [
        [n] for n in names
    ]


@pytest.mark.parametrize("returned", [None, "logits", {}, {"a": "b"}, [[1.0]], object()])
def test_functions_that_return_something_else(returned: Any) -> None:
    with pytest.raises(VerificationError, match=r"encode returned .* expected a mapping"):
        run("lit", returned)


def test_a_function_that_fails() -> None:
    def encode(pixel_values: Any, **others: Any) -> Any:
        if others:
            raise ArithmeticError("no texts\nhere")
        return {"vision.norm": pixel_values}

    model, cases = random_models.make("lit"), random_models.cases("lit")
    with pytest.raises(
        VerificationError, match=r"pairs: ArithmeticError: no texts; alone: TypeErr"
    ):
        function.candidate(model, cases, encode)
    images = [*cases, *random_models.cases("learned")[:1]]
    found = function.candidate(model, images, encode)
    assert list(found.cases) == ["squares"]
    assert "case pairs was left out: ArithmeticError: no texts" in found.notes


# ---------------------------------------------------------------------------- libraries


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("transformers", "needs torch and transformers: pip install"),
        ("timm", "needs timm, and a torch and torchvision"),
        ("original", "needs the original code, aim.v2.torch"),
    ],
)
def test_a_library_that_is_not_there_is_said(library: str, words: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from aimv2_np.cli import main; "
        f"sys.exit(main(['verify', 'emoji-lit', '--candidate', '{library}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
