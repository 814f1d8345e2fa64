"""Our tokenizer beside transformers' CLIPTokenizer: equal ids, with CLIP's own vocabulary.

CLIP's merges ship inside the PyPI package open_clip_torch. The vocabulary is built from them as
CLIP builds it (open_clip/tokenizer.py) and its special tokens are given AIMv2's names.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import RANDOM_LIT
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from aimv2_np.errors import AIMv2Warning
from aimv2_np.tokenizer import Tokenizer

pytestmark = pytest.mark.compare

TESTS = Path(__file__).parents[1]
RECORD = TESTS / "data/clip_tokens.json"
TEXTS: list[str] = [text for text, _ in json.loads(RECORD.read_text())]
BEGIN, END = "<start_of_text>", "<end_of_text>"
LONG = ["cat " * 20_000, "a" * 50_000, "\U0001f408" * 5_000, "!" * 20_000, "it's 5.0 Café " * 3_000]


def token(content: str, normalized: bool = True) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}
    return {"content": content, **flags}


def write_special_tokens(folder: Path, begin: str, end: str, normalized: bool = True) -> None:
    """The two JSON files, as in the official repository."""
    roles = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": end}
    map_ = {role: token(name, normalized) for role, name in roles.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(map_))
    ids = {"49406": begin, "49407": end}
    decoder = {i: token(name, normalized) | {"special": True} for i, name in ids.items()}
    config = {"added_tokens_decoder": decoder, **roles, "tokenizer_class": "CLIPTokenizer"}
    config |= {"model_max_length": 77, "errors": "replace", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder with CLIP's vocabulary and the names given for its two special tokens."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        pytest.skip("not installed: open_clip, whose package holds CLIP's merges")
    packed = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    # CLIP lists the printable bytes first, then the others
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    units = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    assert sorted(units) == sorted(ByteLevel.alphabet())

    def make(begin: str = BEGIN, end: str = END, normalized: bool = True) -> Path:
        folder = tmp_path_factory.mktemp("clip")
        tokens = [*units, *(u + "</w>" for u in units), *(m.replace(" ", "") for m in merges)]
        vocab = {name: i for i, name in enumerate([*tokens, begin, end])}
        assert len(vocab) == 49408
        (folder / "vocab.json").write_text(json.dumps(vocab))
        text = "#version: 0.2\n" + "\n".join(merges) + "\n"
        (folder / "merges.txt").write_text(text, encoding="utf-8")
        write_special_tokens(folder, begin, end, normalized)
        return folder

    return make


@pytest.fixture(scope="session")
def clip(make_clip: Callable[..., Path]) -> Path:
    return make_clip()


def ours(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder, max_length=77, eos_token_id=49407, vocab_size=49408)


def ids_of(tokenizer: Tokenizer, texts: list[str], length: int = 10**9) -> list[list[int]]:
    return [tokenizer(text, max_length=length).input_ids[0].tolist() for text in texts]


def assert_same_ids(folder: Path, texts: list[str]) -> None:
    theirs = CLIPTokenizer.from_pretrained(folder)
    found = ids_of(ours(folder), texts)
    different = [t for t, ids in zip(texts, found, strict=True) if theirs(t)["input_ids"] != ids]
    assert different == []


def test_the_vocabulary_is_clips(clip: Path) -> None:
    """Ids that CLIP's own documentation and users' code state."""
    (ids,) = ids_of(ours(clip), ["a photo of a cat"])
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_ids(clip: Path) -> None:
    assert len(TEXTS) >= 500
    assert_same_ids(clip, TEXTS)


def test_very_long_texts(clip: Path) -> None:
    assert_same_ids(clip, LONG)


def test_every_character_of_the_basic_plane(clip: Path) -> None:
    points = [p for p in range(0x10000) if not 0xD800 <= p < 0xE000]
    texts = ["".join(map(chr, points[i : i + 64])) for i in range(0, len(points), 64)]
    assert_same_ids(clip, texts + [f"a{chr(p)}b" for p in points[::7]])


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("names", [(BEGIN, END), ("<|startoftext|>", "<|endoftext|>")])
@pytest.mark.parametrize("missing", [None, "tokenizer_config.json", "special_tokens_map.json"])
def test_every_form_of_the_files_that_name_special_tokens(
    make_clip: Callable[..., Path], normalized: bool, names: tuple[str, str], missing: str | None
) -> None:
    folder = make_clip(*names, normalized)
    if missing:
        (folder / missing).unlink()
    assert_same_ids(folder, TEXTS[:250])


def test_special_tokens_named_by_bare_strings(make_clip: Callable[..., Path]) -> None:
    folder = make_clip()
    (folder / "tokenizer_config.json").unlink()
    map_ = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(map_))
    assert_same_ids(folder, TEXTS)
    (typed,) = ids_of(ours(folder), ["<END_OF_TEXT>"])
    assert typed.count(49407) == 1, "a bare string is matched in its own case only"


@pytest.mark.parametrize("described", [True, False])
def test_which_of_two_files_names_the_padding(
    make_clip: Callable[..., Path], described: bool
) -> None:
    """They contradict each other, and one of them may describe its tokens."""
    folder = make_clip()
    map_ = json.loads((folder / "special_tokens_map.json").read_text())
    (folder / "special_tokens_map.json").write_text(json.dumps(map_ | {"pad_token": "!</w>"}))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if not described:
        del config["added_tokens_decoder"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    expected = CLIPTokenizer.from_pretrained(folder)(["a cat", "a"], padding=True)["input_ids"]
    assert expected[1][-1] == (49407 if described else 256)
    np.testing.assert_array_equal(ours(folder)(["a cat", "a"]).input_ids, expected)


def test_clips_names_need_no_file(make_clip: Callable[..., Path]) -> None:
    folder = make_clip("<|startoftext|>", "<|endoftext|>")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    assert_same_ids(folder, TEXTS)


def test_tokenizer_json_gives_the_same_ids(clip: Path, tmp_path: Path) -> None:
    CLIPTokenizer.from_pretrained(clip).save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    assert (tmp_path / "tokenizer.json").exists()
    assert ids_of(ours(tmp_path), TEXTS) == ids_of(ours(clip), TEXTS)
    assert_same_ids(tmp_path, TEXTS)


@pytest.mark.parametrize("length", [2, 3, 16, 77])
def test_truncation(clip: Path, length: int) -> None:
    theirs = CLIPTokenizer.from_pretrained(clip)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AIMv2Warning)
        found = ids_of(ours(clip), TEXTS + LONG, length)
    expected = theirs(TEXTS + LONG, truncation=True, max_length=length)["input_ids"]
    assert found == expected
    assert max(map(len, found)) == length


def test_padding(clip: Path) -> None:
    texts = ["a cat", "a photo of a tabby cat", "", "dogs"]
    expected = CLIPTokenizer.from_pretrained(clip)(texts, padding=True)
    found = ours(clip)(texts)
    np.testing.assert_array_equal(found.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(found.attention_mask, expected["attention_mask"])


def test_decoding(clip: Path) -> None:
    theirs, tokenizer = CLIPTokenizer.from_pretrained(clip), ours(clip)
    for text, ids in zip(TEXTS, ids_of(tokenizer, TEXTS), strict=True):
        assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True), repr(text)


def test_clips_vocabulary_knows_every_character(clip: Path) -> None:
    """No warning about unknown characters, whatever the text (AIMv2Warning is an error here)."""
    ids_of(ours(clip), TEXTS + LONG)


def test_the_record_of_the_default_tests_is_what_transformers_gives() -> None:
    path = TESTS / "data/make_clip_tokens.py"
    spec = importlib.util.spec_from_file_location("make_clip_tokens", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads(RECORD.read_text()) == [list(pair) for pair in module.recorded()]
    assert module.FOLDER.resolve() == RANDOM_LIT.resolve()
