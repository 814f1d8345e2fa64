"""The test inputs expose every mistake of the library, and their file holds what it should."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import golden_cases
import numpy as np
import pytest
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from aimv2_np.errors import AIMv2Warning, VerificationError
from aimv2_np.verify import reference
from aimv2_np.verify.inputs import make_inputs, read_inputs, write_inputs
from aimv2_np.verify.lanes import lanes, truth
from aimv2_np.verify.locate import ALLOWED, noise_floor, real_of, real_tokens
from aimv2_np.verify.measure import Distance, distance, rows_of
from aimv2_np.verify.mistakes import Mistake, every
from aimv2_np.verify.walk import Case, State, run, sections

MODELS: dict[str, Any] = {
    "emoji-lit": "emoji-lit",
    "random-lit": golden_cases.RANDOM_LIT,
    "native": golden_cases.GOLDEN / "vision-native" / "transformers",
    "learned": golden_cases.GOLDEN / "vision-absolute" / "transformers",
}


FAR = 4  # times what the verifier allows: how clearly a mistake must show

# What does not show on a model, and why no input could make it.
LITTLE = {
    "layers-sorted-as-text": "there are fewer than eleven blocks",
    "fp16-saturated": "no number is beyond 65504",
    "logit-scale-unclamped": "the stored logarithm is below ln 100",
    "text-pool-largest-id": "the end token has the largest id",
    "projectors-swapped": "the two encoders differ in width: they cannot be",
}
LEARNED = "positions are learned"
COMPUTED = "positions are computed"
NO_TEXT = "there is no text encoder"
NO_HEAD = "there is no pooling head"


# About as large as what rounding may do: whether it shows depends on the machine's sums.
SOMETIMES = {"rms-eps-outside"}


def not_on(model: str) -> dict[str, str]:
    """The mistakes that cannot show on a model."""
    config = reference(MODELS[model]).config
    vision = getattr(config, "vision", config)
    reasons = dict(LITTLE)
    for m in every():
        if m.id.startswith("sincos-") and vision.grid_size is not None:
            reasons[m.id] = LEARNED
        elif m.id in ("pos-slice", "pos-interpolate", "pos-bilinear") and vision.grid_size is None:
            reasons[m.id] = COMPUTED
        elif vision is config and not any(p.startswith(("*", "vision.")) for p in m.patterns):
            reasons[m.id] = NO_TEXT
        elif not vision.use_head and all("head" in p or "pooled" in p for p in m.patterns):
            reasons[m.id] = NO_HEAD
    return reasons | {
        "emoji-lit": {"weights-bf16": "the weights are stored in bfloat16"},
        "random-lit": {"projection-transposed": "the projections are not square"},
    }.get(model, {})


class _Shown(Exception):
    """A mistake has changed an activation by more than rounding."""


class _Beside:
    """One case: every activation in float64, and how far correct float32 runs are from it."""

    def __init__(self, model: Any, case: Case) -> None:
        self.model, self.case, self.truth = model, case, dict[str, Any]()
        self.names, self.before = dict[str, list[str]](), dict[str, State]()
        state = State()
        for section in sections(model, case):
            self.before[section], known = state, set(self.truth)
            state = self.run(model, section, state, self._kept)
            self.names[section] = [name for name in self.truth if name not in known]
        self.real = real_tokens(state)
        self.floor = dict.fromkeys(self.truth, noise_floor("float32"))
        for lane in lanes(model, "float32"):
            state = State()
            for section in self.names:
                state = self.run(lane.model, section, state, self._floored)

    def run(self, model: Any, section: str, state: State, see: Any, *planted: Mistake) -> State:
        return run(model, self.case, section, state, see, wants=lambda n: True, mistakes=planted)

    def _kept(self, name: str, value: Any) -> Any:
        self.truth[name] = value
        return value

    def _floored(self, name: str, value: Any) -> Any:
        self.floor[name] = self.floor[name] | self._distance(name, value)
        return value

    def _distance(self, name: str, value: Any) -> Distance:
        real = real_of(name, self.real)
        return distance(rows_of(name, value, real), rows_of(name, self.truth[name], real))

    def shows(self, mistake: Mistake) -> bool:
        """Whether an activation differs by far more than rounding, or its shape cannot be."""

        changed = set()

        def see(name: str, value: Any) -> Any:
            if value.shape != self.truth[name].shape:
                raise _Shown
            if not np.array_equal(value, self.truth[name], equal_nan=True):
                changed.add(name)
                if self._distance(name, value).over(self.floor[name]) > FAR * ALLOWED:
                    raise _Shown
            return value

        state = None  # while all is as it should be
        try:
            for section, names in self.names.items():
                if state is None and any(map(mistake.at, names)):
                    state = self.before[section]
                if state is not None:
                    changed.clear()
                    state = self.run(self.model, section, state, see, mistake)
                    state = state if changed else None
        except (_Shown, ValueError):
            return True
        return False


@pytest.mark.parametrize("model", MODELS)
def test_every_mistake_shows_that_can_show(model: str) -> None:
    pipeline = reference(MODELS[model])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AIMv2Warning)  # a text that is too long
        beside = [_Beside(truth(pipeline), case) for case in make_inputs(pipeline).cases]
    hidden = {m.id for m in every() if not any(p.startswith("raw.") for p in m.patterns)
              and not any(each.shows(m) for each in beside)}  # fmt: skip
    raw = {m.id for m in every() if any(p.startswith("raw.") for p in m.patterns)}
    assert hidden - SOMETIMES == set(not_on(model)) - raw - SOMETIMES


# ---------------------------------------------------------------------------- what they are


def test_learned_positions_meet_three_grids_and_both_towers_at_once() -> None:
    inputs = make_inputs(reference("emoji-lit"))
    pairs, wide, tall, alone = inputs.cases
    assert [case.name for case in inputs.cases] == ["pairs", "wide", "tall", "alone"]
    assert pairs.pixel_values is not None
    assert pairs.input_ids is not None
    assert len(pairs.pixel_values) != len(pairs.input_ids)  # or transposed logits would not show
    assert [case.interpolate for case in inputs.cases] == [False, True, True, False]
    patches = [np.prod(np.array(c.pixel_values.shape[2:]) // 8) for c in (pairs, wide, tall)]
    assert patches[0] == patches[1] == 64 > patches[2]
    assert alone.attention_mask is None
    assert not (alone.input_ids[:, :-1] == 3999).any()  # not padded


def test_texts_are_ordinary_empty_repeated_just_fitting_and_cut() -> None:
    pipeline = reference("emoji-lit")
    inputs = make_inputs(pipeline)
    lengths = [pipeline.tokenizer([t], max_length=500).input_ids.size for t in inputs.texts]
    assert lengths[1] == 2
    assert lengths[3] == 32 < lengths[4]  # the model's context
    assert len(set(inputs.texts[2].split())) == 1 < len(inputs.texts[2].split())
    np.testing.assert_array_equal(inputs.cases[0].attention_mask.sum(axis=1), [*lengths[:4], 32])
    assert (inputs.cases[0].input_ids[:, -1] == 3999).all()


def test_a_native_model_meets_sizes_that_it_was_trained_on_and_that_no_patch_divides() -> None:
    inputs = make_inputs(reference(MODELS["native"]))  # AIMv2Warning is an error here
    sizes = [case.pixel_values.shape[2:] for case in inputs.cases]
    assert all(n % 14 for size in sizes for n in size)
    assert len({(y // 14 > x // 14, y // 14 < x // 14) for y, x in sizes}) == 3
    assert not any(case.interpolate for case in inputs.cases)


def test_without_a_tokenizer_ids_are_drawn() -> None:
    pipeline = reference("emoji-lit")
    pipeline.tokenizer = None
    inputs = make_inputs(pipeline)
    ids, mask = inputs.cases[0].input_ids, inputs.cases[0].attention_mask
    assert inputs.texts == []
    assert ids.shape == mask.shape == (5, 32)
    for row, real in zip(ids, mask, strict=True):
        assert row[0] == 3998
        assert (row == 3999).argmax() == real.sum() - 1  # the mask shows the first end, no more
    assert 0 <= ids.min() <= ids.max() < 4000


def test_raw_images_are_of_several_shapes_and_one_is_a_file_that_lies_on_its_side() -> None:
    inputs = make_inputs(reference("emoji-lit"))
    first, second = (image.shape[:2] for image in inputs.images)
    assert first[0] < first[1]
    assert second[0] > second[1]
    with Image.open(io.BytesIO(inputs.files[0])) as file:
        assert file.getexif()[0x0112] == 6
        upright = np.asarray(ImageOps.exif_transpose(file))
    assert upright.shape == (256, 176, 3)


@pytest.mark.parametrize("model", ["emoji-lit", "native"])
def test_full_inputs_have_more_images(model: str) -> None:
    small, full = (make_inputs(reference(MODELS[model]), size) for size in ("small", "full"))
    images = [inputs.cases[0].pixel_values for inputs in (small, full)]
    np.testing.assert_array_equal(images[1][: len(images[0])], images[0])
    assert len(images[1]) > len(images[0])
    with pytest.raises(VerificationError, match="size 'huge': expected 'small' or 'full'"):
        make_inputs(reference(MODELS[model]), "huge")


# ---------------------------------------------------------------------------- the file


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_inputs(tmp_path / "i.safetensors", make_inputs(reference("emoji-lit")), "emoji-lit")
    return tmp_path / "i.safetensors"


def test_the_file_holds_all_of_it(written: Path) -> None:
    made, read = make_inputs(reference("emoji-lit")), read_inputs(written)
    assert (read.texts, read.files, read.model) == (made.texts, made.files, "emoji-lit")
    assert [(c.name, c.interpolate) for c in read.cases] == [
        (c.name, c.interpolate) for c in made.cases
    ]
    for one, other in zip(read.cases, made.cases, strict=True):
        for name in ("pixel_values", "input_ids", "attention_mask"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    for one, other in zip(read.images, made.images, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def test_any_language_can_read_the_file(written: Path) -> None:
    arrays, metadata = load_file(written), json.loads(_header(written)["cases"])
    assert arrays["pairs/pixel_values"].dtype == np.float32
    assert arrays["pairs/input_ids"].dtype == arrays["alone/input_ids"].dtype == np.int64
    assert "alone/attention_mask" not in arrays
    assert metadata[1] == {"name": "wide", "interpolate": True}
    assert {n for n in arrays if n.startswith("raw/")} == {
        "raw/image_0", "raw/image_1", "raw/file_2"
    }  # fmt: skip


def _header(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(file.metadata())


FAULTS: dict[str, tuple[Any, str]] = {
    "no metadata": (lambda a, m: m.clear(), "have no 'aimv2_np.verify'; .* --out FILE"),
    "version": (lambda a, m: m.update({"aimv2_np.verify": "2"}), "format '2', .* reads 1"),
    "no list": (lambda a, m: m.update(cases="{}"), "'cases' are no JSON list"),
    "no JSON": (lambda a, m: m.update(texts="[1"), "'texts' are no JSON list"),
    "no strings": (lambda a, m: m.update(texts="[1]"), "'texts' hold something else"),
    "no case": (lambda a, m: m.update(cases="[]"), "'cases' are empty"),
    "raw": (lambda a, m: m.update(cases='[{"name": "raw"}]'), "a case is {'name': 'raw'}"),
    "number": (lambda a, m: m.update(cases="[3]"), "a case is 3, expected"),
    "no arrays": (lambda a, m: a.pop("alone/input_ids"), "'alone' has neither pixel_values nor"),
    "left over": (lambda a, m: a.update({"more/x": a["alone/input_ids"]}), "'more/x' belongs to"),
    "gap": (lambda a, m: a.update({"raw/file_5": a.pop("raw/file_2")}), "'raw/file_5' belongs to"),
    "axes": (
        lambda a, m: a.update({"wide/pixel_values": a["wide/pixel_values"][0]}),
        r"'wide/pixel_values' is float32 \(3, 32, 128\), expected float32 \(B, 3, Y, X\)",
    ),
    "dtype": (
        lambda a, m: a.update({"alone/input_ids": np.ones((1, 4), np.float32)}),
        "'alone/input_ids' is float32",
    ),
    "mask": (
        lambda a, m: a.update({"pairs/attention_mask": np.ones((5, 3), np.int64)}),
        "'pairs' has an attention_mask unlike its input_ids",
    ),
    "grey": (
        lambda a, m: a.update({"raw/image_0": np.zeros((9, 9, 1), np.uint8)}),
        "a raw image has not three channels",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_malformed_file_is_explained(written: Path, fault: str) -> None:
    arrays, metadata = load_file(written), _header(written)
    spoil, message = FAULTS[fault]
    spoil(arrays, metadata)
    save_file(arrays, written, metadata=metadata)
    with pytest.raises(VerificationError, match=message):
        read_inputs(written)


def test_a_raw_file_that_is_no_image_is_explained(written: Path) -> None:
    arrays, metadata = load_file(written), _header(written)
    arrays["raw/file_2"] = np.arange(50, dtype=np.uint8)
    save_file(arrays, written, metadata=metadata)
    with pytest.raises(VerificationError, match=r"a raw file \(50 bytes\) is no image"):
        _ = read_inputs(written).sources


def test_what_is_no_safetensors_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="no such file"):
        read_inputs(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("not this, but long enough to be something else")
    with pytest.raises(VerificationError, match="expected a file of test inputs"):
        read_inputs(tmp_path / "text")
