"""What every comparison test needs: torch, transformers and timm, imported so that they work.

The tests here set this package beside the libraries that people use today. They are marked
`compare` and leave the default run alone: while that marker is deselected their files are not even
collected, so that the default run never imports torch (several seconds, several hundred MB).

    pip install -e '.[compare]' && pytest -m compare
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("torch", "torchvision", "transformers", "timm", "onnx", "onnxruntime", "onnxscript")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


def _deselected(config: pytest.Config) -> bool:
    """Whether the marker expression (by default that of pyproject.toml) rules these tests out."""
    return "not compare" in config.getoption("markexpr")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if _deselected(config) and collection_path.name.startswith("test_") else None


class _CannotRun(pytest.Module):
    """Stands for a test file whose libraries are not installed: one skip, with the reason."""

    def collect(self) -> Any:
        names = ", ".join(MISSING)
        pytest.skip(
            f"not installed: {names} (pip install -e '.[compare]')", allow_module_level=True
        )


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return _CannotRun.from_parent(parent, path=module_path) if MISSING else None


@contextmanager
def _tolerate_missing_torchvision_ops() -> Iterator[None]:
    """Let `import torchvision` succeed although its compiled operators do not load.

    The torchvision wheel of PyPI is compiled against the CUDA build of torch. Beside the CPU build
    its library fails to load, which torchvision tolerates, but then it describes `torchvision::nms`
    to torch, which does not know that operator: the import ends in a RuntimeError, and with it
    those of timm and of parts of transformers. Nothing here detects boxes, so while torchvision is
    imported such a description is skipped, and only where the operator is unknown: with a pair
    that fits nothing changes.
    """
    import torch

    register_fake = torch.library.register_fake

    def register_known(op: Any, func: Any = None, /, **options: Any) -> Callable[..., Any]:
        namespace, _, name = str(op).partition("::")
        if namespace == "torchvision" and not hasattr(torch.ops.torchvision, name):
            return lambda function: function
        return register_fake(op, func, **options)

    torch.library.register_fake = register_known
    try:
        yield
    finally:
        torch.library.register_fake = register_fake


def pytest_configure(config: pytest.Config) -> None:
    """Runs before any file of this folder is imported, also when this conftest is found late."""
    if MISSING or _deselected(config):
        return
    import torch

    torch.set_num_threads(2)
    with _tolerate_missing_torchvision_ops():
        import torchvision  # noqa: F401
