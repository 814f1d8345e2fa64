"""Writes clip_tokens.json: varied texts, and their ids from transformers' CLIPTokenizer.

The ids are those of the small vocabulary in random-lit beside it, so that the default tests can
check the tokenizer without transformers and without CLIP's vocabulary. A comparison test
(tests/compare/test_tokenizer.py) makes the record again and compares, and uses the same texts with
CLIP's own vocabulary.

    python tests/data/make_clip_tokens.py
"""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

RECORD = Path(__file__).with_name("clip_tokens.json")
FOLDER = Path(__file__).with_name("random-lit")

PICKED = [
    # plain, empty, white space
    "", " ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\ufeff", "\x85",
    "a photo of a cat", "a photo of a dog", "A Photo Of A CAT", "  a   photo\tof\na  cat  ", "a",
    "the", "x", "hello world", "hello  world!", "Hello, World!", "tabby cat", "a\u00a0photo",
    "itap of a cat.", "a bad photo of the dog.", "a rendering of a {}.",
    "a cat, a dog, and the rest",
    # contractions and apostrophes
    "it's", "IT'S", "don't", "we're", "I've", "I'm", "you'll", "he'd", "'s", "'t 're 've 'm 'll 'd",
    "cats'", "rock 'n' roll", "it\u2019s", "o'clock", "'sdog", "'LLama", "y'all'd've", "''s", "'",
    # digits and numbers
    "0", "1", "10", "2024", "3.14159", "1,000,000", "1st 2nd 3rd", "b2b", "x86_64", "mp3", "a1b2c3",
    "\u0661\u0662\u0663", "\u00bd", "\u00b2", "\u2163", "\u2460", "\uff11\uff12", "1e-5", "007",
    # punctuation
    ".", "..", "...", "!!!", "?!?!", "-", "--", "---", "-----", "***", "a.b.c", "a-b", "(a)", "[a]",
    "{a}", "<a>", "a/b\\c", "~`@#$%^&*()_+=|", '"quoted"', "\u201cquoted\u201d",
    "\u2013\u2014\u2026",
    "$5.99", "50%", "#tag", "@user", "a_b", "e.g., i.e.", ":-)", ";)", "<3", "C++", "c#", "R&B",
    # entities, addresses, code
    "&amp;", "&amp;amp;", "&lt;b&gt;", "&#39;", "&nbsp;", "&eacute;", "&lt;end_of_text&gt;",
    "https://example.org/a?b=c&d=e#f", "user@example.org", "def f(x):\n    return x",
    "<html></html>",
    # special tokens typed as text
    "<end_of_text>", "<END_OF_TEXT>", "<End_Of_Text>", "<start_of_text>", "<START_OF_TEXT>",
    "<|endoftext|>", "<|ENDOFTEXT|>", "<|startoftext|>", "a cat<end_of_text>a dog",
    "a cat <end_of_text> a dog", "<end_of_text><end_of_text>", "<end_of_text", "end_of_text>",
    "< end_of_text >", "<end of text>", "<start_of_text>a cat<end_of_text>", "<end_of_text>s",
    "a<|endoftext|>b", "<|startoftext|>a<|endoftext|>", "<pad>", "<unk>", "</w>", "a</w>",
    "</w></w>",
    "<end_of\u200b_text>", "\uff1cend_of_text\uff1e", "\u0120", "\u0120a", "\u010a", "<|im_start|>",
    # accents: composed and decomposed
    "caf\u00e9", "cafe\u0301", "CAF\u00c9", "na\u00efve", "\u00c5ngstr\u00f6m",
    "A\u030angstro\u0308m",
    "\u212b", "\u1e9e\u00df", "Stra\u00dfe", "\u0130stanbul", "\u0131", "\u01c4\u01c5\u01c6",
    "\ufb01",
    "e\u0301\u0302\u0303", "\u0301", "\u0301a", "q\u0307\u0323", "q\u0323\u0307", "\u1e69",
    "\u0344",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324a\u0335\u0315\u0313l",
    # scripts
    "\u4e00\u5f20\u732b\u7684\u7167\u7247", "\u4f60\u597d\uff0c\u4e16\u754c\uff01",
    "\u732b\u306e\u5199\u771f",
    "\u30cd\u30b3", "\uff76\uff9e", "\uace0\uc591\uc774", "\u1100\u1161\u11a8",
    "\u0642\u0637\u0629",
    "\u0635\u0648\u0631\u0629 \u0644\u0642\u0637\u0629",
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627",
    "\u05d7\u05ea\u05d5\u05dc", "\u0444\u043e\u0442\u043e \u043a\u043e\u0442\u0430",
    "\u041a\u041e\u0422",
    "\u03b3\u03ac\u03c4\u03b1", "\u03a3\u0391\u03a3", "\u0e41\u0e21\u0e27",
    "\u092c\u093f\u0932\u094d\u0932\u0940",
    "\u0baa\u0bc2\u0ba9\u0bc8", "\u10d9\u10d0\u10e2\u10d0", "\u1405\u14c4\u1483",
    "\U00010330\U00010331",
    "\U0001d4ec\U0001d4ea\U0001d4fd", "\u202bcat\u202c", "\u061c", "\u00adsoft", "zero\u200dwidth",
    # emoji
    "\U0001f600", "\u2764", "\u2764\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f1e9\U0001f1ea",
    "\U0001f1ea", "\U0001f44d\U0001f3fd", "\U0001f3f3\ufe0f\u200d\U0001f308", "1\ufe0f\u20e3",
    "cat\U0001f408cat",
    "\U0001f408\u200d\u2b1b", "\U0001f600\U0001f600\U0001f600", "\u00a9\u00ae\u2122", "\u2603",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\U0001faf1\U0001f3fb",
    # control characters and the ends of Unicode
    "\x00", "a\x00b", "\x00\x00\x00", "\x01\x02\x03", "\x1b[31mred\x1b[0m", "\x7f", "\x80\x9f",
    "\x0b\x0c",
    "\x1c\x1d\x1e\x1f", "a\x08b", "\ufffd", "\ufffe\uffff", "\U0010ffff", "\ue000", "\u2028\u2029",
    "\ud7ff",
    # long
    "cat " * 40, "a" * 300, "supercalifragilisticexpialidocious", "1" * 100, "." * 200,
    "\U0001f600" * 30,
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 3, "ab" * 200, "\u732b" * 60, " " * 500,
    "A" * 77,
]  # fmt: skip

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz     ",
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,!?'\"-:;()/&     ",
    "the cat and dog photo of a in on st er ",
    "".join(map(chr, range(32, 127))),
    "".join(map(chr, range(0, 256))),
    "aeiou\u0301\u0300\u0302\u0308\u0327\u030a\u0323 AEIOUcn",
    "".join(map(chr, range(0x4E00, 0x4E40))) + "\uff0c\u3002 ",
    "".join(map(chr, range(0x0600, 0x0660))) + " ",
    "".join(map(chr, range(0x1F600, 0x1F640))) + "\u200d\ufe0f\U0001f3fb a",
    "<>_|endoftxsar ",
    "'stremvld aI ",
]


def varied_texts() -> list[str]:
    """The texts picked by hand, 320 random ones, and the decomposed forms of some."""
    draw = random.Random(2024)
    texts = list(PICKED)
    for i in range(320):
        alphabet = ALPHABETS[i % len(ALPHABETS)]
        texts.append("".join(draw.choice(alphabet) for _ in range(draw.randint(1, 40))))
    for _ in range(40):  # any character of the basic plane but half a surrogate pair
        points = [draw.randrange(0x10000) for _ in range(draw.randint(1, 12))]
        texts.append("".join(chr(p) for p in points if not 0xD800 <= p < 0xE000))
    texts += [unicodedata.normalize("NFD", text) for text in PICKED if not text.isascii()]
    return list(dict.fromkeys(texts))


def recorded() -> list[tuple[str, list[int]]]:
    """Each text with the ids that transformers gives it, uncut."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
    return [(text, tokenizer(text)["input_ids"]) for text in varied_texts()]


if __name__ == "__main__":
    lines = [json.dumps(pair) for pair in recorded()]
    RECORD.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} texts, {RECORD.stat().st_size} bytes")
