"""Run the lessons from clean and keep their outputs, or check that those kept are still true.

    python notebooks/execute.py              all
    python notebooks/execute.py 01 04        some, by how their names begin
    python notebooks/execute.py --check      write nothing; say what is wrong

Wrong is an error, output on stderr, a cell that takes more than 20 s, a lesson that takes more than
60 s, a file of more than 2 MB, code that changed since its outputs were made, and text or pictures
that come out differently, except in cells with the tag "measured". Needs
pip install '.[notebooks]'.
"""

from __future__ import annotations

import argparse
import base64
import copy
import hashlib
import io
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aimv2_np.writing import written_whole
from header import SETUP, filled

FOLDER = Path(__file__).parent
CELL_SECONDS, LESSON_SECONDS = 20.0, 60.0
MOST_BYTES = 2_000_000
COARSE, MOST_APART = (48, 32), 24  # how finely pictures are compared, in pixels; and levels of 255
MEASURED = "measured"  # the tag of cells whose numbers depend on the machine
WIDGET = "application/vnd.jupyter.widget-view+json"


Notebook = dict[str, Any]

# ---------------------------------------------------------------------------- files


def lessons(folder: Path = FOLDER) -> list[Path]:
    """All lessons, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def read(file: Path) -> Notebook:
    """A notebook as nested dictionaries whose texts are single strings."""
    notebook: Notebook = json.loads(file.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = text(cell["source"])
    return notebook


def text(lines: str | list[str]) -> str:
    """A text that a notebook may hold as a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)


def title(notebook: Notebook) -> str:
    """The first line of the first cell."""
    return str(notebook["cells"][0]["source"].split("\n")[0].removeprefix("# "))


def write(notebook: Notebook, file: Path) -> None:
    """Write a whole file or none."""
    import nbformat

    content = nbformat.writes(nbformat.from_dict(notebook), version=4)
    with written_whole(file) as partial:
        partial.write_text(content.rstrip("\n") + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------- in one form


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """The cells that run."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def code_hash(notebook: Notebook) -> str:
    """A digest of all code, kept in the metadata when outputs are made."""
    code = json.dumps([cell["source"] for cell in code_cells(notebook)])
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def prepared(notebook: Notebook, file: Path, titles: dict[str, str]) -> Notebook:
    """The same lesson with its header and its first code cell as header.py has them."""
    made = copy.deepcopy(notebook)
    made["cells"][0]["source"] = filled(made["cells"][0]["source"], file, titles)
    code_cells(made)[0]["source"] = SETUP.rstrip("\n")
    return made


def normalised(notebook: Notebook) -> Notebook:
    """Without what differs from run to run: times, random ids, widgets that need their kernel."""
    cells = []
    count = 0
    for i, cell in enumerate(notebook["cells"]):
        tags = cell["metadata"].get("tags")
        made = {
            "cell_type": cell["cell_type"],
            "id": f"cell-{i:02d}",
            "metadata": {"tags": tags} if tags else {},
            "source": cell["source"].rstrip("\n"),
        }
        if cell["cell_type"] == "code":
            count += 1
            made |= {"execution_count": count, "outputs": _outputs(cell["outputs"], count)}
        cells.append(made)
    metadata = {
        "aimv2_np": {"code": code_hash({"cells": cells})},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _outputs(outputs: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for output in map(dict, outputs):
        last = made[-1] if made else {}
        if output["output_type"] == "stream" and output["name"] == last.get("name"):
            last["text"] += text(output["text"])  # the kernel sends a text in pieces
            continue
        if "data" in output:
            still = {kind: data for kind, data in output["data"].items() if kind != WIDGET}
            output["data"] = still if "image/png" in still else output["data"]
        if "execution_count" in output:
            output["execution_count"] = count
        made.append(output)
    return made


# ---------------------------------------------------------------------------- running


class Failed(Exception):
    """A cell raised, did not end, or ended the kernel."""


def run(notebook: Notebook, folder: Path = FOLDER) -> tuple[Notebook, dict[int, float]]:
    """The notebook with the outputs of a new kernel, and how long each code cell took, in s.

    Raises:
        Failed: a cell raised, did not end, or ended the kernel.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    node = nbformat.from_dict(copy.deepcopy(notebook))
    for cell in code_cells(node):
        cell["outputs"], cell["execution_count"] = [], None
    seconds: dict[int, float] = {}

    def begin(cell: Any, cell_index: int) -> None:
        seconds[cell_index] = -time.perf_counter()

    def end(cell: Any, cell_index: int, execute_reply: Any) -> None:
        seconds[cell_index] += time.perf_counter()

    client = NotebookClient(
        node,
        kernel_name="python3",
        timeout=int(10 * CELL_SECONDS),
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors; it warns that it talks by TCP
        on_cell_execute=begin,
        on_cell_executed=end,
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise Failed(f"cell {max(seconds)} raised {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise Failed(f"cell {max(seconds)} did not end in {10 * CELL_SECONDS:.0f} s") from error
    except DeadKernelError as error:
        raise Failed(f"cell {max(seconds)} ended the kernel") from error
    return normalised(node), seconds


# ---------------------------------------------------------------------------- what is wrong


def static_problems(file: Path, titles: dict[str, str]) -> list[str]:
    """What can be seen without running anything."""
    notebook = read(file)
    found = []
    if file.stat().st_size > MOST_BYTES:
        found.append(f"{file.stat().st_size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")
    if prepared(notebook, file, titles)["cells"] != notebook["cells"]:
        found.append("its header or first code cell is not what header.py makes")
    if notebook["metadata"].get("aimv2_np", {}).get("code") != code_hash(notebook):
        found.append("its code changed since its outputs were made")
    return found


def problems(stored: Notebook, fresh: Notebook, seconds: dict[int, float]) -> list[str]:
    """What is wrong with a run, and where the outputs kept differ from it."""
    found = [
        f"cell {i} took {s:.1f} s, more than {CELL_SECONDS:.0f}"
        for i, s in seconds.items()
        if s > CELL_SECONDS
    ]
    if sum(seconds.values()) > LESSON_SECONDS:
        found.append(f"it took {sum(seconds.values()):.0f} s, more than {LESSON_SECONDS:.0f}")
    for i, (old, new) in enumerate(zip(stored["cells"], fresh["cells"], strict=True)):
        if new["cell_type"] != "code":
            continue
        if any(output.get("name") == "stderr" for output in new["outputs"]):
            found.append(f"cell {i} writes to stderr: {words(new)[:200]}")
        if MEASURED in new["metadata"].get("tags", ()):
            continue
        if not alike(words(old), words(new)):
            found.append(f"cell {i} gives {words(new)[:300]!r}, kept is {words(old)[:300]!r}")
        elif not all(map(look_alike, pictures(old), pictures(new))):
            found.append(f"cell {i} draws another picture than the one that is kept")
    return found


def pictures(cell: dict[str, Any]) -> list[bytes]:
    """The PNG files among a code cell's outputs."""
    found = (output.get("data", {}).get("image/png") for output in cell["outputs"])
    return [base64.b64decode(text(png)) for png in found if png is not None]


def look_alike(one: bytes, other: bytes) -> bool:
    """Whether two pictures are the same but for how letters and edges are drawn."""
    import numpy as np
    from PIL import Image

    opened = [Image.open(io.BytesIO(png)).convert("RGB") for png in (one, other)]
    if max(abs(a - b) for a, b in zip(opened[0].size, opened[1].size, strict=True)) > 2:
        return False
    small = [np.asarray(image.resize(COARSE), np.int16) for image in opened]
    return bool(np.abs(small[0] - small[1]).max() <= MOST_APART)


def words(cell: dict[str, Any]) -> str:
    """What a code cell says in text, and which kinds of output it has."""
    said = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        kinds = " ".join(sorted(kind for kind in data if kind != "text/plain"))
        said.append(kinds + text(output.get("text", "")) + text(data.get("text/plain", "")))
    return "\n".join(said)


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def alike(a: str, b: str) -> bool:
    """Whether two texts are the same but for the last digits of broken numbers.

    Processors sum in different orders, and what is printed with three digits may then differ.
    """
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(x == y or _rounded_apart(x, y) for x, y in pairs)


def _rounded_apart(x: str, y: str) -> bool:
    broken = all("." in number or "e" in number for number in (x, y))
    return broken and abs(float(x) - float(y)) <= 0.01 * max(abs(float(x)), abs(float(y)))


# ---------------------------------------------------------------------------- command


def chosen(names: Sequence[str], folder: Path) -> list[Path]:
    """The lessons whose names begin as asked; all by default."""
    files = lessons(folder)
    unknown = [name for name in names if not any(f.name.startswith(name) for f in files)]
    if unknown or not files:
        raise SystemExit(f"no lesson {', '.join(unknown) or 'at all'} in {folder}")
    return [f for f in files if not names or f.name.startswith(tuple(names))]


def one(file: Path, titles: dict[str, str], *, check: bool) -> list[str]:
    """Check or execute a lesson; what is wrong with it."""
    before = read(file)
    found = static_problems(file, titles) if check else []
    lesson = before if check else prepared(before, file, titles)
    try:
        fresh, seconds = run(lesson, file.parent)
    except Failed as error:
        return [*found, str(error)]
    print(f"{file.name}: {sum(seconds.values()):.1f} s", flush=True)
    if not check:
        write(fresh, file)
        return problems(fresh, fresh, seconds) + static_problems(file, titles)
    return [*found, *problems(before, fresh, seconds)]


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """0 if all is well, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of file names; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing, say what is wrong")
    args = parser.parse_args(arguments)
    titles = {file.name: title(read(file)) for file in lessons(folder)}
    found = {f: one(f, titles, check=args.check) for f in chosen(args.names, folder)}
    for file, what in found.items():
        for line in what:
            print(f"{file.name}: {line}", file=sys.stderr)
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
