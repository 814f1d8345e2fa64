"""The verifier on ports with and without mistakes.

`PORT` seeds every mistake of the library in an independent port to PyTorch. Each must be located
where it is made, in every strand that has it, and named first; from final outputs alone, named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from aimv2_np.testing import random_models
from aimv2_np.trace import activation_names
from aimv2_np.verify import Candidate, Report, verify_cases
from aimv2_np.verify.locate import stream
from aimv2_np.verify.mistakes import every
from aimv2_np.verify.walk import names_of

from .port import Port
from .port_mistakes import PORT

pytestmark = pytest.mark.compare

FINAL = ("vision.norm", "text.norm", "vision.pooled", "text.pooled", "image_embeds", "text_embeds",
         "logits_per_image")  # fmt: skip
# Not in the port: what only another layout of the activations can show, and mistakes of numbers
# that this port's do not reach.
UNSEEDED = {
    "context-not-merged": "the port notes its context before it is merged",
    "pos-interpolate": "needs another grid of as many patches",
    "mask-added": "with the causal mask on top it changes nothing",
    "mask-inverted": "a query that sees nothing gives NaN in one library and a mean in another",
    "text-pool-largest-id": "the same as the right one: the end token has the largest id",
    "fp16-overflow": "the port's numbers are small",
    "fp16-saturated": "the port's numbers are small",
}  # fmt: skip


def kind_for(id: str) -> str:
    """The model on which a mistake shows."""
    if id.startswith("sincos") or id == "pos-transposed":
        return "native"
    if id in ("pos-slice", "pos-bilinear"):
        return "learned"
    return "deep" if id == "layers-sorted-as-text" else "lit"


def verified(kind: str, port: Port, names: tuple[str, ...] | None = None, **how: Any) -> Report:
    cases = random_models.cases(kind)
    activations = {case.name: port(case) for case in cases}
    if names is not None:
        activations = {
            case: {n: a for n, a in taps.items() if n in names}
            for case, taps in activations.items()
        }
    return verify_cases(random_models.make(kind), cases, Candidate("port", activations, **how))


def named(report: Report) -> list[tuple[str, list[str]]]:
    """For each finding the cause and what looks like it."""
    return [
        (f.causes[0].id if f.causes and f.causes[0].proved else "?", [c.id for c in f.alike])
        for f in report.findings
    ]


# Where a mistake shows if that is not at the first activation that it replaces.
HEADS = ("head-dim-64", "heads-halved", "heads-one")
LATER = {
    # q, k and v are compared with their heads merged, and merged they are right
    **dict.fromkeys(HEADS, "blocks.0.attn.scores"),
    # the patch norm comes out as it should, though for nothing
    "pos-before-norm": "embed",
    # seeded in block 1
    "block-skipped": "blocks.1.resid_post",
    "block-twice": "blocks.1.resid_post",
    # so many blocks are as they should be: 2 of 4, all but the last, the first, 0 and 1 of 12
    "layer-count": "blocks.2.resid_post",
    "penultimate": "blocks.3.resid_post",
    "layer-previous": "blocks.1.norm_1",
    "layers-tied": "blocks.1.norm_1",
    "layers-sorted-as-text": "blocks.2.norm_1",
}
# Seeded in the vision tower only.
ONE_TOWER = ("block-skipped", "block-twice", "no-positions", "pos-reversed")


def places(id: str) -> dict[str, str]:
    """Where a mistake shows first, by strand."""
    model, (mistake,) = random_models.make(kind_for(id)), every([id])
    found: dict[str, str] = {}
    for case in random_models.cases(kind_for(id)):
        for name in filter(mistake.at, names_of(model, case)):
            tower = name.partition(".")[0]
            found.setdefault(stream(name), f"{tower}.{LATER[id]}" if id in LATER else name)
    return {"image": found["image"]} if id in ONE_TOWER else found


def test_every_mistake_is_seeded_or_excused() -> None:
    raw = {m.id for m in every() if all(p.startswith("raw.") for p in m.patterns)}
    assert {m.id for m in every()} - raw == set(PORT) | set(UNSEEDED)


@pytest.mark.parametrize("id", sorted(PORT))
def test_mistakes_are_named(id: str) -> None:
    port = Port(random_models.make(kind_for(id)))
    PORT[id](port)
    report = verified(kind_for(id), port)
    assert report.exit_code == 1
    assert named(report) == [(id, [])] * len(report.findings)
    located = [(stream(f.wrong.name), f.wrong.name) for f in report.findings]
    assert located == list(places(id).items())
    if id not in HEADS:
        assert all(every([id])[0].at(name) for _, name in located)


# From final outputs alone: what computes the same is told with it.
SAME = {
    "silu-on-up": "gate-swap",
    "context-not-merged": "heads-not-merged",
}  # fmt: skip


@pytest.mark.parametrize("id", sorted(PORT))
def test_mistakes_are_named_from_final_outputs(id: str) -> None:
    port = Port(random_models.make(kind_for(id)))
    PORT[id](port)
    report = verified(kind_for(id), port, FINAL)
    if id == "projection-normed":
        assert report.ok  # only the length of the features differs, which nobody sees
        return
    assert report.exit_code == 1
    for first, alike in named(report):
        assert first == SAME.get(id, id)
        assert set(alike) <= set(SAME) | set(SAME.values())


@pytest.mark.parametrize("kind", ["native", "learned", "lit"])
@pytest.mark.parametrize("seed", range(5))
def test_a_right_port_is_right(kind: str, seed: int) -> None:
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        model, cases = random_models.make(kind, seed), random_models.cases(kind, seed)
        port = Port(model, dtype)
        candidate = Candidate("port", {case.name: port(case) for case in cases}, name)
        report = verify_cases(model, cases, candidate)
        assert report.ok, str(report)
        given = {"images": True, "texts": kind == "lit"}
        assert {t.name for t in report.results[0].taps} == set(
            activation_names(model.config, **given)
        )


def test_two_mistakes_at_once() -> None:
    port = Port(random_models.make("lit"))
    for id in ("gelu", "text-never-causal", "logit-scale-log"):
        PORT[id](port)
    found = [id for id, _ in named(verified("lit", port))]
    assert found == ["gelu", "gelu", "text-never-causal", "logit-scale-log"] or found == [
        "gelu", "text-never-causal", "gelu", "logit-scale-log",
    ]  # fmt: skip


def test_a_mistake_in_one_block() -> None:
    port = Port(random_models.make("learned"))
    block = port.vision.blocks[2]
    block.fc1, block.fc3 = block.fc3, block.fc1
    (finding,) = verified("learned", port).findings
    assert finding.wrong.name == "vision.blocks.2.mlp.gate"
    assert finding.causes[0].id == "gate-swap"
    assert finding.causes[0].mistakes[0].only == ("vision.blocks.2.",)


def test_a_port_that_computes_in_less() -> None:
    model, cases = random_models.make("learned"), random_models.cases("learned")
    port = Port(model, torch.bfloat16)
    report = verify_cases(model, cases, Candidate("p", {c.name: port(c) for c in cases}, "float32"))
    (finding,) = report.findings
    assert finding.dtype == "bfloat16" or finding.causes[0].id == "weights-bf16"


def test_an_unknown_mistake_is_not_named() -> None:
    port = Port(random_models.make("learned"))
    rng = np.random.default_rng(0)
    noise = torch.tensor(rng.standard_normal(48), dtype=torch.float32)
    port.add_mlp = lambda middle, out, normed, x, p: middle + out * (1 + noise / 2)
    (finding,) = verified("learned", port).findings
    assert finding.wrong.name == "vision.blocks.0.resid_post"
    assert not finding.causes or not finding.causes[0].proved
