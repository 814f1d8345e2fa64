"""The commands about ports: verify, verify inputs, verify export."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cli_files import check_target
from .cli_grammar import UsageError
from .cli_model import where
from .cli_screen import echo, echo_json, note, ticking
from .verify import reference
from .verify.inputs import Inputs, make_inputs, read_inputs, write_inputs

__all__ = ["LIBRARIES", "export", "inputs", "verify"]

LIBRARIES = ("transformers", "timm", "original")  # candidates that are built and run here


def verify(args: argparse.Namespace) -> int:
    """Compare a port with a model; 0 where it matches, 1 where it differs, 2 where neither."""
    from .verify.asserts import report_on

    if (args.candidate is None) == (args.run is None):
        raise UsageError("give the port: either --candidate or --run")
    if args.names is not None and args.candidate in LIBRARIES:
        raise UsageError(f"--names is for files and programs: {args.candidate} is read as it is")
    if args.timeout is not None and args.run is None:
        raise UsageError("--timeout is for --run")
    if args.force and args.html is None:
        raise UsageError("--force is for --html")
    html, force = args.html, args.force
    page = None if html is None else check_target(html, [".html"], force=force, option="--html")
    quirks = None if args.quirks is None else list(args.quirks)
    model = reference(args.model, quirks=quirks, **where(args))
    given = make_inputs(model) if args.inputs is None else read_inputs(args.inputs)
    candidate = _candidate(args, model, given)
    with ticking(quiet=args.quiet) as tick:
        report = report_on(
            model, candidate, inputs=given, dtype=args.dtype, names=args.names,
            require=args.require, tick=tick,
        )  # fmt: skip
    if page is not None:
        from .verify.html import write_page

        write_page(page, report)
        note(f"{page}: the report with curves and pictures", quiet=args.quiet)
    if args.json:
        echo_json(report.to_json())
    else:
        echo(str(report))
    return report.exit_code


def _candidate(args: argparse.Namespace, model: Any, given: Inputs) -> Any:
    """What --candidate or --run names: a live model's activations, or a file of them."""
    names, dtype = args.names, args.dtype
    if args.run is not None:
        from .verify.adapters import program

        return program.candidate(args.run, given, names=names, dtype=dtype, timeout=args.timeout)
    if args.candidate in LIBRARIES:
        build: Callable[..., Any] = _library(args.candidate)
        return build(model, given.cases, dtype or "float32")
    if Path(args.candidate).suffix == ".onnx":
        from .verify.adapters import onnx

        return onnx.candidate(args.candidate, given.cases, dtype, names=names)
    return Path(args.candidate)


def _library(name: str) -> Any:
    from importlib import import_module

    return import_module(f".verify.adapters.{name}", __package__).candidate


def inputs(args: argparse.Namespace) -> int:
    """Write inputs for a port to run on."""
    path = check_target(args.out, [".safetensors"], force=args.force)
    model = reference(args.model, **where(args))
    made = make_inputs(model)
    write_inputs(path, made, model.name)
    shapes = {
        case.name: {
            name: list(array.shape)
            for name in ("pixel_values", "input_ids", "attention_mask")
            if (array := getattr(case, name)) is not None
        }
        for case in made.cases
    }
    if args.json:
        echo_json({"file": str(path), "cases": shapes, "images": len(made.sources)})
        return 0
    echo(f"{path}: inputs for {model.name}")
    for case, arrays in shapes.items():
        echo(f"  {case}: {', '.join(f'{n} {tuple(s)}' for n, s in arrays.items())}")
    echo(f"  raw: {len(made.sources)} images, {len(made.texts)} texts")
    note(
        "write activations under the same case, such as "
        f'"{made.cases[0].name}/vision.blocks.0.norm_1"; aimv2-np trace {args.model} --list '
        "shows the names",
        quiet=args.quiet,
    )
    return 0


def export(args: argparse.Namespace) -> int:
    """Write a conformance pack that a project in any language can vendor."""
    from .hub_errors import readable
    from .verify import conformance

    folder = Path(args.out)
    conformance.export(reference(args.model, **where(args)), folder, force=args.force)
    size = sum(path.stat().st_size for path in folder.iterdir())
    if args.json:
        echo_json({"folder": str(folder), "bytes": size})
    else:
        echo(f"{folder}: {readable(size)}; README.md says how to use it")
    return 0
