import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from aimv2_np import doctor, machine
from aimv2_np.cli import main
from aimv2_np.errors import BackendUnavailable


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    """A cache of its own, no token and no other settings of whoever runs the tests."""
    for name in [*os.environ]:
        if name.startswith(("HF_", "HUGGING")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def run(capsys):
    def run(*argv):
        code = main(["doctor", *argv])
        out, err = capsys.readouterr()
        assert err == ""
        return code, out

    return run


def doctor_process(**env):
    """The doctor in a process of its own: huggingface_hub reads its variables only once."""
    done = subprocess.run(
        [sys.executable, "-m", "aimv2_np", "doctor", "--json"],
        env={**os.environ, **env},
        capture_output=True,
        timeout=60,
    )
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout), done.stdout.decode()


def test_a_sound_installation(run):
    code, out = run()
    assert code == 0
    assert out.splitlines()[-1] == "Everything that is needed works."
    for name in ("numpy", "safetensors", "pillow", "tokenizers", "huggingface_hub", "tqdm"):
        assert re.search(rf"^  {name} +{re.escape(metadata.version(name))}$", out, re.MULTILINE)
    assert re.search(r"^  numpy  off by \d\.\de-\d\d from the recorded", out, re.MULTILINE)


def test_json_has_all_sections(run):
    code, out = run("--json")
    found = json.loads(out)
    assert code == 0
    assert found["problems"] == []
    assert set(found) == {
        *("version", "software", "machine", "backends", "hub", "test_run", "problems"),
    }
    assert found["test_run"]["numpy"]["logits"] == pytest.approx(doctor.LOGITS, abs=1e-4)
    assert found["software"]["packages"]["numpy"] == metadata.version("numpy")


def test_both_built_in_backends_run():
    found = doctor.examine()["test_run"]
    assert set(found) == {"numpy", "numba"}
    assert max(run["difference"] for run in found.values()) < 1e-5


def test_optional_packages_are_not_imported():
    code = (
        "import sys\nfrom aimv2_np import backend, doctor\n"
        "backend.entry_points = lambda group: []\n"  # a plug-in may import what it is about
        "assert doctor.examine()['problems'] == []\n"
        "assert not {'torch', 'transformers', 'cupy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_package_that_cannot_be_imported_is_a_problem(run, monkeypatch):
    def broken(name):
        if name == "tqdm":
            raise ImportError("its library is missing")
        return __import__(name)

    monkeypatch.setattr(doctor, "import_module", broken)
    code, out = run()
    assert code == 1
    assert "PROBLEM: tqdm cannot be imported: its library is missing; repair it with" in out
    assert "Everything" not in out


def test_without_numpy_the_rest_is_still_reported():
    """As if NumPy were not installed: what needs it is a problem, what does not is shown."""
    code = (
        "import sys\nsys.modules['numpy'] = None\nfrom aimv2_np.cli import main\n"
        "sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 1
    assert done.stderr == b""
    out = done.stdout.decode()
    assert re.search("^PROBLEM: numpy cannot be imported: .*pip install", out, re.MULTILINE)
    assert re.search("^  Python +3", out, re.MULTILINE)
    assert re.search(r"^  cores +\d+ usable", out, re.MULTILINE)


def test_an_old_version_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "0.4.9")
    monkeypatch.setattr(doctor, "_wanted_versions", lambda: {"safetensors": "0.5"})
    problems = doctor.examine()["problems"]
    assert problems == [
        "safetensors 0.4.9 is too old, expected 0.5 or newer: pip install --upgrade safetensors"
    ]


def test_the_wanted_versions_are_those_of_the_package():
    wanted = doctor._wanted_versions()
    assert wanted["numpy"] == "2.0"
    assert "torch" not in wanted
    assert "pytest" not in wanted


def test_a_wrong_result_is_a_problem(run, monkeypatch):
    monkeypatch.setattr(doctor, "LOGITS", tuple(2 * logit for logit in doctor.LOGITS))
    code, out = run()
    assert code == 1
    assert re.search(r"PROBLEM: test run on numpy: .* differs .* by 5\.0e-01", out)


def test_a_result_that_is_no_number_is_a_problem(run, monkeypatch):
    monkeypatch.setattr(doctor, "LOGITS", (float("nan"), doctor.LOGITS[1]))
    code, out = run("--json")
    assert code == 1
    assert "differs" in json.loads(out)["problems"][0]


def test_a_backend_that_cannot_run_is_told_but_is_no_problem(run, monkeypatch):
    reasons = {"numpy": "", "cupy": "there is no GPU here"}
    monkeypatch.setattr("aimv2_np.backend.available_backends", lambda: reasons)
    code, out = run()
    assert code == 0
    assert re.search(r"^  cupy +not available: there is no GPU here$", out, re.MULTILINE)


def test_a_backend_that_breaks_is_a_problem(run, monkeypatch):
    reasons = {"numpy": "", "abacus": ""}
    monkeypatch.setattr("aimv2_np.backend.available_backends", lambda: reasons)
    code, out = run("--json")
    assert code == 1
    (problem,) = json.loads(out)["problems"]
    assert problem.startswith(f"test run on abacus: {BackendUnavailable.__name__}: ")


def test_secrets_are_never_shown(tmp_path):
    code, found, text = doctor_process(
        HF_HOME=str(tmp_path),
        HF_TOKEN="hf_verysecret",
        HF_ENDPOINT="http://user:verysecret@127.0.0.1:1/",
        HUGGING_FACE_HUB_TOKEN="verysecret",
        HF_HUB_OFFLINE="1",
    )
    assert code == 0
    assert "verysecret" not in text
    assert found["hub"]["token"] == "set"
    assert found["hub"]["environment"]["HF_TOKEN"] == "set"
    assert found["hub"]["environment"]["HF_ENDPOINT"] == "http://…@127.0.0.1:1/"
    assert found["hub"]["environment"]["HF_HUB_OFFLINE"] == "1"


def test_the_cache_is_measured(tmp_path):
    code, found, _ = doctor_process(HF_HOME=str(tmp_path))
    assert (code, found["hub"]["exists"], found["hub"]["bytes"]) == (0, False, 0)
    model = tmp_path / "hub" / "models--apple--aimv2-large-patch14-native"
    snapshot = model / "snapshots" / ("b" * 40)
    for folder in (model / "blobs", model / "refs", snapshot):
        folder.mkdir(parents=True)
    (model / "blobs" / "abc").write_bytes(b"x" * 1234)
    (model / "refs" / "main").write_text("b" * 40)
    (snapshot / "model.safetensors").symlink_to(model / "blobs" / "abc")
    code, found, _ = doctor_process(HF_HOME=str(tmp_path))
    assert (code, found["hub"]["exists"], found["hub"]["bytes"]) == (0, True, 1234)
    assert found["hub"]["official"] == ["large-patch14-native"]
    assert found["hub"]["cache"] == str(tmp_path / "hub")


def test_a_malformed_setting_of_the_hub_is_a_problem():
    code, found, _ = doctor_process(HF_HUB_DOWNLOAD_TIMEOUT="soon")
    assert code == 1
    assert any("HF_HUB_DOWNLOAD_TIMEOUT" in problem for problem in found["problems"])
    assert found["machine"]["processor"]


# ---------------------------------------------------------------------------- the machine


X86 = "processor\t: 0\nmodel name\t: Fast One\nflags\t\t: fpu avx avx2 fma avx512f avx512_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(X86, ["avx", "avx2", "fma", "avx512f", "avx512_bf16"]), (ARM, ["asimd", "bf16", "sve"])],
)
def test_instruction_sets(monkeypatch, text, expected):
    monkeypatch.setattr(machine, "_read", lambda path: text)
    assert machine.instruction_sets() == expected


def test_where_the_system_lists_none_numpy_is_asked(monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: "")
    monkeypatch.setattr(
        machine, "_numpy_config", lambda: {"SIMD Extensions": {"baseline": ["NEON"], "found": []}}
    )
    assert machine.instruction_sets() == ["NEON"]


def test_processor(monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: X86)
    assert machine.processor() == "Fast One"


def test_memory_and_the_limit_of_a_container(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal:       1000 kB\nMemAvailable:    600 kB\n",
        "/sys/fs/cgroup/memory.max": "307200\n",
        "/sys/fs/cgroup/cpu.max": "150000 100000\n",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert machine.memory() == {"total": 1024000, "available": 614400, "limit": 307200}
    assert machine.cores()["granted"] == 1.5
    files["/sys/fs/cgroup/memory.max"] = files["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    assert machine.memory()["limit"] is None
    assert machine.cores()["granted"] is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux pins processes to cores")
def test_cores_are_those_that_may_be_used():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine.cores()["usable"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_of_openblas(threads):
    if "openblas" not in str(machine.blas()["name"]):
        pytest.skip("NumPy uses another BLAS")
    if (os.cpu_count() or 1) < int(threads):
        pytest.skip("too few cores")
    _, found, _ = doctor_process(OPENBLAS_NUM_THREADS=threads)
    assert found["machine"]["blas"]["threads"] == int(threads)
    assert found["machine"]["environment"]["OPENBLAS_NUM_THREADS"] == threads
