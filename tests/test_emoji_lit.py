"""The packaged model: what its files promise, and that it means what it says.

The pictures are the packaged samples, by an artist that it was never trained on. All figures are in
training/evaluate.py; here is what must never break.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aimv2_np
from aimv2_np.cli import main
from aimv2_np.hub import PACKAGED

FOLDER = PACKAGED / "emoji-lit"
TRAINING = Path(__file__).parents[1] / "training"
BEGIN, END = 3998, 3999
SAMPLES = aimv2_np.samples()
EVERYDAY = (
    *("cat", "dog", "horse", "bird", "fish", "tree", "flower", "sun", "apple", "banana", "pizza"),
    *("house", "car", "bicycle", "airplane", "guitar", "umbrella", "clock", "heart", "key"),
)


@pytest.fixture(scope="module")
def model() -> Any:
    return aimv2_np.load("emoji-lit")


@pytest.fixture(scope="module")
def cosines(model: Any) -> np.ndarray:
    """Between the twenty everyday pictures and, as `classify` frames them, their words."""
    images = model.encode_image([SAMPLES[word] for word in EVERYDAY])
    return images @ model.encode_text([f"a photo of {word}" for word in EVERYDAY]).T


# ---------------------------------------------------------------------------- what it knows


@pytest.mark.parametrize(
    "word",
    [
        *("cat", "apple", "fish", "horse", "tree", "pizza"),
        *("house", "car", "guitar", "umbrella", "heart"),
    ],
)
def test_a_picture_is_called_what_a_person_would_call_it(model: Any, word: str) -> None:
    result = model.classify(SAMPLES[word], EVERYDAY)
    assert result.top(1)[0][0][0] == word, str(result)


def test_pictures_find_their_words_and_words_their_pictures(cosines: np.ndarray) -> None:
    """At most two of twenty wrong, each way.

    On these pictures, in colours; training/evaluate.py counts on the drawings as they are.
    """
    right = np.arange(len(EVERYDAY))
    for scores in (cosines, cosines.T):
        best = scores.argmax(axis=1)
        wrong = {EVERYDAY[i]: EVERYDAY[best[i]] for i in right[best != right]}
        assert len(wrong) <= 2, wrong


def test_the_right_word_is_far_above_the_others(model: Any, cosines: np.ndarray) -> None:
    """The median probability of the right one among twenty: chance is 0.05."""
    logits = model.logit_scale * cosines
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.median(shares.diagonal()) > 0.5


def test_the_frame_around_a_word_hardly_matters(model: Any) -> None:
    images = model.encode_image([SAMPLES[word] for word in EVERYDAY])
    for prompt in ("{}", "a drawing of the {}", "an emoji of {}"):
        texts = model.encode_text([prompt.format(word) for word in EVERYDAY])
        best = (images @ texts.T).argmax(axis=1)
        assert (best == np.arange(len(EVERYDAY))).sum() >= 18, prompt


def test_the_demo_says_what_a_person_would_say(capsys: Any) -> None:
    assert main(["demo", "--quiet"]) == 0
    ranked = capsys.readouterr().out.partition("the 6 best")[2].splitlines()[1:]
    assert ranked[0].split()[0] == "pizza"


# ---------------------------------------------------------------------------- padding


def test_padding_changes_nothing() -> None:
    """Alone, beside a long text, filled up to all 32 positions, with a mask and without."""
    model = aimv2_np.load("emoji-lit", dtype="float64")
    texts = ["cat", "a photo of a red heart"]
    long = "a picture of a family of four by the sea, a dog, an umbrella and the sun"
    alone = np.concatenate([model.encode_text(text) for text in texts])
    tokens = model.tokenize([*texts, long])
    assert tokens.attention_mask.sum(axis=1).max() > 2 * tokens.attention_mask[:2].sum(axis=1).max()
    together = model.encode_text([*texts, long])[:2]
    ids = np.full((2, 32), END)
    ids[:, : tokens.input_ids.shape[1]] = tokens.input_ids[:2]
    mask = np.zeros_like(ids)
    mask[:, : tokens.input_ids.shape[1]] = tokens.attention_mask[:2]
    full = [model(input_ids=ids, attention_mask=m).text_embeds for m in (mask, None)]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    for found in (together, *full):
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------- its files


def test_the_folder_is_whole_and_small() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == {
        *("README.md", "config.json", "preprocessor_config.json", "model.safetensors"),
        *("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"),
    }
    assert sum(files.values()) <= 8_000_000


def test_every_weight_is_stored_as_bfloat16_and_finite() -> None:
    """The header is read here by hand: eight bytes of its length, then JSON."""
    data = (FOLDER / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}
    assert sum(int(np.prod(tensor["shape"])) for tensor in header.values()) == 3_907_905
    assert "vision_model.encoder.layers.5.attention.q_proj.weight" in header
    assert not any(name.startswith(("head.", "decoder", "module.")) for name in header)
    aimv2_np.load("emoji-lit", check=True)  # raises where there is NaN or infinity


def test_the_configuration_is_the_promised_one(model: Any) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    tower = {"rms_norm_eps": 1e-5, "hidden_act": "silu", "qkv_bias": False, "mlp_bias": False}
    vision = {
        **{"model_type": "aimv2_vision_model", "hidden_size": 192, "intermediate_size": 448},
        **{"num_hidden_layers": 6, "num_attention_heads": 6, "num_channels": 3},
        **{"image_size": 64, "patch_size": 8, "use_head": True, "is_native": False},
    }
    text = {
        **{"model_type": "aimv2_text_model", "hidden_size": 128, "intermediate_size": 320},
        **{"num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 4000},
        **{"max_position_embeddings": 32, "eos_token_id": END},
    }
    top = {"model_type": "aimv2", "architectures": ["Aimv2Model"], "dtype": "bfloat16"}
    top |= {"projection_dim": 128, "max_logit_scale": 100.0}
    assert top.items() <= {key: v for key, v in config.items() if key in top}.items()
    assert (vision | tower).items() <= config["vision_config"].items()
    assert (text | tower).items() <= config["text_config"].items()
    assert model.info["layout"] == "transformers"
    assert 1 < model.logit_scale <= 100


def test_it_is_an_ordinary_folder(model: Any, tmp_path: Path) -> None:
    """Nothing depends on its name or its place in the package."""
    elsewhere = aimv2_np.load(shutil.copytree(FOLDER, tmp_path / "mine"))
    for picture, text in ((SAMPLES["cat"], "a cat"), (SAMPLES["car"], "a car")):
        assert np.array_equal(elsewhere.encode_image(picture), model.encode_image(picture))
        assert np.array_equal(elsewhere.encode_text(text), model.encode_text(text))


def test_images_are_prepared_as_for_the_official_models(model: Any) -> None:
    wanted = aimv2_np.ImageProcessor.for_size(64)
    assert model.processor == wanted
    assert model.preprocess(SAMPLES["cat"]).shape == (1, 3, 64, 64)


def test_the_vocabulary() -> None:
    vocab = json.loads((FOLDER / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocab.values()) == list(range(4000))
    assert (vocab["<start_of_text>"], vocab["<end_of_text>"]) == (BEGIN, END)
    merges = (FOLDER / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges[0].startswith("#version")
    made = {merge.replace(" ", "") for merge in merges[1:]}
    assert made < set(vocab)
    assert {"cat</w>", "photo</w>", "emoji</w>"} < made


def test_texts_become_tokens_as_in_clip(model: Any) -> None:
    ids, mask = model.tokenize(["cat", "a photo of a cat", "CAT", ""])
    vocab = json.loads((FOLDER / "vocab.json").read_text(encoding="utf-8"))
    words = [vocab[f"{word}</w>"] for word in ("a", "photo", "of", "a", "cat")]
    cat = [BEGIN, words[-1], END, END, END, END, END]  # padding repeats the end
    assert ids.tolist() == [cat, [BEGIN, *words, END], cat, [BEGIN, *[END] * 6]]
    assert mask.sum(axis=1).tolist() == [3, 7, 3, 2]
    with pytest.warns(aimv2_np.AIMv2Warning, match="cut to 32 tokens"):
        ids, mask = model.tokenize("cat " * 40)
    assert (ids.shape, ids[0, 0], ids[0, -1], mask.min()) == ((1, 32), BEGIN, END, 1)


def test_no_character_is_unknown(model: Any) -> None:
    """Every byte has an entry, so nothing warns (warnings are errors here) and nothing is lost."""
    for text in ("crème brûlée", "日本語", "🐈 5 %", "\x00\x7f\u0301", "#*~^"):
        ids = model.tokenize(text).input_ids[0]
        assert END not in ids[1:-1]
        assert model.tokenizer.decode(ids.tolist()).split() == text.lower().split()


def test_the_model_card_names_data_licences_and_limits() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in ("Apache 2.0", "CC BY 4.0", "not photographs", "OpenMoji", "training/"):
        assert words in card, words
    packages = json.loads((TRAINING / "packages.json").read_text())
    for package in packages:
        name, version = package.rsplit("@", 1)
        named = [line for line in card.splitlines() if f"`{name}`" in line or f"[{name}]" in line]
        assert any(version in line for line in named), package
