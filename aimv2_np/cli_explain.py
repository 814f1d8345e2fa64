"""The command `aimv2-np explain`: a page about one image."""

from __future__ import annotations

import argparse

from .cli_files import check_target
from .cli_model import check_before_loading, given_texts, loaded
from .cli_screen import echo_json, note, ticking
from .explain import explain as explained
from .hub_errors import readable
from .pipelines import LiTPipeline

__all__ = ["explain"]


def explain(args: argparse.Namespace) -> int:
    """Write the page; with --json print its numbers."""
    texts = given_texts(args) or None
    target = check_target(args.out, (".html",), force=args.force)
    args.images = [args.image]
    check_before_loading(args, all_or_nothing=True, texts=texts is not None)
    model = loaded(args)
    with ticking(quiet=args.quiet) as tick:
        found = explained(
            model, args.image, texts, prompt=args.prompt, blocks=args.blocks, tick=tick
        )
        tick("the page")
        check_target(args.out, (".html",), force=args.force)
        found.write(target)
    size = target.stat().st_size
    if args.json:
        echo_json({"page": str(target), "bytes": size, **found.to_json()})
    note(f"wrote {target}: {readable(size)}; open it in a browser", quiet=args.quiet)
    if texts is None and isinstance(model, LiTPipeline):
        note("without --texts it shows no probabilities", quiet=args.quiet)
    return 0
