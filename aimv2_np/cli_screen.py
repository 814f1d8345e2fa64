"""What the command line puts on a screen: text that any encoding can take, bars, tables, notes.

Results go to standard output, all else to standard error. Nothing is coloured. What a stream's
encoding cannot show is replaced, so that no label and no file name can end a run; width is that of
the terminal, and without one nothing is cut.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from .errors import AIMv2Error

__all__ = [
    "PROGRAM",
    "bar",
    "columns",
    "complain",
    "cut",
    "echo",
    "echo_json",
    "fields",
    "flush",
    "is_terminal",
    "note",
    "paragraph",
    "printable",
    "ranking",
    "table",
    "ticking",
    "warnings_as_lines",
]

PROGRAM = "aimv2-np"
UNBOUNDED = 100_000  # columns where there is no terminal: nothing needs to be cut
READABLE = 100  # columns beyond which a paragraph is hard to read

# What our own texts use beyond ASCII, for streams that cannot show it.
_ASCII = str.maketrans(
    {"×": "x", "…": "...", "–": "-", "—": "-", "→": "->", "·": "-", "█": "#", "é": "e"}
)
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_east_asian = unicodedata.east_asian_width


# ---------------------------------------------------------------------------- writing


def printable(text: str) -> str:
    """The text on one line, with control characters (a tab, an escape sequence) spelled out."""
    joiner = "\u200d"  # between the parts of an emoji
    return "".join(c if c.isprintable() or c == joiner else ascii(c)[1:-1] for c in text)


def _writable(text: str, stream: TextIO) -> str:
    """The text with what the stream's encoding lacks replaced."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII)
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def echo(text: str = "") -> None:
    """Write a line to standard output.

    Raises:
        BrokenPipeError: nobody reads it any more.
        AIMv2Error: it cannot be written.
    """
    if sys.stdout is None:  # closed by the caller
        return
    try:
        print(_writable(text, sys.stdout))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AIMv2Error(f"cannot write to standard output: {error.strerror}") from error


def flush() -> None:
    """Make sure that standard output has been written; raises as `echo`."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AIMv2Error(f"cannot write to standard output: {error.strerror}") from error


def echo_json(value: Any) -> None:
    """Write a value as JSON, in ASCII where the stream is not UTF-8."""
    unicode = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "") == "utf8"
    echo(json.dumps(value, indent=2, ensure_ascii=not unicode, allow_nan=False))


def note(text: str, *, quiet: bool = False) -> None:
    """Tell the user something that is no result."""
    if not quiet and sys.stderr is not None:
        with suppress(OSError):
            print(_writable(text, sys.stderr), file=sys.stderr, flush=True)


def complain(kind: str, text: str) -> None:
    """Write an error or a warning; the further lines of a long one are indented."""
    if sys.stdout is not None:
        with suppress(OSError, ValueError):  # what was printed before comes first
            sys.stdout.flush()
    note(f"{PROGRAM}: {kind}: " + "\n  ".join(text.splitlines()))


@contextmanager
def ticking(*, quiet: bool) -> Iterator[Callable[[str], object]]:
    """A line on standard error, where somebody watches, that says what is being done."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    silent = quiet or not is_terminal(sys.stderr)
    form = "{elapsed} {n} steps: {desc}"
    with tqdm(disable=silent, bar_format=form, leave=False) as bar:

        def tick(what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.update()

        yield tick


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show warnings as one line each, without the line of code that they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain("warning", str(message))

    with warnings.catch_warnings():
        if not sys.warnoptions:  # python -W and PYTHONWARNINGS stay in force
            from .errors import AIMv2Warning

            warnings.simplefilter("default", AIMv2Warning)
        warnings.showwarning = show
        yield


# ---------------------------------------------------------------------------- widths


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person watches the stream."""
    return stream is not None and not stream.closed and stream.isatty()


def columns() -> int:
    """The width to fill: the terminal's, or COLUMNS; unbounded where there is neither."""
    asked = os.environ.get("COLUMNS", "")
    if not is_terminal(sys.stdout) and not (asked.isdecimal() and int(asked)):
        return UNBOUNDED
    return max(20, shutil.get_terminal_size().columns)


def _width(text: str) -> int:
    """Columns that a text takes: two for East Asian wide characters, none for combining marks."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (_east_asian(c) in "WF")
        for c in text
    )


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns, with an ellipsis where something was cut off."""
    if _width(text) <= width:
        return text
    kept = ""
    for c in text:
        if _width(kept + c) > width - 1:
            break
        kept += c
    return kept.rstrip() + "…"


def _pad(text: str, width: int, right: bool = False) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


# ---------------------------------------------------------------------------- drawing


def bar(fraction: float, width: int) -> str:
    """A bar of up to `width` columns, in eighths of a column; of # where blocks cannot be shown."""
    if sys.stdout is not None and _writable(_EIGHTHS, sys.stdout) != _EIGHTHS:
        return "#" * round(fraction * width)
    full, eighth = divmod(round(fraction * width * 8), 8)
    return "█" * full + (_EIGHTHS[eighth] if eighth else "")


def ranking(rows: Sequence[tuple[str, float]], indent: str = "  ") -> list[str]:
    """Labels with their probabilities as lines of a table with bars."""
    number = len("100.0 %")
    free = columns() - len(indent) - number - 4
    shown = [printable(label) or "(empty text)" for label, _ in rows]
    width = min(max(map(_width, shown)), max(8, free - 12))
    longest = max(0, min(30, free - width))
    return [
        f"{indent}{_pad(cut(label, width), width)}  {100 * p:5.1f} %  {bar(p, longest)}".rstrip()
        for label, (_, p) in zip(shown, rows, strict=True)
    ]


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "", drop: Sequence[str] = ()
) -> list[str]:
    """Lines of a table; the columns named in `drop` go, one by one, where it is too wide.

    `right` has one character per column, ">" for those that are aligned to the right.
    """
    cells = [list(header), *map(list, rows)]
    widths = [max(_width(row[j]) for row in cells) for j in range(len(header))]
    kept = list(range(len(header)))
    for name in drop:
        if sum(widths[j] + 2 for j in kept) - 2 > columns():
            kept.remove(header.index(name))
    aligned = right.ljust(len(header))
    return [
        "  ".join(_pad(row[j], widths[j], aligned[j] == ">") for j in kept).rstrip()
        for row in cells
    ]


def paragraph(text: str, indent: str = "", first: str | None = None) -> str:
    """The text wrapped at the terminal's width; paths and names stay whole."""
    return textwrap.fill(
        text,
        min(columns(), READABLE),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def fields(rows: Iterable[tuple[str, str]], indent: str = "  ") -> list[str]:
    """Names and values as lines, values below each other and wrapped."""
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    space = indent + " " * (width + 2)
    return [
        paragraph(value, space, first=f"{indent}{name:<{width}}  ") if value else indent + name
        for name, value in listed
    ]
