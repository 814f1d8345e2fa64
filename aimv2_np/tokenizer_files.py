"""Reading a tokenizer's files, and saying what is wrong with them before the Rust library does.

Two forms: tokenizer.json, which holds everything, and the older set of vocab.json, merges.txt,
special_tokens_map.json and tokenizer_config.json, from which CLIP's pipeline is built here. The
facts of that pipeline are those of CLIP's simple_tokenizer.py and of transformers 5.23's
CLIPTokenizer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers

__all__ = ["END_OF_WORD", "has_tokenizer", "library_errors", "load_backend"]

END_OF_WORD = "</w>"

# CLIP's special tokens, contractions, words, single digits, runs of anything else.
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
# Their names where no file gives any: CLIP's own (transformers' class defaults).
SPECIAL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
FLAGS = ("lstrip", "rstrip", "single_word", "normalized")

Vocabulary = dict[str, int]
Loaded = tuple["tokenizers.Tokenizer", int | None, str]


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer's main file; it may still be broken or lack another."""
    return any(os.path.isfile(folder / name) for name in ("tokenizer.json", "vocab.json"))


def load_backend(folder: Path, eos_token_id: int, vocab_size: int | None) -> Loaded:
    """The `tokenizers` object of a folder, its padding id if the files name one, and its source.

    Raises:
        TokenizerError: as `Tokenizer.from_folder`.
    """
    whole, vocab, merges = (folder / n for n in ("tokenizer.json", "vocab.json", "merges.txt"))
    if os.path.isfile(whole):
        backend, source = _from_tokenizer_json(whole), whole
    elif os.path.isfile(vocab) and os.path.isfile(merges):
        backend, source = _from_vocabulary(folder, vocab, merges), vocab
    else:
        found = [path.name for path in (vocab, merges) if os.path.isfile(path)]
        raise TokenizerError(
            f"{folder}: no tokenizer: looked for tokenizer.json, or vocab.json and merges.txt, "
            f"found {found[0] + ' only' if found else 'none of them'}; vision-only checkpoints "
            "have none, only large-patch14-224-lit reads text"
        )
    _check_ids(backend, source, eos_token_id, vocab_size)
    pad = _special_tokens(folder)["pad_token"]
    return backend, backend.token_to_id(pad), str(source)


@contextmanager
def library_errors(source: Path | str) -> Iterator[None]:
    """Turn whatever the Rust library raises into a TokenizerError that names the file.

    It has no classes of its own: errors are plain `Exception`s, and a panic, which a malformed
    tokenizer.json can cause as late as with the first text, is a `BaseException` of a class that
    cannot be imported. Nothing but calls into the library belongs in such a block.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # KeyboardInterrupt and its like
        raise TokenizerError(
            f"{source}: the tokenizers library cannot work with it ({error}); fetch the file again"
        ) from error


def _from_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    import tokenizers

    text = _text(path)
    _object(path, text)
    with library_errors(path):
        backend = tokenizers.Tokenizer.from_str(text)
    backend.no_truncation()  # a length that somebody left in the file; ours keeps the end token
    backend.no_padding()
    return backend


def _from_vocabulary(folder: Path, vocab_path: Path, merges_path: Path) -> tokenizers.Tokenizer:
    """CLIP's pipeline around a vocabulary and its merges."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    vocab = _vocabulary(vocab_path)
    names = _special_tokens(folder)
    for role, name in names.items():
        if name not in vocab:
            raise TokenizerError(
                f"{vocab_path}: has no {name!r}, the {role}; special_tokens_map.json or "
                "tokenizer_config.json beside it must name a token of this vocabulary"
            )
    merges = _merges(merges_path, vocab)
    backend = Tokenizer(
        BPE(vocab, merges, unk_token=names["unk_token"], end_of_word_suffix=END_OF_WORD)
    )
    one_space = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), one_space, normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    _add_special(backend, folder, names)
    begin, end = names["bos_token"], names["eos_token"]
    backend.post_processor = processors.RobertaProcessing(
        (end, vocab[end]), (begin, vocab[begin]), trim_offsets=False, add_prefix_space=False
    )
    return backend


# ---------------------------------------------------------------------------- special tokens


def _special_tokens(folder: Path) -> dict[str, str]:
    """The begin, end, unknown and padding token by role.

    tokenizer_config.json comes before special_tokens_map.json if it describes its tokens
    (`added_tokens_decoder`), and after it in older repositories, which did not; as in transformers.
    """
    config = _optional(folder / "tokenizer_config.json")
    older = _optional(folder / "special_tokens_map.json")
    files = [("tokenizer_config.json", config), ("special_tokens_map.json", older)]
    if "added_tokens_decoder" not in config:
        files.reverse()
    names = dict(SPECIAL)
    for role in SPECIAL:
        for file, raw in files:
            if raw.get(role) is not None:
                names[role] = _token(raw[role], f"{folder / file}: {role}")["content"]
                break
    return names


def _token(raw: Any, where: str) -> dict[str, Any]:
    """A token's text and flags. A bare text is matched before normalisation, so in that case only.

    Raises:
        TokenizerError: neither a string nor an object with a string and switches.
    """
    described = raw if isinstance(raw, Mapping) else {"content": raw}
    content = described.get("content")
    if not isinstance(content, str) or not content or not _is_text(content):
        raise TokenizerError(f"{where} is {raw!r:.80}, expected a token's text")
    flags = {flag: described.get(flag, False) for flag in FLAGS}
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise TokenizerError(f"{where}: {flag} is {value!r:.80}, expected true or false")
    return {"content": content, **flags}


def _add_special(backend: tokenizers.Tokenizer, folder: Path, names: dict[str, str]) -> None:
    """Tell the library which tokens stand for themselves when they are typed in a text."""
    from tokenizers import AddedToken

    path = folder / "tokenizer_config.json"
    listed = _optional(path).get("added_tokens_decoder")
    older = {} if listed is not None else _optional(folder / "special_tokens_map.json")
    if not isinstance(listed, Mapping | None):
        raise TokenizerError(f"{path}: added_tokens_decoder is {listed!r:.80}, expected an object")
    for key, raw in sorted((listed or {}).items(), key=lambda item: (len(item[0]), item[0])):
        where = f"{path}: added_tokens_decoder: {key}"
        if not isinstance(raw, Mapping):
            raise TokenizerError(f"{where} is {raw!r:.80}, expected an object")
        token = _token(raw, where)
        special = bool(raw.get("special")) or token["content"] in names.values()
        backend.add_tokens([AddedToken(**token, special=special)])
        if str(backend.token_to_id(token["content"])) != key:
            raise TokenizerError(
                f"{path}: added_tokens_decoder gives {token['content']!r} the id {key}, but in "
                f"vocab.json it has, or would get, {backend.token_to_id(token['content'])}"
            )
    described = {_token(raw, "")["content"] for raw in (listed or {}).values()}
    for role, name in names.items():
        if name not in described:
            token = _token(older.get(role) or name, f"{folder}: {role}")
            backend.add_special_tokens([AddedToken(**token, special=True)])


def _check_ids(
    backend: tokenizers.Tokenizer, source: Path, eos_token_id: int, vocab_size: int | None
) -> None:
    """Raise if the tokenizer's ids are not those of the model."""
    with library_errors(source):
        ids = backend.encode("").ids
    if len(ids) != 2:
        raise TokenizerError(
            f"{source}: an empty text becomes the ids {ids}, expected a begin and an end token"
        )
    if ids[1] != eos_token_id:
        raise TokenizerError(
            f"{source}: texts end in {backend.id_to_token(ids[1])!r}, id {ids[1]}, but the model "
            f"ends a text at id {eos_token_id} (eos_token_id in config.json): "
            "these files belong to another model"
        )
    token, largest = max(backend.get_vocab().items(), key=lambda item: item[1])
    if vocab_size is not None and largest >= vocab_size:
        raise TokenizerError(
            f"{source}: {token!r} has the id {largest}, but the model has embeddings for "
            f"{vocab_size} tokens: these files belong to another model"
        )


# ---------------------------------------------------------------------------- files


def _vocabulary(path: Path) -> Vocabulary:
    vocab = _object(path, _text(path))
    for token, index in vocab.items():
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < 2**31:
            raise TokenizerError(f"{path}: {token!r:.80} has the id {index!r:.80}, expected 0 to n")
        if not _is_text(token):
            raise TokenizerError(f"{path}: {token!a:.80} is half a surrogate pair, no token")
    if len(set(vocab.values())) < len(vocab):
        seen: dict[int, str] = {}
        for token, index in vocab.items():
            if seen.setdefault(index, token) != token:
                raise TokenizerError(
                    f"{path}: {token!r:.80} and {seen[index]!r:.80} both have the id {index}"
                )
    return dict(vocab)


def _merges(path: Path, vocab: Vocabulary) -> list[tuple[str, str]]:
    """The pairs of merges.txt in order of priority; a first line `#version: …` is skipped."""
    merges = []
    for number, line in enumerate(_text(path).removesuffix("\n").split("\n"), 1):
        if not line or line.startswith("#version"):
            continue
        pair = line.removesuffix("\r").split(" ")
        if len(pair) != 2:
            raise TokenizerError(f"{path}: line {number} is {line!r:.80}, expected two tokens")
        unknown = [token for token in (*pair, "".join(pair)) if token not in vocab]
        if unknown:
            raise TokenizerError(
                f"{path}: line {number} merges {line!r:.80}, but vocab.json has no "
                f"{unknown[0]!r:.80}; the two files belong to different tokenizers"
            )
        merges.append((pair[0], pair[1]))
    return merges


def _optional(path: Path) -> Mapping[str, Any]:
    return _object(path, _text(path)) if os.path.isfile(path) else {}


def _object(path: Path, text: str) -> dict[str, Any]:
    """A file's JSON object, or a TokenizerError that names the file."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: is no JSON ({error}); fetch the file again") from None
    if not isinstance(raw, dict):
        raise TokenizerError(f"{path}: expected a JSON object, found {type(raw).__name__}")
    return raw


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}; check it") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{path}: byte {error.start} is not UTF-8 text; fetch the file again"
        ) from None


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON can spell half a surrogate pair, Python can keep one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
