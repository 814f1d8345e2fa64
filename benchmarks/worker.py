"""What runs in a process of its own: compare.py starts it, nobody else does.

    worker.py make FOLDER          write random weights, and what they should give
    worker.py serve SIDE FOLDER    load, then answer each line on stdin with one timed forward
    worker.py start SIDE FOLDER    import, load, run once, answer, end

Answers are JSON lines on stdout; whatever else is printed goes to stderr.
"""

from __future__ import annotations

import json
import re
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from cases import Case
from sides import SIDES, Task, split, their_aimv2, torch_part

NATIVE_SIZE_IN_CONFIG = 224  # the official config.json of the native model says so, and means none


def make(folder: Path) -> None:
    """Weights in transformers' layout, drawn by transformers, and its answer in float32."""
    import torch

    theirs, case = their_aimv2(), Case.read(folder)
    torch.manual_seed(0)
    vision = vars(case.vision) | {"image_size": case.vision.image_size or NATIVE_SIZE_IN_CONFIG}
    if case.has_text:
        config = theirs.Aimv2Config(
            vision_config=vision,
            text_config=vars(case.lit.text),
            projection_dim=case.lit.projection_dim,
        )
        theirs.Aimv2Model(config).save_pretrained(folder)
    else:
        theirs.Aimv2VisionModel(theirs.Aimv2VisionConfig(**vision)).save_pretrained(folder)
    with torch.inference_mode():
        reference = torch_part(Task(folder, case, "float32"), "eager")(
            *map(torch.from_numpy, case.inputs())
        )
    np.save(folder / "reference.npy", reference.numpy())


def serve(name: str, folder: Path, answers: TextIO) -> None:
    """The first answer is about loading."""
    library, dtype = split(name)
    case, start = Case.read(folder), time.perf_counter()
    loaded = SIDES[library].load(Task(folder, case, dtype))
    seconds = time.perf_counter() - start
    answer(answers, load_seconds=seconds, computes=loaded.computes)
    inputs = case.inputs()
    for _ in sys.stdin:
        start = time.perf_counter()
        features = loaded.forward(*inputs)
        seconds = time.perf_counter() - start
        np.save(folder / f"{name}.npy", features)
        answer(answers, seconds=seconds, peak_bytes=peak_bytes())


def start(name: str, folder: Path, answers: TextIO) -> None:
    """One embedding. The process that started this one knows when it did."""
    library, dtype = split(name)
    side, case = SIDES[library], Case.read(folder)
    inputs = case.inputs()
    times = [time.perf_counter()]
    side.imports()
    times.append(time.perf_counter())
    loaded = side.load(Task(folder, case, dtype))
    times.append(time.perf_counter())
    features = loaded.forward(*inputs)
    times.append(time.perf_counter())
    steps = ("import_seconds", "load_seconds", "first_forward_seconds")
    taken = (after - before for before, after in pairwise(times))
    answer(answers, **dict(zip(steps, taken, strict=True)), peak_bytes=peak_bytes())
    np.save(folder / f"{name}.npy", features)


def answer(answers: TextIO, **values: Any) -> None:
    print(json.dumps(values), flush=True, file=answers)


def peak_bytes() -> int | None:
    """The most memory this process ever had resident, mapped files included; Linux only."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return found and int(found[1]) * 1024


def main() -> None:
    what, *name, folder = sys.argv[1:]
    if what == "make":
        return make(Path(folder))
    answers, sys.stdout = sys.stdout, sys.stderr  # exporters chat
    return {"serve": serve, "start": start}[what](name[0], Path(folder), answers)


if __name__ == "__main__":
    main()
