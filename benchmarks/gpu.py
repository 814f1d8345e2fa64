"""The CUDA plug-in on a GPU: is it right, how fast is it, beside torch and cuDNN. One command:

    pip install torch==2.13.0 transformers==5.23.0 '.[test]' './backends/cupy[cuda13]'
    python benchmarks/gpu.py                       # 9 minutes; writes gpu.jsonl and gpu.md
    python benchmarks/gpu.py report gpu.jsonl      # the page again, from the results

Each result is on disk as soon as it exists. The same command again goes on with the steps that are
not done. README.md explains the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from gpu_device import name_of
from gpu_plan import DRY, FULL, steps
from gpu_report import page
from gpu_run import Results, supervise, work

from aimv2_np.errors import BackendUnavailable

RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run", help="measure (what happens without a command)")
    run.add_argument("--minutes", type=float, default=9, help="what takes longer is left out")
    run.add_argument("--out", type=Path, default=RESULTS, metavar="FILE.jsonl")
    run.add_argument("--only", nargs="+", default=[], metavar="STEP",
                     help="steps whose names begin so: "
                     + "; ".join(step.name for step in steps(FULL)))  # fmt: skip
    run.add_argument("--device", type=int, default=0, help="index of the GPU")
    run.add_argument("--dry-run", action="store_true",
                     help="no GPU: all steps, in small, with made-up times")  # fmt: skip
    report = commands.add_parser("report", help="the page of results, to standard output")
    report.add_argument("results", type=Path, metavar="FILE.jsonl")
    child = commands.add_parser("work", help="some steps; the first command starts this itself")
    child.add_argument("out", type=Path)
    child.add_argument("--steps", nargs="+", required=True)
    child.add_argument("--until", type=float, required=True)
    child.add_argument("--device", type=int, default=0)
    child.add_argument("--dry-run", action="store_true")
    return parser


def refused(results: Results, device: int) -> str | None:
    """Why nothing can be added to these results, if so."""
    if not results.dry:
        try:
            here = name_of(device)
        except BackendUnavailable as error:
            return str(error)
    for record in results.read():
        if record["dry"] != results.dry:
            return f"{results.path} is of {'a dry' if record['dry'] else 'a true'} run: other --out"
        if record["kind"] == "machine" and not results.dry and record["name"] != here:
            return f"{results.path} is of {record['name']}, this is {here}: pass another --out"
    return None


def run(arguments: argparse.Namespace) -> None:
    results = Results(arguments.out, arguments.dry_run)
    if reason := refused(results, arguments.device):
        raise SystemExit(reason)
    names = [step.name for step in steps(DRY if results.dry else FULL)]
    unknown = [o for o in arguments.only if not any(name.startswith(o) for name in names)]
    if unknown:
        raise SystemExit(f"no step is called {', '.join(unknown)}; there are {', '.join(names)}")
    results.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        until = time.time() + 60 * arguments.minutes
        supervise(results, arguments.only, until, arguments.device)
    finally:
        text = page(results.read())
        results.path.with_suffix(".md").write_text(text, encoding="utf-8")
        print(text)


def main() -> None:
    given = sys.argv[1:]
    if not given or given[0] not in ("run", "report", "work", "-h", "--help"):
        given = ["run", *given]
    arguments = parser().parse_args(given)
    if arguments.command == "report":
        if not arguments.results.exists():
            raise SystemExit(f"{arguments.results} does not exist")
        print(page(Results(arguments.results, dry=False).read()))
    elif arguments.command == "work":
        results = Results(arguments.out, arguments.dry_run)
        code = work(results, arguments.steps, arguments.until, arguments.device)
        sys.stdout.flush()
        os._exit(code)  # a device in an error may never let the libraries go
    else:
        run(arguments)


if __name__ == "__main__":
    main()
