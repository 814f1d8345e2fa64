"""Learn the tokenizer from the captions, and turn captions into ids for the trainer.

    python tokenizer.py [--out data/tokenizer]

A byte-level BPE in CLIP's conventions: 256 bytes, the same 256 at the end of a word, the merges,
the two special tokens. Normalisation and splitting are not written again here: the package's own
loader reads a vocabulary without merges, the library learns on that, and the trainer encodes
through the package too. So what the model was trained on is what `aimv2_np` gives it later.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import ceil
from pathlib import Path

import torch
from tokenizers import pre_tokenizers, trainers

from aimv2_np.tokenizer import Tokenizer
from aimv2_np.tokenizer_files import END_OF_WORD, load_backend
from captions import TEMPLATES, captions
from emoji import all_emoji
from model import Sizes
from paths import TOKENIZER

BEGIN, END = "<start_of_text>", "<end_of_text>"

_COUNTS = 20  # how often the corpus holds a caption whose share is 1

Merges = list[tuple[str, str]]


def corpus() -> Iterator[str]:
    """Each caption of each emoji about as often as training shows it; the templates' words."""
    for emoji in all_emoji():
        for words, share in captions(emoji):
            yield from [words] * ceil(_COUNTS * share)
    for template in TEMPLATES:
        yield from [template.format("", a="a an")] * _COUNTS


def byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes (GPT-2's), CLIP's order: printable ones first."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    return symbols + [symbol + END_OF_WORD for symbol in symbols]


def learn(size: int) -> Merges:
    """The merges that fill a vocabulary of this size."""
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch), [], context=2)
        backend, _, _ = load_backend(Path(scratch), len(byte_symbols()) + 1, None)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2,
        show_progress=False,
        # Not special at all, but these get their ids in this order. Left to itself the library
        # numbers the ends of words in the order of a hash table, and ties are broken by id.
        special_tokens=byte_symbols(),
        end_of_word_suffix=END_OF_WORD,
    )
    backend.train_from_iterator(corpus(), trainer)
    merges = [tuple(pair) for pair in json.loads(backend.to_str())["model"]["merges"]]
    found = len({"".join(pair) for pair in merges} | set(byte_symbols())) + 2
    if found != size:
        raise ValueError(f"the captions yield a vocabulary of {found} entries, not {size}")
    return merges


def write(folder: Path, merges: Merges, context: int) -> None:
    """The four files of a tokenizer, as AIMv2's repositories have them."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [*byte_symbols(), *("".join(pair) for pair in merges), BEGIN, END]
    vocab = {entry: i for i, entry in enumerate(entries)}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    roles = {"bos_token": BEGIN, "eos_token": END, "pad_token": END, "unk_token": END}
    special = {role: {"content": token, **flags} for role, token in roles.items()}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(vocab[token]): {"content": token, **flags, "special": True}
            for token in (BEGIN, END)
        },
        **roles,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": context,
        "tokenizer_class": "CLIPTokenizer",
    }
    for name, content in (("special_tokens_map", special), ("tokenizer_config", config)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


@lru_cache
def tokenizer() -> Tokenizer:
    """The learnt tokenizer, as the package loads it."""
    sizes = Sizes()
    return Tokenizer.from_folder(
        TOKENIZER,
        max_length=sizes.context,
        eos_token_id=sizes.vocabulary - 1,
        vocab_size=sizes.vocabulary,
    )


@lru_cache(maxsize=2**18)
def _row(text: str) -> torch.Tensor:
    return torch.from_numpy(tokenizer()(text).input_ids[0])


def encode(texts: Sequence[str]) -> torch.Tensor:
    """Ids (B, T), int64, padded with the end token to the longest text, of `context` at most."""
    rows = [_row(text) for text in texts]
    end = tokenizer().pad_token_id
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn it and write it."""
    parser = argparse.ArgumentParser(description="Learn the tokenizer from the captions.")
    parser.add_argument("--out", type=Path, default=TOKENIZER, help="folder for its four files")
    out = parser.parse_args(arguments).out
    sizes = Sizes()
    write(out, learn(sizes.vocabulary), sizes.context)
    print(f"{out}: {sizes.vocabulary} entries")


if __name__ == "__main__":
    main()
