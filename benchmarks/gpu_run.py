"""The order of events: steps one after another in a process of their own, results on disk at once.

A kernel that goes astray takes its process with it: the device refuses whatever is asked of it
afterwards. So the steps run in a child; where it ends, the parent writes down why, and starts
another with the steps that are left. A step that hangs is ended by a watchdog.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_device import Bench, Dry, Gpu
from gpu_plan import DRY, FULL, Plan, Step, steps

__all__ = ["Results", "supervise", "work"]

Record = dict[str, Any]
HANGS = 3, 60  # a step may take so many times its guess, and seconds more
HUNG = 17  # the exit status of a child that the watchdog ended
GRACE = 10  # seconds beyond the end for a child to end by itself


@dataclass(frozen=True)
class Results:
    """A file of JSON lines, to which records are added."""

    path: Path
    dry: bool

    def add(self, record: Record) -> None:
        """On disk when this returns."""
        line = json.dumps({**record, "dry": self.dry, "at": round(time.time(), 1)})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Record]:
        """All records; a last line that was cut off is none."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records

    def step(self, name: str, state: str, **more: Any) -> None:
        """What became of a step."""
        self.add({"kind": "step", "name": name, "state": state, **more})

    def states(self, since: int = 0) -> dict[str, str]:
        """The last state of each step, of all records or of the later ones."""
        return {r["name"]: r["state"] for r in self.read()[since:] if r["kind"] == "step"}


def planned(plan: Plan, only: Sequence[str], results: Results) -> list[Step]:
    """Steps that are asked for and not done."""
    chosen = [s for s in steps(plan) if not only or any(s.name.startswith(o) for o in only)]
    done = {name for name, state in results.states().items() if state == "done"}
    return [step for step in chosen if step.name not in done]


# ---------------------------------------------------------------------------- the parent


def supervise(results: Results, only: Sequence[str], until: float, device: int) -> None:
    """All steps, in as many processes as that takes, until the time is over."""
    plan = DRY if results.dry else FULL
    todo = planned(plan, only, results)
    results.add({"kind": "plan", "cases": cases(plan)})
    while todo:
        before = len(results.read())
        code = _child(results, [step.name for step in todo], until, device)
        states = results.states(before)
        if not states:
            raise SystemExit(f"nothing could be measured: {_why(code)}")
        for name in (name for name, state in states.items() if state == "begun"):
            results.step(name, "failed", why=_why(code))
        todo = [step for step in todo if step.name not in states]


def cases(plan: Plan) -> list[Record]:
    """Every forward that the plan has, and the step it belongs to."""
    return [
        {"step": group.name, "model": group.model, "dtype": group.dtype, "batch": batch,
         "patches": group.case(batch).patches}
        for group in (*plan.goals, *plan.others) for batch in group.batches
    ]  # fmt: skip


def _child(results: Results, names: list[str], until: float, device: int) -> int | None:
    """A process for these steps; its exit status, None if it had to be ended."""
    command = [sys.executable, str(Path(__file__).with_name("gpu.py")), "work",
               str(results.path), "--until", str(until), "--device", str(device),
               *(["--dry-run"] if results.dry else []), "--steps", *names]  # fmt: skip
    with subprocess.Popen(command) as child:
        try:
            return child.wait(timeout=max(0, until - time.time()) + GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            return None


def _why(code: int | None) -> str:
    if code is None:
        return "the time was over"
    return "it hung" if code == HUNG else f"its process ended with exit status {code}"


# ---------------------------------------------------------------------------- the child


def work(results: Results, names: Sequence[str], until: float, device: int) -> int:
    """Steps in this process, until one fails; the exit status."""
    bench: Bench = Dry(until) if results.dry else Gpu(device, until)
    plan = DRY if results.dry else FULL
    by_name = {step.name: step for step in steps(plan)}
    for step in (by_name[name] for name in names):
        left = until - time.time()
        if step.seconds > left:
            why = f"it takes about {step.seconds:.0f} s, {max(left, 0):.0f} s were left"
            results.step(step.name, "left out", why=why)
        elif not _done(bench, plan, results, step, left):
            return 1
    return 0


def _done(bench: Bench, plan: Plan, results: Results, step: Step, left: float) -> bool:
    """Run a step; whether it went through."""
    start = time.perf_counter()
    results.step(step.name, "begun")
    print(f"{step.name} ...", end=" ", flush=True)
    factor, more = HANGS
    watchdog = _watchdog(results, step, min(factor * step.seconds + more, left + GRACE / 2))
    try:
        for record in _function(step.function)(bench, plan, *step.arguments):
            results.add({"step": step.name, **record})
        bench.wait()  # or an error shows in the next step
        bench.free()
    except Exception as error:
        traceback.print_exc()
        results.step(step.name, "failed", why=f"{type(error).__name__}: {error}"[:1000])
        return False
    finally:
        watchdog.cancel()
    seconds = time.perf_counter() - start
    results.step(step.name, "done", seconds=round(seconds, 1), guess=step.seconds)
    print(f"{seconds:.1f} s", flush=True)
    return True


def _watchdog(results: Results, step: Step, seconds: float) -> threading.Timer:
    """Ends this process if the step takes longer."""

    def end() -> None:
        results.step(step.name, "failed", why=f"it had not ended after {seconds:.0f} s")
        os._exit(HUNG)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def _function(name: str) -> Callable[..., Any]:
    """Of gpu_checks, which needs no torch unless it is used, or gpu_speed."""
    import gpu_checks
    import gpu_speed

    function: Callable[..., Any] = getattr(gpu_checks, name, None) or getattr(gpu_speed, name)
    return function
