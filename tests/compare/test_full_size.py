"""One full-size `large-patch14-224-lit` with random weights, saved by transformers, read by us.

It lies in a temporary hub cache under its official name, so that what runs is what a user of the
official checkpoint runs: the name is resolved, the shards are found through links, config.json is
checked against the official table, images and texts pass the files' own processor and tokenizer.
The 3 GB are deleted when the session ends.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import CAT, RANDOM_LIT
from PIL import Image
from test_official import LARGE_224, LIT_LOGITS, LIT_TEXTS, check_features, reading_of, readings
from transformers import Aimv2Config, Aimv2Model, Aimv2VisionConfig, Aimv2VisionModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import aimv2_np
from aimv2_np.config import OFFICIAL

from .helpers import REPAIRED, assert_equal, assert_same_lit, randomise

pytestmark = pytest.mark.compare

NAME = "large-patch14-224-lit"
TEXTS = ["a photo of a cat", "a dog", "two horses in the rain - a drawing"]
PREPROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 224},
}
FULL_SIZE = 3e-5  # float32, 24 blocks and sums of 2816 numbers; measured 4e-6


def write_processors(folder: Path) -> None:
    """The files of CLIP's processor: images at 224, texts with the official ids of both ends.

    The vocabulary is the tiny one of tests/data, filled up to CLIP's 49,408 entries.
    """
    for name in ("merges.txt", "special_tokens_map.json"):
        shutil.copy(RANDOM_LIT / name, folder)
    preprocessor = json.loads((RANDOM_LIT / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor | PREPROCESSOR))
    vocabulary = list(json.loads((RANDOM_LIT / "vocab.json").read_text()))
    filler = [f"<unused {i}>" for i in range(49408 - len(vocabulary))]
    words = [*vocabulary[:-2], *filler, *vocabulary[-2:]]  # the last two begin and end a text
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    tokenizer = json.loads((RANDOM_LIT / "tokenizer_config.json").read_text())
    del tokenizer["added_tokens_decoder"]  # its ids are those of the tiny one
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "model_max_length": 77}))


def into_hub_cache(snapshot: Path) -> None:
    """Lay the files out as the hub's cache does: the snapshot holds links to blobs."""
    repository = snapshot.parents[1]
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(snapshot.iterdir())):
        blob = repository / "blobs" / f"{number:040x}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, snapshot))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A hub cache that holds the random model under its official name, and a vision-only one."""
    folder = tmp_path_factory.mktemp("hub")
    snapshot = folder / f"models--apple--aimv2-{NAME}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    config = Aimv2Config(projection_dim=768)
    model = Aimv2Model(config)
    randomise(model, seed=11)
    model.save_pretrained(snapshot, max_shard_size="600MB")
    write_processors(snapshot)
    into_hub_cache(snapshot)
    save_vision_only(model, folder / "vision-only")
    del model
    yield folder
    shutil.rmtree(folder)


def save_vision_only(lit: Aimv2Model, folder: Path) -> None:
    """The same vision weights as a large-patch14-224: one file, no head, q, k and v split."""
    with torch.device("meta"):
        model = Aimv2VisionModel(Aimv2VisionConfig(use_head=False))
    weights = lit.vision_model.state_dict()
    wanted = {name: weights[name] for name in model.state_dict()}
    model.load_state_dict(wanted, assign=True)
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def lit(cache: Path) -> Any:
    """Our model, by its official name and from the cache alone."""
    return aimv2_np.load(NAME, backend="numpy", cache_dir=cache, local_files_only=True)


@pytest.fixture(scope="session")
def snapshot(lit: Any) -> Path:
    return Path(lit.info["folder"])


def test_the_official_code_path_was_taken(lit: Any) -> None:
    assert lit.info["official"] == lit.info["name"] == NAME
    assert lit.info["layout"] == "transformers-sharded"
    assert lit.info["weights_bytes"] == OFFICIAL[NAME].download_bytes


def test_features_and_logits_of_a_photograph_and_padded_texts(lit: Any, snapshot: Path) -> None:
    """Both towers, embeddings and logits, through both libraries' own input pipelines."""
    model = Aimv2Model.from_pretrained(snapshot, attn_implementation="eager").eval()
    pixels = CLIPImageProcessorPil.from_pretrained(snapshot)(Image.open(CAT), return_tensors="pt")
    texts = CLIPTokenizer.from_pretrained(snapshot)(TEXTS, padding=True, return_tensors="pt")
    assert (texts.attention_mask == 0).any()  # text-noncausal: without padding theirs is wrong
    everything = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        theirs = model(**pixels, **texts, **everything)
    ours = lit(lit.preprocess(CAT), *lit.tokenize(TEXTS), **everything)
    assert_same_lit(ours, theirs, FULL_SIZE, scale=float(lit.logit_scale))

    answer = lit.classify(CAT, TEXTS, prompt="{}")
    assert_equal(answer.probabilities, theirs.logits_per_image.softmax(dim=1), 20 * FULL_SIZE)
    np.testing.assert_allclose(lit.patch_features(CAT), ours.vision_model_output.last_hidden_state)


def test_the_official_checks_tell_both_readings_apart(lit: Any, snapshot: Path) -> None:
    """What `pytest -m official` does with lit, here with its figures from transformers.

    Its two texts are equally long. With the mask of ones that its processor makes, transformers is
    causal in eager mode and not causal by default (sdpa): text-noncausal.
    """
    tokens = lit.tokenize(LIT_TEXTS)
    assert tokens.attention_mask.all()
    pixels = lit.preprocess(CAT)
    found = readings(lit, pixels, tokens.input_ids)
    model = Aimv2Model.from_pretrained(snapshot).eval()
    inputs = [torch.from_numpy(np.asarray(x)) for x in (tokens.input_ids, pixels)]
    for attention, name in (("eager", "causal"), ("sdpa", "not causal")):
        model.set_attn_implementation(attention)
        with torch.no_grad():
            theirs = model(*inputs, torch.from_numpy(np.asarray(tokens.attention_mask)))
        assert reading_of(found, theirs.logits_per_image) == name, REPAIRED
    with pytest.raises(AssertionError, match="0 readings match"):
        reading_of(found, LIT_LOGITS)
    (features,) = lit.patch_features([CAT])
    with pytest.raises(AssertionError, match="resize"):
        check_features(features, (256, 1024), LARGE_224)


PEAK_MEMORY = """
import re, sys
import numpy as np
import aimv2_np
model = aimv2_np.load(sys.argv[1], backend="numpy")
pixels = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype("float32")
assert model(pixels).last_hidden_state.shape == (1, 256, 1024)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")
def test_peak_memory_stays_under_a_quarter_above_the_weights(cache: Path) -> None:
    """Load and one forward of large-224 in float32, with Python, NumPy and all their libraries.

    VmHWM, because ru_maxrss of a child begins with its parent's peak.
    """
    folder = cache / "vision-only"
    (weights,) = folder.glob("*.safetensors")
    run = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY, str(folder)], capture_output=True, text=True, check=True
    )
    peak, size = int(run.stdout) * 1024, weights.stat().st_size
    print(f"peak {peak / 1e9:.3f} GB, weights {size / 1e9:.3f} GB, ratio {peak / size:.3f}")
    assert peak < 1.25 * size
