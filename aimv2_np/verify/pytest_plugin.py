"""A pytest plug-in: fixtures for the test suites of ports of AIMv2.

    def test_my_port(aimv2_verify):
        aimv2_verify("large-patch14-224-lit", my_port)

    def test_my_outputs(aimv2_conformance):
        cases = aimv2_conformance.inputs.cases
        assert not aimv2_conformance.check({case.name: my_port(case) for case in cases})

pytest loads this module in every run of whoever has the package, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conformance import Pack
    from .report import Report

__all__ = [
    "aimv2_conformance",
    "aimv2_verify",
    "pytest_addoption",
    "pytest_load_initial_conftests",
]

_SUITE = "aimv2_np.testing"

_LONGEST = 100  # characters of a test's name in a file's name
_WRITTEN = pytest.StashKey[dict[str, int]]()  # how many pages of each name there are


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("aimv2", "ports of AIMv2 (aimv2_np)")
    group.addoption(
        "--aimv2-conformance",
        metavar="FOLDER",
        help="the pack that the fixture aimv2_conformance opens ('aimv2-np verify export')",
    )
    group.addoption(
        "--aimv2-report",
        metavar="FOLDER",
        help="write an HTML page there for each comparison of aimv2_verify that fails",
    )
    parser.addini("aimv2_conformance", "as --aimv2-conformance; beside the ini-file")


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Where the suite for backends is what runs, it has options of its own."""
    if any(_SUITE in arg.replace(os.sep, ".") for arg in args):
        early_config.pluginmanager.import_plugin(f"{_SUITE}.plugin")


@pytest.fixture(scope="session")
def aimv2_conformance(pytestconfig: pytest.Config) -> Pack:
    """The project's conformance pack: its `inputs`, and `check(outputs)`, which lists failures."""
    from .conformance import open_pack

    return open_pack(_pack_folder(pytestconfig))


def _pack_folder(config: pytest.Config) -> Path:
    """The pack's folder: the option's, from where pytest was called, or the ini-file's."""
    option, ini = config.getoption("--aimv2-conformance"), config.getini("aimv2_conformance")
    if option:
        return config.invocation_params.dir / str(option)
    if ini:
        return (config.inipath or config.rootpath / "ini").parent / str(ini)
    raise pytest.UsageError(
        "the fixture aimv2_conformance needs a pack: pass --aimv2-conformance FOLDER, or set "
        "aimv2_conformance in pytest's ini-file ('aimv2-np verify export MODEL --out FOLDER' "
        "writes one)"
    )


@pytest.fixture(scope="session")
def _aimv2_references() -> dict[str, Any]:
    """The models that were made, by name or path."""
    return {}


@pytest.fixture
def aimv2_verify(
    request: pytest.FixtureRequest, _aimv2_references: dict[str, Any]
) -> Callable[..., Report]:
    """`assert_matches` of aimv2_np.verify, which makes each model once in a session."""

    def verify(model: Any, candidate: Any, **how: Any) -> Report:
        __tracebackhide__ = True  # the traceback ends at the test's line
        from .asserts import as_reference, report_on

        if isinstance(model, str | os.PathLike):
            key = os.fspath(model)
            if key not in _aimv2_references:
                _aimv2_references[key] = as_reference(model)
            model = _aimv2_references[key]
        report = report_on(model, candidate, **how)
        if not report.ok:
            raise AssertionError("\n".join([str(report), *_page(request, report)]))
        return report

    return verify


def _page(request: pytest.FixtureRequest, report: Report) -> list[str]:
    """Write the report's page if that was asked for; a line that says where it is."""
    option = request.config.getoption("--aimv2-report")
    if not option:
        return []
    from ..errors import AIMv2Error
    from .html import write_page

    folder = request.config.invocation_params.dir / str(option)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _unused(folder, request.node.nodeid, request.config.stash)
        write_page(path, report)
    except (AIMv2Error, OSError) as error:
        return [f"page: none, {error}"]
    return [f"page: {path}"]


def _unused(folder: Path, test: str, stash: pytest.Stash) -> Path:
    """A file's name for a test, which no other has in this run."""
    readable = re.sub(r"[^\w.-]+", "-", test)[-_LONGEST:]
    name = f"{readable}-{zlib.crc32(test.encode()):08x}"
    written = stash.setdefault(_WRITTEN, {})
    written[name] = count = written.get(name, 0) + 1
    return folder / (f"{name}.html" if count == 1 else f"{name}-{count}.html")
