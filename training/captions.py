"""From emoji to texts: what a picture of each may be called, and in which sentences.

An emoji goes by its CLDR name, by the noun at the heart of that name ('cat' for 'cat face', 'tree'
for 'deciduous tree'), which is what people type, and by its keywords. A keyword says the more the
fewer emoji share it, 'kitten' more than 'animal', and more if it is such a noun of another emoji of
its kind: 'car' at the automobile, since there is a racing car. One that is the whole *name* of
another emoji ('banana' at the monkey) would teach that the two are the same, and is left out; the
noun is not, since a cat's face is a cat.
"""

import re
from bisect import bisect
from collections import Counter
from functools import cache, lru_cache
from itertools import accumulate
from typing import Protocol

from emoji import Emoji, all_emoji

# {} is the words as they are, {a} the words with 'a' or 'an' if they are not a plural.
TEMPLATES = (
    *("{}", "{}", "{a}", "a photo of {}", "a photo of {a}", "a photo of the {}"),
    *("a picture of {}", "a picture of {a}", "a picture of the {}", "an image of {a}"),
    *("a drawing of {a}", "a drawing of the {}", "a cartoon of {a}", "an illustration of {a}"),
    *("an emoji of {}", "an emoji of {a}", "the {} emoji", "{} emoji", "{}, emoji"),
    *("{} icon", "an icon of {a}", "a sticker of {a}", "this is {a}"),
)
# What somebody might type first, and the emoji that shows it best.
EVERYDAY = {
    "cat": "1F431",
    "dog": "1F436",
    "horse": "1F40E",
    "bird": "1F426",
    "fish": "1F41F",
    "tree": "1F333",
    "flower": "1F33C",
    "sun": "2600",
    "apple": "1F34E",
    "banana": "1F34C",
    "pizza": "1F355",
    "house": "1F3E0",
    "car": "1F697",
    "bicycle": "1F6B2",
    "airplane": "2708",
    "guitar": "1F3B8",
    "umbrella": "2602",
    "clock": "23F0",
    "heart": "2764",
    "key": "1F511",
}

# How often a caption is the name, its noun, one of the keywords; the name takes what is missing.
_NAME, _NOUN, _KEYWORDS = 0.55, 0.15, 0.3
_NOUN_OF_OTHERS = 8.0  # how much more such a keyword weighs
_TOO_GENERAL = 50  # shared by more than this, a noun says nothing: 'face', 'person', 'button'
_BOTH = 0.1  # how often a second of the emoji's captions follows: 'cat face, kitten'

_AFTER_THE_NOUN = re.compile(r"([:,]| with | of | in | on | face$).*")
_AN = re.compile(r"(?!uni|eu|ufo|one)[aeiou]|hour|8|11", re.IGNORECASE)
_PLURAL = re.compile(r"[^su ]s$|people$|men$")


class Random(Protocol):
    """What is asked of a source of chance: `random.Random` and NumPy's Generator have it."""

    def random(self) -> float:
        """A number from 0 to 1, without 1."""


@lru_cache
def _groups() -> dict[str, int]:
    """The group of each name, in lower case."""
    return {emoji.name.lower(): emoji.group for emoji in all_emoji()}


@lru_cache
def _shared_by() -> Counter[str]:
    """How many emoji carry a keyword."""
    return Counter(word for emoji in all_emoji() for word in emoji.keywords)


def noun(emoji: Emoji) -> str | None:
    """The last word of the name, or of its part before 'with …', if the keywords confirm it.

    The hot dog is no dog: where the word is itself an emoji's name, both must be of one kind.
    """
    word = _AFTER_THE_NOUN.sub("", emoji.name.lower()).split(" ")[-1]
    known = word in emoji.keywords and word != emoji.name.lower()
    telling = known and _shared_by()[word] <= _TOO_GENERAL
    return word if telling and _groups().get(word, emoji.group) == emoji.group else None


@lru_cache
def _nouns() -> set[tuple[str | None, int]]:
    """The nouns of all names, each with the group it was found in."""
    return {(noun(emoji), emoji.group) for emoji in all_emoji()}


def _weight(keyword: str, group: int) -> float:
    """What a keyword says about an emoji of this group."""
    return (_NOUN_OF_OTHERS if (keyword, group) in _nouns() else 1.0) / _shared_by()[keyword]


@cache
def captions(emoji: Emoji) -> tuple[tuple[str, float], ...]:
    """What the emoji may be called, the name first, each with its share; together 1."""
    shares = Counter({emoji.name: _NAME})
    short = noun(emoji)
    if short:
        shares[short] += _NOUN
    keywords = {k: _weight(k, emoji.group) for k in emoji.keywords if k not in _groups()}
    for keyword, weight in keywords.items():
        shares[keyword] += _KEYWORDS * weight / sum(keywords.values())
    shares[emoji.name] += 1 - sum(shares.values())
    return tuple(shares.items())


def _article(words: str) -> str:
    if _PLURAL.search(_AFTER_THE_NOUN.sub("", words)):
        return ""
    return "an " if _AN.match(words) else "a "


def in_template(template: str, words: str) -> str:
    """The words in one of `TEMPLATES`."""
    return template.format(words, a=_article(words) + words)


@cache
def _ladder(emoji: Emoji) -> tuple[float, ...]:
    return tuple(accumulate(share for _, share in captions(emoji)))


def _pick(rng: Random, emoji: Emoji) -> str:
    found = captions(emoji)
    return found[min(bisect(_ladder(emoji), rng.random()), len(found) - 1)][0]


def sample(rng: Random, emoji: Emoji) -> str:
    """A caption at random: mostly the name, mostly in a sentence."""
    words = _pick(rng, emoji)
    if rng.random() < _BOTH:
        second = _pick(rng, emoji)
        words = words if second == words else f"{words}, {second}"
    return in_template(TEMPLATES[int(rng.random() * len(TEMPLATES))], words)
