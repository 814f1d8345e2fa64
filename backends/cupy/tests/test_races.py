"""No barrier is missing: the kernels on the CPU under g++'s ThreadSanitizer (races.py)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aimv2_np_cupy.compiling import SOURCES

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def sanitizer():
    """Where libtsan is. A program that was not built with it must load it first."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: it builds the kernels for the CPU")
    pytest.importorskip("ml_dtypes", reason="ml_dtypes, NumPy's bfloat16, is not installed")
    command = ["g++", "-print-file-name=libtsan.so"]
    library = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(library).is_absolute():
        pytest.skip("g++'s ThreadSanitizer, libtsan, is not installed")
    run = subprocess.run([sys.executable, "-c", ""], env={**os.environ, "LD_PRELOAD": library})
    if run.returncode != 0:
        pytest.skip("Python does not start under ThreadSanitizer here")
    return library


def races(sanitizer, folder, sources):
    """The files in which the sanitizer saw races."""
    from host import build

    build("bfloat16", folder / "tsan.so", sources, ["-fsanitize=thread", "-g"])
    paths = [str(SOURCES.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "LD_PRELOAD": sanitizer, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, HERE / "host_shim" / "races.py", folder / "tsan.so"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    files = set(re.findall(r"(\w+\.cu):\d+", run.stderr))
    assert (run.returncode != 0) == bool(files), run.stderr[-2000:]
    return files


def test_no_barrier_is_missing(sanitizer, tmp_path):
    assert races(sanitizer, tmp_path, SOURCES) == set()


def test_a_missing_barrier_is_seen(sanitizer, tmp_path):
    sources = tmp_path / "kernels"
    shutil.copytree(SOURCES, sources)
    kernel = sources / "rms_norm.cu"
    kernel.write_text(kernel.read_text().replace("__syncthreads();", ""))
    assert races(sanitizer, tmp_path, sources) == {"rms_norm.cu"}
