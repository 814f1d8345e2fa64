"""Make the landing page's table of lessons, README.md, and its small pictures, from the lessons.

    python notebooks/thumbnails.py

A lesson's title, question, time and aims stand in its first cell; its thumbnail is one of its own
pictures. Run it after execute.py. Needs Pillow alone.
"""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from aimv2_np.writing import written_whole
from execute import FOLDER, code_cells, lessons, read, text, title

__all__ = ["About", "about", "main", "page", "thumbnail"]

SIZE = 200, 140  # pixels, the most across and down
BEGIN, END = "<!-- lessons -->", "<!-- end of lessons -->"

# Of each lesson the picture whose cell holds these words, and what it shows.
SHOWN = {
    "00": ("principal components of patch features", "patch features as colours"),
    "01": ("viz.patches(pixels", "a picture cut into numbered patches"),
    "02": ("the learned table", "how alike the positions of patches are"),
    "03": ("the stream after the last block", "the length of each patch's vector"),
    "04": ("patch=27)", "whom a patch at a cat's face attends to"),
    "05": ("one neuron in each row", "the patches that some neurons answer to"),
    "06": ("by what leaves the last block", "the most similar patches of two pictures"),
    "07": ("viz.pooling(", "what each pooling head looks at"),
    "08": ("token that looks", "which token attends to which"),
    "09": ('pictures_by_texts(p, "probability")', "thirty pictures and thirty names"),
    "10": ("viz.roofline(", "products below a machine's two limits"),
    "11": ("scores at one time", "how many scores attention holds"),
    "12": ('"allowed": [', "where the error of a wrong port begins"),
    "13": ("probability of a drawing", "where a probe finds the drawing of a scene"),
    "14": ("GB of weights", "the memory of each checkpoint's weights"),
}


@dataclass(frozen=True)
class About:
    """What the first cell of a lesson says."""

    file: str
    title: str
    question: str
    time: str
    needs: str
    aims: str

    @property
    def number(self) -> str:
        """Its two digits."""
        return self.file[:2]


def about(file: Path) -> About:
    """Read a lesson's first cell.

    Raises:
        ValueError: a part is missing.
    """
    notebook = read(file)
    words = " ".join(notebook["cells"][0]["source"].split())

    def found(pattern: str) -> str:
        match = re.search(pattern, words)
        if match is None:
            raise ValueError(f"{file.name}: its first cell holds nothing like {pattern}")
        return match[1]

    return About(
        file.name,
        title(notebook),
        found(r"\*\*(.+?)\*\*"),
        found(r"Time: (\d+ minutes)").replace("minutes", "min"),
        found(r"You need: (.+?)\. (?:[A-Z]|$)"),
        found(r"Afterwards you can (.+?)\. (?:[A-Z]|\[|<!--|$)"),
    )


def picture(file: Path) -> bytes:
    """The PNG file that stands for a lesson.

    Raises:
        ValueError: no picture comes from a cell with the words in SHOWN.
    """
    words, _ = SHOWN[file.name[:2]]
    for cell in code_cells(read(file)):
        for output in cell["outputs"]:
            if words in cell["source"] and "image/png" in output.get("data", {}):
                return base64.b64decode(text(output["data"]["image/png"]))
    raise ValueError(f"{file.name}: no picture comes from a cell that holds {words!r}")


def thumbnail(png: bytes) -> bytes:
    """A small PNG file of a large one."""
    image = PIL.Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail(SIZE, PIL.Image.Resampling.LANCZOS)
    made = io.BytesIO()
    image.quantize(64).save(made, format="PNG", optimize=True)
    return made.getvalue()


def row(lesson: About) -> str:
    """The lesson's line of the table."""
    cells = (
        f"![{SHOWN[lesson.number][1]}](thumbnails/{lesson.number}.png)",
        f"**[{lesson.title}]({lesson.file})**<br>{lesson.question}",
        f"{lesson.time}. Needs {lesson.needs}.",
        lesson.aims,
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def page(before: str, rows: list[str]) -> str:
    """README.md with another table between its marks.

    Raises:
        ValueError: it has no marks.
    """
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: expected {BEGIN} and {END}")
    headings = "| | lesson | time, and what it needs | afterwards you can |"
    table = [headings, "|---|---|---|---|", *rows]
    return "\n".join([head + begin, "", *table, "", end + tail])


def main(folder: Path = FOLDER) -> None:
    """Write the thumbnails and the table."""
    readme, small = folder / "README.md", folder / "thumbnails"
    small.mkdir(exist_ok=True)
    for file in lessons(folder):
        _write(small / f"{file.name[:2]}.png", thumbnail(picture(file)))
    rows = [row(about(file)) for file in lessons(folder)]
    _write(readme, page(readme.read_text(encoding="utf-8"), rows).encode())


def _write(file: Path, content: bytes) -> None:
    with written_whole(file) as partial:
        partial.write_bytes(content)


if __name__ == "__main__":
    main()
