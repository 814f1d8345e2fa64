"""From texts to the token ids that AIMv2's text encoder takes.

The vocabulary is CLIP's: a text is brought to Unicode's composed form (NFC), runs of white space
become one space, letters become lower-case, words are split by CLIP's pattern, their UTF-8 bytes
are written as printable characters (as in GPT-2) and merged pairwise; the last piece of a word ends
in `</w>`. A begin token goes before and an end token after. The merging is done by the `tokenizers`
library; the ids equal those of transformers' CLIPTokenizer (5.23, tokenization_clip.py).

A repository holds either tokenizer.json, or vocab.json and merges.txt beside the two files that
name the special tokens; AIMv2 calls them `<start_of_text>` and `<end_of_text>`, CLIP did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import TokenizerError, warn
from .tokenizer_files import END_OF_WORD, library_errors, load_backend

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenizer", "Tokens", "as_texts"]


class Tokens(NamedTuple):
    """A batch of texts as ids, padded on the right to the longest of them."""

    input_ids: NDArray[np.int64]  # (B, T)
    attention_mask: NDArray[np.int64]  # (B, T), 1 for tokens, 0 for padding


class Tokenizer:
    """The tokenizer of a checkpoint.

    Traps:

    * A special token typed in a text is taken as that token, in upper-case too if the files say
      that it is `normalized` (AIMv2's do). The model ends a text at its **first** end token, so
      whatever follows a typed `<end_of_text>` is without effect. transformers does the same.
    * CLIP's `<|endoftext|>` is no special token in AIMv2; typed, it is ordinary text.
    * Padding is the end token as well: only the attention mask tells them apart.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        max_length: int,
        eos_token_id: int,
        pad_token_id: int,
        source: str = "tokenizer",
    ) -> None:
        """Take a `tokenizers` object that adds the begin and the end token itself."""
        self._backend = backend
        self.max_length = max_length
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id
        self.source = source

    @classmethod
    def from_folder(
        cls, folder: Path, *, max_length: int, eos_token_id: int, vocab_size: int | None = None
    ) -> Tokenizer:
        """The tokenizer of a folder: from tokenizer.json, else from vocab.json and merges.txt.

        Args:
            folder: where the files are.
            max_length: the model's context, in tokens.
            eos_token_id: the id at which the model ends a text.
            vocab_size: how many tokens the model has embeddings for; None leaves that unchecked.

        Raises:
            TokenizerError: no tokenizer files (vision-only checkpoints have none), malformed ones,
                or ones that contradict the model; names the file.
        """
        backend, pad, source = load_backend(Path(folder), eos_token_id, vocab_size)
        return cls(
            backend,
            max_length=max_length,
            eos_token_id=eos_token_id,
            pad_token_id=eos_token_id if pad is None else pad,
            source=source,
        )

    def __call__(self, texts: str | Sequence[str], *, max_length: int | None = None) -> Tokens:
        """Token ids and attention mask of one text or several, int64 (B, T).

        A text longer than `max_length` tokens (default: the model's context) loses words at its
        end; its end token stays.

        Raises:
            TokenizerError: no text, not a string, or half a surrogate pair in a string.

        Warns:
            AIMv2Warning: texts were cut; or a character that the vocabulary does not know became
                the unknown token, which in AIMv2 ends the text (CLIP's vocabulary knows them all).
        """
        rows = self._rows(texts, max_length)
        shape = len(rows), max(map(len, rows))
        input_ids = np.full(shape, self.pad_token_id, np.int64)
        attention_mask = np.zeros(shape, np.int64)
        for i, row in enumerate(rows):
            input_ids[i, : len(row)] = row
            attention_mask[i, : len(row)] = 1
        return Tokens(input_ids, attention_mask)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids (T,) stand for, in lower-case and without special tokens.

        Raises:
            TokenizerError: an id that the vocabulary does not have.
        """
        plain = list(ids)
        for i in plain:
            whole = isinstance(i, int | np.integer) and 0 <= i < 2**32
            if not whole or self._backend.id_to_token(int(i)) is None:
                raise TokenizerError(
                    f"{self.source} has no token with the id {i!r:.80}; expected one row of ids"
                )
        with library_errors(self.source):
            text: str = self._backend.decode([int(i) for i in plain], skip_special_tokens=True)
        return text.replace(END_OF_WORD, " ").strip()

    def tokens(self, text: str) -> list[str]:
        """The tokens of one text as the vocabulary spells them, one per position of its ids."""
        (row,) = self._rows([text], None)
        return [self._backend.id_to_token(i) or "" for i in row]

    def _rows(self, texts: Any, max_length: int | None) -> list[list[int]]:
        """The ids of each text, begin and end token included, no longer than asked for."""
        named = _named(texts)
        with library_errors(self.source):
            encodings = [self._backend.encode(text) for text, _ in named]
        for (text, where), encoding in zip(named, encodings, strict=True):
            if self.eos_token_id in encoding.ids[1:-1]:
                self._warn_of_unknown(text, where, encoding)
        return self._cut([encoding.ids for encoding in encodings], max_length)

    def _warn_of_unknown(self, text: str, where: str, encoding: tokenizers.Encoding) -> None:
        """Warn if an end token in the middle stands for an unknown character, not for itself."""
        typed = (self._backend.id_to_token(self.eos_token_id) or "").lower()
        inside = list(zip(encoding.ids, encoding.offsets, strict=True))[1:-1]
        found = {text[a:b] for i, (a, b) in inside if i == self.eos_token_id}
        unknown = sorted(part for part in found if part.lower() != typed)
        if unknown:
            warn(
                f"{where} {_shown(text)}: the vocabulary of {self.source} does not know "
                f"{', '.join(map(repr, unknown))}; the token it uses instead ends a text, so what "
                "follows has no effect"
            )

    def _cut(self, rows: list[list[int]], max_length: int | None) -> list[list[int]]:
        """Texts cut to the length given, each with its end token; warns once for all of them."""
        length = self.max_length if max_length is None else max_length
        if not isinstance(length, int | np.integer) or length < 2:
            raise TokenizerError(
                f"max_length is {length!r}, expected an integer of at least 2: "
                "the begin and the end token"
            )
        cut = [(i, len(row) - length) for i, row in enumerate(rows, 1) if len(row) > length]
        if cut:
            which = ", ".join(f"text {i} by {n}" for i, n in cut[:5])
            more = f" and {len(cut) - 5} more texts" if len(cut) > 5 else ""
            warn(
                f"cut to {length} tokens: {which}{more}; the end token stays, the words before it "
                "are lost: shorten the text if they matter"
            )
        return [row if len(row) <= length else [*row[: length - 1], row[-1]] for row in rows]


def as_texts(texts: Any) -> list[str]:
    """One text, or several in an order, as a list of at least one string.

    Raises:
        TokenizerError: no text, or something in it is no string, or half a surrogate pair.
    """
    return [text for text, _ in _named(texts)]


def _named(texts: Any) -> list[tuple[str, str]]:
    """The texts, each with what messages call it; checks that they are texts."""
    several = [texts] if isinstance(texts, str) else texts
    listed = isinstance(several, Sequence) and not isinstance(several, bytes | bytearray)
    if not listed and not (isinstance(several, np.ndarray) and several.ndim == 1):
        kind = type(texts).__name__
        raise TokenizerError(f"expected a string or a list of strings, found {kind}: {texts!r:.80}")
    if len(several) == 0:
        raise TokenizerError("expected a string or a list of strings, found no text at all")
    named = []
    for i, text in enumerate(several, 1):
        where = f"text {i} of {len(several)}"
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TokenizerError(f"{where}: expected a string, found {kind}: {text!r:.80}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"{where}: character {error.start} is half a surrogate pair "
                f"({text[error.start]!a}), which is no text; decode the bytes it came from again"
            ) from None
        named.append((text, where))
    return named


def _shown(text: str) -> str:
    """The beginning of a text, for a message."""
    return repr(text if len(text) <= 40 else text[:39] + "…")
