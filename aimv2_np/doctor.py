"""`aimv2-np doctor`: is this installation sound, and what may make it slow?

Every finding is looked up on its own, so that one broken part does not hide the others; nothing is
changed and nothing is downloaded. What must work for the package to be of any use is a problem when
it does not, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from . import __version__, machine
from .cli_options import DEFAULT_MODEL
from .cli_screen import echo, echo_json, fields
from .errors import AIMv2Error

__all__ = ["examine", "main"]

# distribution: the module it brings
ESSENTIAL = {
    "numpy": "numpy",
    "numba": "numba",
    "safetensors": "safetensors",
    "pillow": "PIL",
    "tokenizers": "tokenizers",
    "huggingface_hub": "huggingface_hub",
    "tqdm": "tqdm",
    "shtab": "shtab",
}
OPTIONAL = ("cupy", "cupy-cuda12x", "cupy-cuda13x", "torch", "transformers", "timm")
THREADS = re.compile(
    r"(OMP|OPENBLAS|MKL|BLIS|VECLIB)_(NUM_THREADS|MAXIMUM_THREADS)|AIMV2_NP_(THREADS|ISA)"
)

# What the packaged model says about `_test_image` and these texts: its logits, computed in float64
# by transformers 5.23. `pytest -m compare tests/compare/test_doctor.py` computes them again and,
# where the model is another one, prints the line that belongs here.
TEXTS = ("a cat", "two dogs at night")
LOGITS = (-2.775613, 0.905303)
TOLERANCE = 1e-4  # of the largest logit; float32 was seen to lose 2e-6

Finding = dict[str, Any]


def main(args: argparse.Namespace) -> int:
    """Print what was found; exit code 1 if something essential is broken."""
    findings = examine()
    if args.json:
        echo_json(findings)
    else:
        _show(findings)
    return 1 if findings["problems"] else 0


def examine() -> Finding:
    """All findings, in plain values; `problems` lists what must be repaired."""
    problems: list[str] = []
    sections: dict[str, Callable[[list[str]], Finding]] = {
        "software": _software,
        "machine": _machine,
        "backends": _backends,
        "hub": _hub,
        "test_run": _test_runs,
    }
    findings: Finding = {"version": __version__}
    for name, look in sections.items():
        try:
            findings[name] = look(problems)
        except Exception as error:  # whatever is broken here is what was looked for
            findings[name] = {}
            problems.append(f"{name.replace('_', ' ')}: {type(error).__name__}: {error}")
    findings["problems"] = problems
    return findings


# ---------------------------------------------------------------------------- looking


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _software(problems: list[str]) -> Finding:
    wanted = _wanted_versions()
    for distribution, module in ESSENTIAL.items():
        found, least = _version(distribution), wanted.get(distribution, "0")
        try:
            import_module(module)
        except Exception as error:  # a package can break in any way while it is imported
            problems.append(
                f"{distribution} cannot be imported: {error}; "
                f"repair it with: pip install --force-reinstall {distribution}"
            )
            continue
        if found is not None and _numbers(found) < _numbers(least):
            problems.append(
                f"{distribution} {found} is too old, expected {least} or newer: "
                f"pip install --upgrade {distribution}"
            )
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "folder": str(Path(__file__).parent),
        "packages": {name: _version(name) for name in ESSENTIAL},
        "optional": {name: _version(name) for name in OPTIONAL},
    }


def _wanted_versions() -> dict[str, str]:
    """The oldest version of each dependency that this package's metadata accepts."""
    try:
        required = metadata.requires("aimv2-np") or []
    except metadata.PackageNotFoundError:  # runs from a folder, not installed
        return {}
    matches = (re.match(r"([\w-]+)\s*>=\s*([\d.]+)(?!.*extra)", line) for line in required)
    return {match[1]: match[2] for match in matches if match}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _machine(problems: list[str]) -> Finding:
    del problems  # a slow machine is none
    return {
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "processor": machine.processor(),
        "cores": machine.cores(),
        "memory": machine.memory(),
        "instruction_sets": machine.instruction_sets(),
        "blas": machine.blas(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if THREADS.fullmatch(k)},
    }


def _backends(problems: list[str]) -> Finding:
    del problems  # only numpy is essential, and the test run tries it
    from .backend import AUTO, available_backends

    found: Finding = {"auto": AUTO, "reasons": available_backends()}
    if found["reasons"].get("numba") == "":
        from .numba_backend.isa import choose
        from .numba_backend.pool import thread_count

        found["numba"] = {"instruction_set": choose().name, "threads": thread_count()}
    return found


def _hub(problems: list[str]) -> Finding:
    import huggingface_hub

    from .config import OFFICIAL
    from .hub import is_cached
    from .hub_errors import library

    cache = Path(library().constants.HF_HUB_CACHE)
    if cache.exists() and not os.access(cache, os.R_OK | os.W_OK | os.X_OK):
        problems.append(f"no permission to read and write the cache {cache}; or set HF_HOME")
    return {
        "cache": str(cache),
        "exists": cache.is_dir(),
        "bytes": _cached_bytes(cache),
        "free_bytes": _free_bytes(cache),
        "official": [m.name for m in OFFICIAL.values() if is_cached(m.hub_id)],
        "token": "set" if huggingface_hub.get_token() else "not set",
        "environment": _hub_environment(),
    }


def _cached_bytes(cache: Path) -> int:
    """The size of all models in the cache; what cannot be read does not count."""
    total = 0
    for blobs in cache.glob("models--*/blobs"):
        for file in os.scandir(blobs):
            total += file.stat(follow_symlinks=False).st_size
    return total


def _free_bytes(folder: Path) -> int:
    import shutil

    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _hub_environment() -> dict[str, str]:
    """The HF_ variables; secrets only as "set", addresses without a password."""
    shown = {}
    for name, value in sorted(os.environ.items()):
        if not name.startswith(("HF_", "HUGGING_FACE_", "HUGGINGFACE_")):
            continue
        secret = re.search("TOKEN|KEY|SECRET|PASS", name) and not name.endswith("_PATH")
        shown[name] = "set" if secret else re.sub(r"(?<=//)[^/]*@", "…@", value)
    return shown


# ---------------------------------------------------------------------------- a test run


def _test_image() -> Any:
    """A picture of three slopes, (64, 64, 3): already of the size that the model takes."""
    import numpy as np

    y, x, c = np.indices((64, 64, 3))
    return ((5 * y + 3 * x + 40 * c) % 256).astype(np.uint8)


def _test_runs(problems: list[str]) -> Finding:
    """The packaged model on every backend that is available."""
    from .backend import available_backends

    runs: Finding = {}
    for backend, reason in available_backends().items():
        if reason:
            continue
        try:
            runs[backend] = _test_run(backend)
        except Exception as error:  # it is broken, and that is the finding
            problems.append(f"test run on {backend}: {type(error).__name__}: {error}")
            continue
        if runs[backend]["difference"] > TOLERANCE:
            problems.append(
                f"test run on {backend}: the result differs from the recorded one by "
                f"{runs[backend]['difference']:.1e} of its size, expected at most {TOLERANCE:.0e}"
            )
    return runs


def _test_run(backend: str) -> Finding:
    """How far the logits are from the recorded ones, relative to the largest; and how fast."""
    import numpy as np

    from .hub import PACKAGED
    from .loader import load
    from .pipelines import LiTPipeline

    model = load(PACKAGED / DEFAULT_MODEL, backend=backend)
    if not isinstance(model, LiTPipeline):
        raise AIMv2Error("the packaged model has lost its text encoder; install aimv2-np again")
    began = time.perf_counter()
    tokens = model.tokenize(TEXTS)
    logits = model(model.preprocess(_test_image()), *tokens).logits_per_image
    seconds = time.perf_counter() - began
    difference = np.abs(np.asarray(logits) - [LOGITS]).max() / np.abs(LOGITS).max()
    return {
        "logits": np.asarray(logits, np.float64)[0].tolist(),
        "difference": float(np.nan_to_num(difference, nan=np.finfo(float).max)),
        "seconds": round(seconds, 4),
    }


# ---------------------------------------------------------------------------- showing


def _show(findings: Finding) -> None:
    echo(f"aimv2-np {findings['version']}")
    titles = {
        "software": _software_rows,
        "machine": _machine_rows,
        "backends": _backend_rows,
        "hub": _hub_rows,
        "test_run": _test_rows,
    }
    for name, rows in titles.items():
        if found := findings[name]:
            echo()
            echo(name.replace("_", " "))
            for line in fields(rows(found)):
                echo(line)
    echo()
    for problem in findings["problems"]:
        echo(f"PROBLEM: {problem}")
    if not findings["problems"]:
        echo("Everything that is needed works.")


Rows = list[tuple[str, str]]


def _software_rows(found: Finding) -> Rows:
    absent = [name for name, version in found["optional"].items() if version is None]
    present = [f"{name} {version}" for name, version in found["optional"].items() if version]
    return [
        ("Python", f"{found['python']}, {found['executable']}"),
        ("aimv2_np", found["folder"]),
        *((name, version or "version unknown") for name, version in found["packages"].items()),
        ("optional", f"{', '.join(present) or 'none'}; absent: {', '.join(absent) or 'none'}"),
    ]


def _machine_rows(found: Finding) -> Rows:
    cores, blas = found["cores"], found["blas"]
    granted = cores["granted"]
    quota = f"; a quota grants the time of {granted:g}" if granted is not None else ""
    threads = "unknown" if blas["threads"] is None else str(blas["threads"])
    return [
        ("system", found["system"]),
        ("processor", found["processor"] or "unknown"),
        ("cores", f"{cores['usable']} usable of {cores['present']}{quota}"),
        ("memory", _memory_words(found["memory"])),
        ("instructions", " ".join(found["instruction_sets"]) or "unknown"),
        ("BLAS", f"{blas['name'] or 'unknown'} {blas['version'] or ''}, threads: {threads}"),
        *found["environment"].items(),
    ]


def _memory_words(memory: dict[str, int | None]) -> str:
    from .hub_errors import readable

    words = {"total": "{}", "available": "{} available", "limit": "at most {} in this container"}
    parts = [words[k].format(readable(v)) for k, v in memory.items() if v is not None]
    return ", ".join(parts) or "unknown"


def _backend_rows(found: Finding) -> Rows:
    rows = []
    for name, reason in found["reasons"].items():
        state = (
            f"not available: {reason}" if reason else "ready" + ", auto" * (name == found["auto"])
        )
        if name == "numba" and "numba" in found:
            state += ", kernels for {instruction_set}, {threads} threads".format(**found["numba"])
        rows.append((name, state))
    return rows


def _hub_rows(found: Finding) -> Rows:
    from .config import OFFICIAL
    from .hub_errors import readable

    size = f"{readable(found['bytes'])} of models" if found["exists"] else "not made yet"
    cached = ", ".join(found["official"]) or f"none of the {len(OFFICIAL)} official ones"
    return [
        ("cache", f"{found['cache']}: {size}, {readable(found['free_bytes'])} free on the disk"),
        ("cached", cached),
        ("token", f"{found['token']} (no official model needs one)"),
        *found["environment"].items(),
    ]


def _test_rows(found: Finding) -> Rows:
    return [
        (name, f"off by {run['difference']:.1e} from the recorded result, {run['seconds']:.3f} s")
        for name, run in found.items()
    ]
