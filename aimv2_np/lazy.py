"""Names of a package that are imported when they are first used, so that importing it is cheap."""

from collections.abc import Callable, Mapping
from importlib import import_module
from sys import modules
from typing import Any

__all__ = ["lazily"]


def lazily(
    package: str, where: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562). `where`: names, and their modules."""

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f".{where[name]}", package), name)
        setattr(modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted([*vars(modules[package]), *where])

    return find, names
