"""A result as a Markdown page. Ratios are the first side's time to each side's."""

from __future__ import annotations

from typing import Any

__all__ = ["name_of", "page", "share", "side_names"]

Result = dict[str, Any]


def name_of(result: Result) -> str:
    """What the result's files are called; forwards of images need no word for it."""
    what = (
        "-start" if is_start(result) else {"vision": ""}.get(result["part"], f"-{result['part']}")
    )
    return f"{result['model']}{what}-{leader(result)['dtype']}-b{result['batch']}"


def page(result: Result) -> str:
    """The table, and below it what one must know to read it."""
    table, about = (start_table, about_start) if is_start(result) else (table_of, about_forward)
    lines = [
        f"# {heading(result)}\n",
        *table(result),
        "",
        *about(result),
        "",
        circumstances(result),
    ]
    return "\n".join([*lines, ""])


def is_start(result: Result) -> bool:
    return bool(result["kind"] == "start")


def leader(result: Result) -> dict[str, Any]:
    """The side that all are compared with: the first."""
    return dict(next(iter(result["sides"].values())))


def heading(result: Result) -> str:
    if is_start(result):
        return f"From process start to the first embedding, {result['model']}"
    part, batch = result["part"], result["batch"]
    what = {
        "vision": f"{batch} image{'s' * (batch > 1)}",
        "text": f"{batch} prompt{'s' * (batch > 1)}",
        "lit": f"{batch} image{'s' * (batch > 1)} and 64 prompts to logits",
    }[part]
    return f"Forward pass of {result['model']}, {leader(result)['dtype']}, {what}"


def side_names(result: Result) -> dict[str, str]:
    """Each side's title, with the dtype where they differ."""
    sides = result["sides"].items()
    mixed = len({side["dtype"] for _, side in sides}) > 1
    return {key: side["title"] + f", {side['dtype']}" * mixed for key, side in sides}


def share(result: Result, side: dict[str, Any]) -> float:
    """GFLOP/s by the median, as a part of the machine's peak: of the better one of two."""
    peak = max(result["peak_gflops"][side["dtype"]].values())
    return float(result["gflop"] / side["median_seconds"] / peak)


# ---------------------------------------------------------------------------- tables


def table_of(result: Result) -> list[str]:
    first, names = leader(result)["median_seconds"], side_names(result)
    head = [
        *("", "median s", "minimum s", f"{leader(result)['title']} takes × its time", "GFLOP/s"),
        *("of the peak", "multiplies in", "off by", "first s", "load s", "peak memory"),
    ]
    rows = []
    for key, side in result["sides"].items():
        median = side["median_seconds"]
        rows.append([
            names[key],
            f"{median:.3f}",
            f"{side['minimum_seconds']:.3f}",
            f"{first / median:.2f}",
            f"{result['gflop'] / median:.0f}",
            f"{share(result, side):.0%}",
            side["computes"],
            off(side),
            f"{side['first_forward_seconds']:.2f}",
            f"{side['load_seconds']:.2f}",
            memory(side),
        ])  # fmt: skip
    return markdown(head, rows)


def start_table(result: Result) -> list[str]:
    first, names = leader(result)["median_seconds"], side_names(result)
    head = [
        *("", "median s", "minimum s", f"{leader(result)['title']} takes × its time", "Python s"),
        *("import s", "load s", "first s", "peak memory", "× its weights", "off by"),
    ]
    rows = []
    for key, side in result["sides"].items():
        steps = ("python", "import", "load", "first_forward")
        over = side["peak_over_weights"]
        rows.append([
            names[key],
            f"{side['median_seconds']:.2f}",
            f"{side['minimum_seconds']:.2f}",
            f"{first / side['median_seconds']:.2f}",
            *(f"{side[f'{step}_seconds']:.2f}" for step in steps),
            memory(side),
            f"{over:.2f}" if over else "unknown",
            off(side),
        ])  # fmt: skip
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def memory(side: dict[str, Any]) -> str:
    return f"{side['peak_bytes'] / 1e9:.2f} GB" if side["peak_bytes"] else "unknown"


def off(side: dict[str, Any]) -> str:
    """The error, and the cosine where a cosine says something."""
    cosine = "" if side["dtype"] == "float32" else f" (cosine {side['cosine']:.4f})"
    return f"{side['error']:.0e}{cosine}"


# ---------------------------------------------------------------------------- what it means


def about_forward(result: Result) -> list[str]:
    peaks = "; ".join(
        f"{dtype} {measured['before']:.0f} GFLOP/s before the rounds, {measured['after']:.0f} after"
        for dtype, measured in result["peak_gflops"].items()
    )
    return [
        f"{turns(result)}, after one forward to warm up. A forward has {result['gflop']:.1f} "
        f"GFLOP; the model has {result['parameters'] / 1e6:.0f} M parameters. Features are off by "
        "so much of a vector's length from transformers' in float32.\n",
        f"The peak, on all cores: {peaks}. Memory is read at "
        f"{result['bandwidth_gb_per_second']:.1f} GB/s.",
    ]


def about_start(result: Result) -> list[str]:
    return [
        f"{turns(result)}, each a new process, after one that warms the caches of files and of "
        "compiled code. One preprocessed image, whose embedding is off by so much of its length "
        "from transformers' in float32. Weights are counted in the dtype they are computed in."
    ]


def turns(result: Result) -> str:
    count = result["rounds"]
    return f"{count} round{'s' * (count > 1)}, alternating"


def circumstances(result: Result) -> str:
    m = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in m["packages"].items())
    return (
        f"{m['cpu']} ({', '.join(m['instruction_sets'])}), {m['cores']} cores, {m['system']}; load "
        f"average at the start {result['load_average_at_start']:.2f}. Python {m['python']} "
        f"({m['blas']}), {versions}. {result['date']}."
    )
