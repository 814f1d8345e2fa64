"""Train the embedded model: the vision encoder first, then, with its trunk frozen, the text tower.

    python train.py                    # about an hour on two cores; runs/emoji-lit
    python train.py                    # after an interruption: goes on from the last checkpoint

Step one trains the vision encoder on what supervision.py says, mostly on a random half of each
picture's patches, which halves the cost and hides as occlusion does. Step two is LiT (arXiv
2111.07991): the trunk's patch features are computed once, and the text tower, the pooling head and
the projections learn to match each picture with its caption among those of other emoji.
Forward and backward run in bfloat16; weights, optimiser state and their average stay in float32.
"""

import argparse
import copy
import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import captions
from data import Drawings, shuffled_classes, validation
from emoji import all_emoji
from model import LiT, Sizes
from supervision import Captions
from tokenizer import encode

RUN = Path(__file__).parent / "runs" / "emoji-lit"
CHECKPOINT_EVERY = 200  # steps


@dataclass(frozen=True)
class Vision:
    """Step one."""

    steps: int = 7000
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

    steps: int = 1600
    batch: int = 411  # emoji, all different: a quarter of them
    rounds: int = 24  # pictures of each emoji whose patch features are kept
    rate: float = 1.5e-3
    vision_rate: float = 2e-4  # pooling head and projection
    warmup: int = 100
    cooldown: float = 0.7


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


def vision_optimiser(model: LiT, supervision: Captions, plan: Vision) -> Rates:
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
        torch.optim.Muon(blocks, lr=plan.matrix_rate, weight_decay=0.05, ns_steps=4),
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


class Shadow:
    """A bfloat16 copy of a model that computes; its gradients go to the float32 original."""

    def __init__(self, model: nn.Module):
        self.module = copy.deepcopy(model).bfloat16()
        self.pairs = list(zip(model.parameters(), self.module.parameters(), strict=True))

    def refresh(self) -> None:
        """The original's weights, rounded."""
        with torch.no_grad():
            for weight, rounded in self.pairs:
                rounded.copy_(weight)

    def hand_over(self) -> None:
        """Add the gradients to the original's."""
        for weight, rounded in self.pairs:
            if rounded.grad is not None:
                grad = rounded.grad.float()
                weight.grad = grad if weight.grad is None else weight.grad + grad
                rounded.grad = None


class Average:
    """The exponential moving average of a model's weights, which is what is kept in the end."""

    def __init__(self, model: nn.Module):
        self.model = copy.deepcopy(model).eval()

    def update(self, model: nn.Module, step: int) -> None:
        """Over the last 500 steps or so; over fewer at the beginning."""
        with torch.no_grad():
            for mean, now in zip(self.model.parameters(), model.parameters(), strict=True):
                mean.lerp_(now, 1 - min(0.998, (step + 1) / (step + 20)))


def top(logits: Tensor, classes: Tensor, k: int) -> float:
    """In which part of the rows the right class is among the k best."""
    right = logits.gather(1, classes[:, None].long())
    return ((logits > right).sum(1) < k).float().mean().item()


@dataclass
class Session:
    """One of the two steps as it stands: all that a checkpoint holds."""

    model: LiT
    supervision: Captions
    rates: Rates
    step: int = 0

    def __post_init__(self) -> None:
        self.average = Average(nn.ModuleList([self.model, self.supervision]))

    @property
    def averaged(self) -> LiT:
        """The model with averaged weights."""
        return self.average.model[0]

    def advance(self, factor: float) -> None:
        """After `backward`: clip, step, average."""
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.rates.step(factor)
        self.average.update(nn.ModuleList([self.model, self.supervision]), self.step)
        self.step += 1

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "supervision": self.supervision.state_dict(),
            "average": self.average.model.state_dict(),
            "optimisers": [o.state_dict() for o in self.rates.optimisers],
            "torch": torch.get_rng_state(),
            "random": json.dumps(random.getstate()),
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def restore(self, path: Path) -> None:
        """As `save` left it."""
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.supervision.load_state_dict(state["supervision"])
        self.average.model.load_state_dict(state["average"])
        for optimiser, saved in zip(self.rates.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        torch.set_rng_state(state["torch"])
        version, numbers, gauss = json.loads(state["random"])
        random.setstate((version, tuple(numbers), gauss))


class Log:
    """One JSON object per line: what the curves are drawn from."""

    def __init__(self, path: Path):
        self.path, self.started = path, time.perf_counter()

    def write(self, **row: float | str) -> None:
        """Append a row, with the seconds since this process began."""
        row["seconds"] = round(time.perf_counter() - self.started, 1)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def endless_batches(size: int) -> Iterator[Tensor]:
    """Classes for each step; a resumed run starts a new epoch."""
    return iter(shuffled_classes(size))


def train_vision(session: Session, plan: Vision, drawings: Drawings, log: Log, run: Path) -> None:
    """Step one."""
    shadow, (pictures, labels) = Shadow(session.model), validation()
    batches = endless_batches(plan.batch)
    progress = tqdm(total=plan.steps, initial=session.step, desc="vision", unit="step")
    while session.step < plan.steps:
        classes = next(batches)
        shadow.refresh()
        model = shadow.module.train()
        whole = session.step >= plan.whole_from * plan.steps
        inputs = drawings.pictures(classes).bfloat16()
        pooled = model.vision_model(inputs, None if whole else plan.kept_patches)
        vectors = F.normalize(model.visual_projection(pooled).float(), dim=-1)
        logits = vectors @ session.supervision.vectors().T * session.model.scale()
        contrastive, words = session.supervision.losses(pooled.float(), logits, classes)
        (contrastive + words).backward()
        shadow.hand_over()
        session.advance(schedule(session.step, plan))
        progress.update()
        if session.step % CHECKPOINT_EVERY == 0 or session.step == plan.steps:
            averaged, supervision = session.average.model
            with torch.no_grad():
                found = torch.cat([averaged.images(part) for part in pictures.split(256)])
                scores = found @ supervision.vectors().T
            log.write(
                part="vision",
                step=session.step,
                contrastive=contrastive.item(),
                words=words.item(),
                trained=top(logits, classes, 1),
                top1=top(scores, labels, 1),
                top5=top(scores, labels, 5),
            )
            progress.set_postfix(validation=f"{top(scores, labels, 1):.1%}")
            session.save(run / "vision.pt")


@torch.no_grad()
def trunk_features(model: LiT, pictures: Tensor) -> Tensor:
    """Patch features (N, 64, 192) in bfloat16: what the frozen trunk makes of pictures."""
    trunk = copy.deepcopy(model.vision_model).bfloat16().eval()
    return torch.cat([trunk.patch_features(part.bfloat16()) for part in pictures.split(128)])


def feature_bank(model: LiT, drawings: Drawings, rounds: int) -> Tensor:
    """Patch features of `rounds` pictures of each emoji: (rounds, emoji, 64, 192)."""
    every = torch.arange(len(all_emoji()))
    rows = tqdm(range(rounds), desc="patch features", unit="round")
    return torch.stack([trunk_features(model, drawings.pictures(every)) for _ in rows])


def pooled_images(model: LiT, features: Tensor) -> Tensor:
    """Unit vectors of images from their patch features."""
    pooled = model.vision_model.head(features.float())
    return F.normalize(model.visual_projection(pooled), dim=-1)


def train_text(session: Session, plan: Text, drawings: Drawings, log: Log, run: Path) -> None:
    """Step two."""
    model, emoji = session.model, all_emoji()
    state, words_state = torch.get_rng_state(), random.getstate()
    seed(2)  # a resumed run computes the same bank
    bank = feature_bank(model, drawings, plan.rounds)
    torch.set_rng_state(state)
    random.setstate(words_state)
    pictures, labels = validation()
    held_out = trunk_features(model, pictures)
    names = encode([captions.PROMPT.format(e.name) for e in emoji])
    batches = endless_batches(plan.batch)
    progress = tqdm(total=plan.steps, initial=session.step, desc="text", unit="step")
    while session.step < plan.steps:
        classes = next(batches)
        features = bank[torch.randint(len(bank), classes.shape), classes]
        texts = encode([captions.sample(random, emoji[c]) for c in classes.tolist()])
        logits = pooled_images(model, features) @ model.texts(texts).T * model.scale()
        pairs = torch.arange(len(classes))
        loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        loss.backward()
        session.advance(schedule(session.step, plan))
        progress.update()
        if session.step % CHECKPOINT_EVERY == 0 or session.step == plan.steps:
            with torch.no_grad():
                averaged = session.averaged
                scores = pooled_images(averaged, held_out) @ averaged.texts(names).T
            log.write(
                part="text",
                step=session.step,
                contrastive=loss.item(),
                trained=top(logits, pairs, 1),
                top1=top(scores, labels, 1),
                top5=top(scores, labels, 5),
            )
            progress.set_postfix(validation=f"{top(scores, labels, 1):.1%}")
            session.save(run / "text.pt")


def train(run: Path, vision: Vision, text: Text) -> LiT:
    """Both steps, going on from whatever checkpoints the run's folder holds."""
    run.mkdir(parents=True, exist_ok=True)
    log, drawings, sizes = Log(run / "log.jsonl"), Drawings.load(), Sizes()
    seed(1)
    model = LiT(sizes, vision.drop_path)
    supervision = Captions(sizes.width, sizes.projection)
    first = Session(model, supervision, vision_optimiser(model, supervision, vision))
    if (run / "vision.pt").exists():
        first.restore(run / "vision.pt")
    train_vision(first, vision, drawings, log, run)
    model = copy.deepcopy(first.averaged)
    second = Session(model, supervision, text_optimiser(model, text))
    if (run / "text.pt").exists():
        second.restore(run / "text.pt")
    train_text(second, text, drawings, log, run)
    return second.averaged


def main() -> None:
    """Train, and leave the weights in the run's folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=RUN, help="folder for checkpoints and the log")
    parser.add_argument("--vision-steps", type=int, default=Vision.steps)
    parser.add_argument("--text-steps", type=int, default=Text.steps)
    options = parser.parse_args()
    plans = Vision(steps=options.vision_steps), Text(steps=options.text_steps)
    model = train(options.run, *plans)
    torch.save(model.state_dict(), options.run / "final.pt")


if __name__ == "__main__":
    main()
