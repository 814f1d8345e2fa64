"""Train the embedded model: the vision encoder first, then, with its trunk frozen, the text tower.

    python train.py                    # into runs/emoji-lit
    python train.py                    # after an interruption: goes on from the last checkpoint

Step one trains the vision encoder on what supervision.py says, mostly on a random half of each
picture's patches, which halves the cost and hides as occlusion does. Step two is LiT (arXiv
2111.07991): the trunk's patch features are computed once, and the text tower, the pooling head and
the projections learn to match each picture with its caption among those of other emoji, and each
caption's vector is drawn to the one that step one found for its emoji.
Forward and backward run in bfloat16 where the processor or GPU has instructions for it, else in
float32; weights, optimiser state and their average are float32.
"""

import argparse
import copy
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import captions
import render
import tokenizer
from aimv2_np.machine import instruction_sets
from aimv2_np.pipelines import PROMPT, frame
from data import Drawings, shuffled_classes, validation
from emoji import all_emoji
from model import LiT, Sizes, VisionTower
from muon import Muon
from paths import RUN
from scores import ranks
from supervision import Captions

CHECKPOINT_EVERY = 200  # steps


@dataclass(frozen=True)
class Vision:
    """Step one."""

    steps: int = 6000
    batch: int = 128
    kept_patches: int = 32  # of 64 …
    whole_from: float = 0.9  # … until this part of the steps, then all
    matrix_rate: float = 0.02  # learning rates: Muon's, for the matrices of the blocks,
    rate: float = 1.5e-3  # AdamW's, for all else of the encoder,
    caption_rate: float = 4.5e-3  # and for what step one alone uses
    warmup: int = 100  # steps
    cooldown: float = 0.4  # the part of the steps in which the rates fall to 0, linearly
    drop_path: float = 0.05


@dataclass(frozen=True)
class Text:
    """Step two."""

    steps: int = 900
    batch: int = 411  # emoji, all different: a quarter of them
    rounds: int = 16  # pictures of each emoji whose patch features are kept
    rate: float = 2e-3
    vision_rate: float = 5e-5  # pooling head and projection
    warmup: int = 100
    cooldown: float = 0.7
    smoothing: float = 0.1  # of the labels, as in step one: keywords are shared by many emoji


def seed(number: int) -> None:
    """All generators that training draws from."""
    torch.manual_seed(number)
    random.seed(number)


def schedule(step: int, plan: Vision | Text) -> float:
    """The factor on the learning rates: up, level, down to 0."""
    left = 1 - step / plan.steps
    return min(1.0, (step + 1) / plan.warmup, left / plan.cooldown)


class Rates:
    """Several optimisers as one, each group's learning rate following the schedule."""

    def __init__(self, *optimisers: torch.optim.Optimizer):
        self.optimisers = optimisers
        self.full = [[group["lr"] for group in o.param_groups] for o in optimisers]

    def step(self, factor: float) -> None:
        """One step at this part of the full rates; gradients are cleared."""
        for optimiser, rates in zip(self.optimisers, self.full, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad()


def vision_optimiser(model: LiT, supervision: Captions, plan: Vision, dtype: torch.dtype) -> Rates:
    """Muon for the matrices of the blocks, AdamW for the rest of the vision encoder."""
    encoder = list(model.vision_model.named_parameters())
    blocks = [p for name, p in encoder if name.startswith("encoder") and p.ndim == 2]
    others = [p for name, p in encoder if not (name.startswith("encoder") and p.ndim == 2)]
    decayed = [p for p in others if p.ndim > 1] + [model.visual_projection.weight]
    free = [p for p in others if p.ndim == 1] + [model.logit_scale]
    adam = [
        {"params": decayed, "weight_decay": 0.05},
        {"params": free, "weight_decay": 0.0},
        {"params": list(supervision.parameters()), "weight_decay": 0.0, "lr": plan.caption_rate},
    ]
    return Rates(
        Muon(blocks, lr=plan.matrix_rate, weight_decay=0.05, dtype=dtype),
        torch.optim.AdamW(adam, lr=plan.rate, betas=(0.9, 0.98), fused=True),
    )


def text_optimiser(model: LiT, plan: Text) -> Rates:
    """AdamW for the text tower, and more gently for the pooling head and the projection."""
    text = [*model.text_model.parameters(), model.text_projection.weight]
    vision = [*model.vision_model.head.parameters(), model.visual_projection.weight]
    groups = [
        {"params": [p for p in text if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in text if p.ndim == 1], "weight_decay": 0.0},
        {"params": [*vision, model.logit_scale], "weight_decay": 0.0, "lr": plan.vision_rate},
    ]
    return Rates(torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True))


def working_dtype(device: torch.device) -> torch.dtype:
    """Bfloat16 where there are instructions for it; emulated, it takes twenty times as long."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(instruction_sets())
    return torch.bfloat16 if fast else torch.float32


class Shadow:
    """A copy of a model that computes in another dtype; its gradients go to the original."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        self.original = model
        self.module = copy.deepcopy(model).to(dtype)
        self.pairs = list(zip(model.parameters(), self.module.parameters(), strict=True))

    def refresh(self) -> nn.Module:
        """The copy, its weights rounded from the original's."""
        with torch.no_grad():
            for weight, rounded in self.pairs:
                rounded.copy_(weight)
        return self.module

    def hand_over(self) -> None:
        """Add the gradients to the original's."""
        for weight, rounded in self.pairs:
            if rounded.grad is not None:
                grad = rounded.grad.float()
                weight.grad = grad if weight.grad is None else weight.grad + grad
                rounded.grad = None


def top(logits: Tensor, classes: Tensor, k: int) -> float:
    """In which part of the rows the right class is among the k best; ties count as wrong."""
    found = ranks(logits.detach().cpu().numpy(), classes.cpu().numpy())
    return float((found < k).mean())


class Session:
    """One of the two steps as it stands: all that a checkpoint holds.

    A resumed run goes on from the same state but starts a new epoch, so it is as good as one that
    was never interrupted, not the same to the last bit.
    """

    def __init__(self, module: nn.Module, rates: Rates, plan: Vision | Text, run: Path):
        self.module, self.rates, self.plan = module, rates, plan
        self.average = copy.deepcopy(module).eval()
        self.step, self.seconds = 0, 0.0
        self.part = type(plan).__name__.lower()
        self.path, self.log = run / f"{self.part}.pt", run / "log.jsonl"
        if self.path.exists():
            self._restore()
        self._resumed = time.perf_counter() - self.seconds
        self.progress = tqdm(total=plan.steps, initial=self.step, desc=self.part, unit="step")

    def advance(self, loss: Tensor, shadow: Shadow | None = None) -> None:
        """Backward, clip, step, and average the weights over the last 500 steps or so."""
        loss.backward()
        if shadow is not None:
            shadow.hand_over()
        clipped = self.module if shadow is None else shadow.original
        nn.utils.clip_grad_norm_(clipped.parameters(), 1.0)
        self.rates.step(schedule(self.step, self.plan))
        decay = min(0.998, (self.step + 1) / (self.step + 20))  # over fewer at the beginning
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.module.parameters(), strict=True)
            for mean, now in pairs:
                mean.lerp_(now, 1 - decay)
        self.step += 1
        self.progress.update()

    @property
    def due(self) -> bool:
        """Is it time to validate and to save?"""
        return self.step % CHECKPOINT_EVERY == 0 or self.step == self.plan.steps

    def report(self, scores: Tensor, labels: Tensor, **row: float) -> None:
        """Write a line of the log, with how validation went, then a checkpoint."""
        self.seconds = time.perf_counter() - self._resumed
        row |= {f"top{k}": top(scores, labels, k) for k in (1, 5)}
        row["seconds"] = round(self.seconds, 1)
        with self.log.open("a") as file:
            file.write(json.dumps({"part": self.part, "step": self.step, **row}) + "\n")
        self.progress.set_postfix(validation=f"{row['top1']:.1%}")
        self._save()

    def _save(self) -> None:
        state = {
            "plan": asdict(self.plan),
            "step": self.step,
            "seconds": self.seconds,
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.rates.optimisers],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),  # none without a GPU
            "random": json.dumps(random.getstate()),
        }
        scratch = self.path.with_suffix(".part")
        torch.save(state, scratch)
        os.replace(scratch, self.path)  # whole, or not at all

    def _restore(self) -> None:
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        if state["plan"] != asdict(self.plan):
            sys.exit(f"{self.path} is of another plan; remove its folder, or give another --run")
        self.step, self.seconds = state["step"], state["seconds"]
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.rates.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        torch.set_rng_state(state["torch"])
        torch.cuda.set_rng_state_all(state["cuda"])
        version, numbers, gauss = json.loads(state["random"])
        random.setstate((version, tuple(numbers), gauss))


def train_vision(session: Session, drawings: Drawings, device: torch.device) -> None:
    """Step one."""
    plan, (model, supervision) = session.plan, session.module
    dtype = working_dtype(device)
    shadow = Shadow(model, dtype)
    pictures, labels = (t.to(device) for t in validation())
    batches = shuffled_classes(plan.batch)
    while session.step < plan.steps:
        classes = next(batches)
        inputs = drawings.pictures(classes).to(device, dtype)
        classes = classes.to(device)
        whole = session.step >= plan.whole_from * plan.steps
        rounded = shadow.refresh()
        pooled = rounded.vision_model(inputs, None if whole else plan.kept_patches)
        vectors = F.normalize(rounded.visual_projection(pooled).float(), dim=-1)
        logits = vectors @ supervision.vectors().T * model.scale()
        contrastive, words = supervision.losses(pooled.float(), logits, classes)
        session.advance(contrastive + words, shadow)
        if session.due:
            averaged, supervised = session.average
            with torch.no_grad():
                found = torch.cat([averaged.images(part) for part in pictures.split(256)])
                scores = found @ supervised.vectors().T
            losses = {"contrastive": contrastive.item(), "words": words.item()}
            session.report(scores, labels, **losses, trained=top(logits, classes, 1))


def frozen_trunk(model: LiT, device: torch.device) -> VisionTower:
    """The vision tower as step two uses it: in the working dtype, nothing dropped."""
    return copy.deepcopy(model.vision_model).to(working_dtype(device)).eval()


@torch.no_grad()
def trunk_features(trunk: VisionTower, pictures: Tensor) -> Tensor:
    """Patch features (N, 64, 192) in bfloat16: what the frozen trunk makes of pictures."""
    weight = trunk.rms_norm.weight
    parts = pictures.split(128)
    return torch.cat([trunk.patch_features(part.to(weight)).bfloat16() for part in parts])


def feature_bank(trunk: VisionTower, drawings: Drawings, rounds: int) -> Tensor:
    """Patch features of `rounds` pictures of each emoji: (rounds, emoji, 64, 192).

    From a seed of its own: a resumed run computes the same ones again.
    """
    every = torch.arange(len(all_emoji()))
    rows = tqdm(range(rounds), desc="patch features", unit="round")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return torch.stack([trunk_features(trunk, drawings.pictures(every)) for _ in rows])


def pooled_images(model: LiT, features: Tensor) -> Tensor:
    """Unit vectors of images from their patch features."""
    pooled = model.vision_model.head(features.float())
    return F.normalize(model.visual_projection(pooled), dim=-1)


def train_text(session: Session, vectors: Tensor, drawings: Drawings, device: torch.device) -> None:
    """Step two; `vectors` are step one's, of each emoji."""
    plan, model, emoji = session.plan, session.module, all_emoji()
    trunk = frozen_trunk(model, device)
    bank = feature_bank(trunk, drawings, plan.rounds)
    pictures, labels = validation()
    held_out, labels = trunk_features(trunk, pictures), labels.to(device)
    names = tokenizer.encode(frame((e.name for e in emoji), PROMPT)).to(device)
    batches = shuffled_classes(plan.batch)
    while session.step < plan.steps:
        classes = next(batches)
        features = bank[torch.randint(len(bank), classes.shape), classes]
        drawn = [captions.sample(random, emoji[c]) for c in classes.tolist()]
        texts = model.texts(tokenizer.encode(drawn).to(device))
        logits = pooled_images(model, features) @ texts.T * model.scale()
        pairs = torch.arange(len(classes), device=device)
        found, said = (
            F.cross_entropy(scores, pairs, label_smoothing=plan.smoothing)
            for scores in (logits, logits.T)
        )
        loss = (found + said) / 2
        away = 1 - (texts * vectors[classes.to(device)]).sum(1).mean()  # 1 - cosine
        session.advance(loss + model.scale().detach() * away)
        if session.due:
            averaged = session.average
            with torch.no_grad():
                scores = pooled_images(averaged, held_out) @ averaged.texts(names).T
            session.report(scores, labels, contrastive=loss.item(), trained=top(logits, pairs, 1))


def train(run: Path, vision: Vision, text: Text, device: torch.device) -> LiT:
    """Both steps, going on from whatever checkpoints the run's folder holds."""
    run.mkdir(parents=True, exist_ok=True)
    drawings, sizes = Drawings.load(), Sizes()
    seed(1)
    model = LiT(sizes, vision.drop_path).to(device)
    supervision = Captions(sizes.width, sizes.projection).to(device)
    rates = vision_optimiser(model, supervision, vision, working_dtype(device))
    first = Session(nn.ModuleList([model, supervision]), rates, vision, run)
    train_vision(first, drawings, device)
    model, supervised = copy.deepcopy(first.average)
    second = Session(model, text_optimiser(model, text), text, run)
    train_text(second, supervised.vectors().detach(), drawings, device)
    return second.average


def main() -> None:
    """Train, and leave the weights in the run's folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=RUN, help="folder for checkpoints and the log")
    parser.add_argument("--vision-steps", type=int, default=Vision.steps)
    parser.add_argument("--text-steps", type=int, default=Text.steps)
    gpu = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=gpu, help="default: the GPU if there is one")
    options = parser.parse_args()
    render.main()
    tokenizer.main([])  # always: it takes seconds, and the captions may have changed
    plans = Vision(steps=options.vision_steps), Text(steps=options.text_steps)
    model = train(options.run, *plans, torch.device(options.device))
    torch.save(model.cpu().state_dict(), options.run / "final.pt")


if __name__ == "__main__":
    main()
