"""The package as a user gets it: light to import, whole as a wheel, within its budgets."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import aimv2_np

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aimv2_np"
HEAVY = ("numpy", "PIL", "tokenizers", "huggingface_hub", "safetensors", "msgpack", "torch")


def python(*args: str, cwd: Path = ROOT, **environment: str) -> str:
    """Run a fresh interpreter and return what it printed."""
    run = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, json, aimv2_np; print(json.dumps(list(sys.modules)))"
    assert not set(json.loads(python("-c", code))) & set(HEAVY)


def test_every_public_name_exists() -> None:
    assert len(aimv2_np.__all__) == len(set(aimv2_np.__all__)) > 20
    for name in aimv2_np.__all__:
        assert getattr(aimv2_np, name) is not None
    assert set(aimv2_np.__all__) <= set(dir(aimv2_np))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = aimv2_np.nonsense


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert version("aimv2-np") == aimv2_np.__version__


def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    wheel = tmp_path / python("-c", build).split()[-1]
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    assert "aimv2_np/py.typed" in names
    data = "aimv2_np/models_data"
    assert {f"{data}/emoji-lit/model.safetensors", f"{data}/samples/SOURCES.md"} < set(names)
    assert {name.split("/")[2] for name in names if name.startswith(data)} == {
        "emoji-lit",
        "samples",
    }
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "docs"))]
    code = "import aimv2_np; print(aimv2_np.__file__)"
    where = python("-c", code, cwd=tmp_path, PYTHONPATH=str(installed))
    assert where.startswith(str(installed))
    out = python("-m", "aimv2_np", "demo", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "%" in out


def test_budgets() -> None:
    """The sizes that keep the code readable (CONTRIBUTING.md)."""
    lines = {p: len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    core = sum(lines[PACKAGE / name] for name in ("ops.py", "layers.py", "models.py"))
    assert core < 500
    assert {str(p): n for p, n in lines.items() if n > 400} == {}
    long = [
        f"{path.name}:{node.name}"
        for path in lines
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and statements(node) > 40
    ]
    assert long == []


def statements(function: ast.FunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0
