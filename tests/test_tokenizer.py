"""The tokenizer against ids recorded from transformers, and every way its files can be wrong."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_cases import RANDOM_LIT

from aimv2_np.errors import AIMv2Warning, TokenizerError
from aimv2_np.tokenizer import Tokenizer

RECORD = Path(__file__).parent / "data/clip_tokens.json"
RECORDED: list[tuple[str, list[int]]] = json.loads(RECORD.read_text())
FILES = ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json")
BEGIN, END = 97, 98


def read(folder: Path = RANDOM_LIT, **settings: Any) -> Tokenizer:
    settings = {"max_length": 16, "eos_token_id": END, "vocab_size": 99} | settings
    return Tokenizer.from_folder(folder, **settings)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny tokenizer, to be damaged."""
    for name in FILES:
        shutil.copy(RANDOM_LIT / name, tmp_path)
    return tmp_path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """The tiny tokenizer as one tokenizer.json."""
    text = read()._backend.to_str()
    (tmp_path / "tokenizer.json").write_text(text)
    return tmp_path


def ids(tokenizer: Tokenizer, text: str, max_length: int | None = None) -> list[int]:
    return [int(i) for i in tokenizer(text, max_length=max_length).input_ids[0]]


# ---------------------------------------------------------------------------- ids


@pytest.mark.filterwarnings("ignore:.*does not know:aimv2_np.errors.AIMv2Warning")
def test_recorded_ids(tokenizer: Tokenizer) -> None:
    assert len(RECORDED) >= 500
    wrong = [text for text, expected in RECORDED if ids(tokenizer, text, 10**6) != expected]
    assert wrong == []


def test_a_sentence_worked_by_hand(tokenizer: Tokenizer) -> None:
    """From vocab.json: a</w> 30, photo</w> 91, of</w> 92, cat</w> 94, s</w> 48, ' 26, !</w> 68."""
    assert ids(tokenizer, "a photo of a cat") == [BEGIN, 30, 91, 92, 30, 94, END]
    assert ids(tokenizer, "  A PHOTO\n of a\tcat!") == [BEGIN, 30, 91, 92, 30, 94, 68, END]
    assert ids(tokenizer, "cat's") == [BEGIN, 94, 26, 48, END]
    assert ids(tokenizer, "") == ids(tokenizer, " \n ") == [BEGIN, END]


def test_the_vocabulary_is_small_but_whole(tokenizer: Tokenizer) -> None:
    vocab = json.loads((RANDOM_LIT / "vocab.json").read_text())
    assert sorted(vocab.values()) == list(range(99))
    plain = "the quick brown fox jumps over the lazy dog, it's 0123456789 ( - ; : & / ? ! ) ..."
    assert END not in ids(tokenizer, plain, 1000)[1:-1]


def test_batches_are_padded_with_the_end_token(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["a cat", "", "a photo of a dog"])
    assert tokens.input_ids.dtype == tokens.attention_mask.dtype == np.int64
    assert tokens.input_ids.tolist() == [
        [BEGIN, 30, 94, END, END, END, END],
        [BEGIN, END, END, END, END, END, END],
        [BEGIN, 30, 91, 92, 30, 96, END],
    ]
    expected = [[1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1] * 7]
    assert tokens.attention_mask.tolist() == expected


@pytest.mark.parametrize("as_what", [list, tuple, np.array])
def test_texts_come_as_any_sequence(tokenizer: Tokenizer, as_what: Callable[..., Any]) -> None:
    assert tokenizer(as_what(["a cat", "a dog"])).input_ids.shape == (2, 4)


def test_a_typed_end_token_is_an_end_token_in_any_case(tokenizer: Tokenizer) -> None:
    for typed in ("<end_of_text>", "<END_OF_TEXT>", "<End_Of_Text>"):
        assert ids(tokenizer, f"a cat {typed} a dog") == [BEGIN, 30, 94, END, 30, 96, END]


def test_a_character_that_would_end_the_text_is_a_warning(tokenizer: Tokenizer) -> None:
    message = r"text 2 of 3 'a café': .*vocab\.json does not know 'é'; .* ends a text"
    with pytest.warns(AIMv2Warning, match=message) as caught:
        tokenizer(["a cat", "a café", "a<end_of_text>b"])
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_truncation_keeps_the_end_token_and_says_what_was_cut(tokenizer: Tokenizer) -> None:
    long = "a cat and a dog " * 5  # 25 tokens and two
    with pytest.warns(AIMv2Warning, match="cut to 16 tokens: text 2 by 11; the end") as caught:
        tokens = tokenizer(["a cat", long, "a dog"])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    words = [30, 94, 84, 30, 96]
    assert tokens.input_ids[1].tolist() == [BEGIN, *(words * 3)[:14], END]
    with pytest.warns(AIMv2Warning, match=r"text 1 by 24, .* text 5 by 24 and 2 more texts"):
        assert tokenizer([long] * 7, max_length=3).input_ids.tolist() == [[BEGIN, 30, END]] * 7
    assert tokenizer(long, max_length=27).input_ids.shape == (1, 27)


def test_tokens_and_decoding(tokenizer: Tokenizer) -> None:
    text = "A photo, of a CAT"
    expected = ["a</w>", "photo</w>", ",</w>", "of</w>", "a</w>", "cat</w>"]
    assert tokenizer.tokens(text) == ["<start_of_text>", *expected, "<end_of_text>"]
    assert tokenizer.decode(tokenizer(text).input_ids[0]) == "a photo , of a cat"
    assert tokenizer.decode([]) == ""
    with pytest.warns(AIMv2Warning, match="cut to 16"):
        assert len(tokenizer.tokens("cat " * 20)) == 16


def test_one_tokenizer_json_gives_the_same_ids(whole: Path, tokenizer: Tokenizer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AIMv2Warning)
        one = read(whole)
        assert [ids(one, text, 10**6) for text, _ in RECORDED] == [e for _, e in RECORDED]


def test_lengths_left_in_a_tokenizer_json_are_ignored(whole: Path) -> None:
    path = whole / "tokenizer.json"
    raw = json.loads(path.read_text())
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
    pad |= {"pad_id": 3, "pad_type_id": 0, "pad_token": "d"}
    path.write_text(json.dumps(raw | {"truncation": cut, "padding": pad}))
    assert ids(read(whole), "a photo of a cat") == [BEGIN, 30, 91, 92, 30, 94, END]


# ---------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no text at all"),
        ((), "no text at all"),
        (None, "expected a string or a list of strings, found NoneType"),
        (5, "found int: 5"),
        (b"a cat", "found bytes"),
        ({"a": 1}, "found dict"),
        (np.array("a cat"), "found ndarray"),
        (np.array([["a cat"]]), "found ndarray"),
        (["a cat", None], "^text 2 of 2: expected a string, found NoneType"),
        (["a cat", b"dog", "x"], "^text 2 of 3: expected a string, found bytes"),
        ([1.5], "^text 1 of 1: expected a string, found float"),
        ([["a cat"]], "^text 1 of 1: expected a string, found list"),
        ("a\ud83d cat", r"^text 1 of 1: character 1 is half a surrogate pair \('\\ud83d'\)"),
        (["a", "\udc00"], "^text 2 of 2: character 0 is half a surrogate pair"),
    ],
)
def test_what_is_no_text(tokenizer: Tokenizer, texts: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer(texts)


@pytest.mark.parametrize("length", [1, 0, -5, 2.0, "16"])
def test_lengths_without_room_for_both_ends(tokenizer: Tokenizer, length: Any) -> None:
    with pytest.raises(TokenizerError, match="max_length is .* at least 2"):
        tokenizer("a cat", max_length=length)


@pytest.mark.parametrize("wrong", [[99], [-1], [2**40], ["a"], [1.5], [[1, 2]], [None]])
def test_ids_that_are_none(tokenizer: Tokenizer, wrong: Any) -> None:
    with pytest.raises(TokenizerError, match=r"vocab\.json has no token with the id"):
        tokenizer.decode(wrong)


# ---------------------------------------------------------------------------- files


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    looked_for = r"looked for tokenizer\.json, or vocab\.json and merges\.txt"
    with pytest.raises(TokenizerError, match=looked_for + ", found none of them; vision-only"):
        read(tmp_path)
    shutil.copy(RANDOM_LIT / "vocab.json", tmp_path)
    with pytest.raises(TokenizerError, match=r"found vocab\.json only"):
        read(tmp_path)
    with pytest.raises(TokenizerError, match="found none of them"):
        read(tmp_path / "nowhere")


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    message = r"vocab\.json: texts end in '<end_of_text>', id 98, but the model .* at id 49407"
    with pytest.raises(TokenizerError, match=message):
        read(folder, eos_token_id=49407)
    with pytest.raises(TokenizerError, match="'<end_of_text>' has the id 98, but .* 98 tokens"):
        read(folder, vocab_size=98)
    assert read(folder, vocab_size=None).eos_token_id == END


def test_which_of_two_files_names_the_end_token(folder: Path) -> None:
    """tokenizer_config.json if it describes its tokens, else special_tokens_map.json."""
    edited(folder / "special_tokens_map.json", lambda raw: raw.update(eos_token="z</w>"))
    assert ids(read(folder), "a") == [BEGIN, 30, END]
    edited(folder / "tokenizer_config.json", lambda raw: raw.pop("added_tokens_decoder") and None)
    with pytest.raises(TokenizerError, match="texts end in 'z</w>', id 55"):
        read(folder)


def edited(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrite a JSON file; `change` edits the object in place or returns another."""
    raw = json.loads(path.read_text())
    result = change(raw)
    path.write_text(json.dumps(raw if result is None else result))


JSON_DAMAGE: list[tuple[str, Callable[[Any], Any], str]] = [
    ("vocab.json", lambda raw: [], "expected a JSON object, found list"),
    ("vocab.json", lambda raw: raw.update(a="0"), "'a' has the id '0', expected 0 to n"),
    ("vocab.json", lambda raw: raw.update(a=-1), "'a' has the id -1"),
    ("vocab.json", lambda raw: raw.update(a=True), "'a' has the id True"),
    ("vocab.json", lambda raw: raw.update(a=2**40), "'a' has the id"),
    ("vocab.json", lambda raw: raw.update(a=1), "'b' and 'a' both have the id 1"),
    ("vocab.json", lambda raw: {**raw, "\ud800": 99}, "half a surrogate pair"),
    ("vocab.json", lambda raw: raw.pop("<end_of_text>") and None, "has no '<end_of_text>', the"),
    ("vocab.json", lambda raw: raw.pop("<start_of_text>") and None, "has no '<start_of_text>'"),
    ("vocab.json", lambda raw: raw.update(more=99), "'more' has the id 99, .* 99 tokens"),
    ("special_tokens_map.json", lambda raw: "x", "expected a JSON object, found str"),
    ("tokenizer_config.json", lambda raw: 5, "expected a JSON object, found int"),
    ("tokenizer_config.json", lambda raw: raw.update(eos_token=7), "eos_token is 7, expected"),
    ("tokenizer_config.json", lambda raw: raw.update(pad_token=""), "pad_token is '', expected"),
    (
        "tokenizer_config.json",
        lambda raw: raw.update(added_tokens_decoder=[1]),
        r"added_tokens_decoder is \[1\], expected an object",
    ),
    (
        "tokenizer_config.json",
        lambda raw: raw.update(added_tokens_decoder={"98": "<end_of_text>"}),
        "98 is '<end_of_text>', expected an object",
    ),
    (
        "tokenizer_config.json",
        lambda raw: raw["added_tokens_decoder"].update({"5": {"content": "<end_of_text>"}}),
        "gives '<end_of_text>' the id 5, but .* 98",
    ),
    (
        "tokenizer_config.json",
        lambda raw: raw["added_tokens_decoder"]["97"].update(normalized="yes"),
        "97: normalized is 'yes', expected true or false",
    ),
    (
        "tokenizer_config.json",
        lambda raw: raw["added_tokens_decoder"]["97"].update(content="\udc00"),
        "expected a token's text",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), JSON_DAMAGE)
def test_malformed_json(
    folder: Path, name: str, change: Callable[[Any], Any], message: str
) -> None:
    edited(folder / name, change)
    with pytest.raises(TokenizerError, match=message) as caught:
        read(folder)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", *FILES])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b'{"a": 1', "is no JSON|merges"),
        (b"\xff\xfe\x00", "byte 0 is not UTF-8 text"),
        (b"[" * 100_000, "is no JSON|expected two tokens"),
        (b"1" * 10_000, "is no JSON|expected a JSON object|expected two tokens"),
    ],
)
def test_files_that_are_something_else(
    folder: Path, name: str, content: bytes, message: str
) -> None:
    (folder / name).write_bytes(content)
    if name == "merges.txt" and not content:
        assert ids(read(folder), "cat") == [BEGIN, 2, 0, 49, END], "no merges: single letters"
        return
    with pytest.raises(TokenizerError, match=message) as caught:
        read(folder)
    assert f"/{name}: " in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("t", "line 20 is 't', expected two tokens"),
        ("t h e", "line 20 is 't h e', expected two tokens"),
        ("t  h", "expected two tokens"),
        ("t zebra", "line 20 merges 't zebra', but vocab.json has no 'zebra'"),
        ("z z", "line 20 merges 'z z', but vocab.json has no 'zz'"),
    ],
)
def test_malformed_merges(folder: Path, line: str, message: str) -> None:
    with (folder / "merges.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(TokenizerError, match=message) as caught:
        read(folder)
    assert str(caught.value).startswith(str(folder / "merges.txt"))


def test_windows_line_ends_and_a_missing_version_line(folder: Path) -> None:
    lines = (folder / "merges.txt").read_text().splitlines()[1:]
    (folder / "merges.txt").write_bytes("\r\n".join(lines).encode())
    assert ids(read(folder), "a photo of a cat") == [BEGIN, 30, 91, 92, 30, 94, END]


def test_a_tokenizer_json_without_begin_and_end(whole: Path) -> None:
    edited(whole / "tokenizer.json", lambda raw: raw.update(post_processor=None))
    with pytest.raises(TokenizerError, match=r"becomes the ids \[\], expected a begin and an end"):
        read(whole)


def test_a_tokenizer_json_that_fails_only_when_it_is_used(whole: Path) -> None:
    edited(whole / "tokenizer.json", lambda raw: raw["model"].update(unk_token="nonsuch"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: the tokenizers library"):
        read(whole)("é")


def test_the_librarys_panics_are_caught_but_an_interrupt_is_not() -> None:
    from aimv2_np.tokenizer_files import library_errors

    panic = type("PanicException", (BaseException,), {})
    with (
        pytest.raises(TokenizerError, match="file: the tokenizers library"),
        library_errors("file"),
    ):
        raise panic("index out of range")
    with pytest.raises(KeyboardInterrupt), library_errors("file"):
        raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::aimv2_np.errors.AIMv2Warning")
@pytest.mark.parametrize("name", FILES)
def test_random_damage_gives_a_tokenizer_or_a_tokenizer_error(folder: Path, name: str) -> None:
    """150 mutations of each file; nothing of the Rust library's own may get out."""
    draw = random.Random(name)
    original = (RANDOM_LIT / name).read_bytes()
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data))] = draw.choice(b'{}[]":,0129\\ \n\xffae</_')
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        (folder / name).write_bytes(data)
        try:
            read(folder)(["a photo of a cat", "x é <end_of_text> 1"])
        except TokenizerError:
            refused += 1
    assert refused, "none of the mutations did any harm"
