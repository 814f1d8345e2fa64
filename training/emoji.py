"""Which emoji there are, what they are called, and which drawing shows which.

An emoji here is one of Unicode's base emoji without flags (a flag is a picture of its country's
name, not of a thing), skin tones, hair components and lone letters: 1,644 of Emoji 17. Names and
keywords are CLDR's, as emojibase collects them. Some of the drawings' packages say which emoji an
icon is; for the others its name is looked up among all names that the emoji goes by. An icon set
does not tell a cat from a cat's face: what it calls 'cat' is a drawing of both.
"""

import json
import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from fetch import ICON_SETS
from paths import PACKAGES

_LEFT_OUT = (None, 2, 9)  # groups of emojibase: lone regional letters, components, flags
_SHORTCODES = ("cldr", "emojibase", "emojibase-legacy", "github", "iamcal", "joypixels")
_MIRRORED = (0, 3, 4)  # faces, animals and plants, food: the same thing seen from the other side
_STYLE = re.compile(  # how icon sets mark the styles and versions of one icon; clocks have hours
    r"-(fill|filled|bold|duotone|outline|outlined|solid|rounded|sharp|variant|alt|one|two"
    r"|(?<!clock-)\d+)$"
)
# What icon sets call the things of some emoji; a name in CLDR's words needs no entry. Nothing where
# icons of that name show something else: 'bow' is a weapon there, or a tie.
_ICONS = {
    "bath": ("bathtub",),
    "bird": ("bird", "baby chick", "dove"),
    "boat": ("sailboat",),
    "book": ("closed book", "blue book"),
    "bulb": ("light bulb",),
    "burger": ("hamburger",),
    "cake": ("birthday cake", "shortcake"),
    "cherry": ("cherries",),
    "clock": ("nine o’clock", "three o’clock"),
    "cup": ("hot beverage", "teacup without handle"),
    "flower": ("blossom", "white flower", "hibiscus", "cherry blossom"),
    "glass": ("glass of milk",),
    "grape": ("grapes",),
    "hat": ("top hat",),
    "home": ("house",),
    "ice-cream": ("ice cream", "soft ice cream"),
    "leaf": ("leaf fluttering in wind",),
    "lock": ("locked",),
    "mic": ("studio microphone",),
    "moon": ("crescent moon",),
    "plane": ("airplane",),
    "settings": ("gear",),
    "tree": ("deciduous tree", "evergreen tree"),
    "umbrella": ("umbrella", "umbrella with rain drops"),
    "wine": ("wine glass",),
    **dict.fromkeys(("android", "back", "bow", "chart", "compression", "cool", "cricket"), ()),
    **dict.fromkeys(("cross", "football", "goal", "heart-beat", "heart-pulse", "heartbeat"), ()),
    **dict.fromkeys(("hot", "loop", "mask", "medical", "mouse", "redo", "seal", "stars"), ()),
    **dict.fromkeys(("wave", "wind"), ()),
}
# Sets whose 'apple' is a firm's logo, and one whose second clock is a version of the first.
_OTHER_THINGS = {
    *((package, "apple") for package in ("icon-park", "mdi", "la", "hugeicons", "mingcute")),
    *(("streamline-color", "apple"), ("tabler", "clock-2")),
}
_NOT_MIRRORED = re.compile(r"left|right|facing|clock|turn|map")


@dataclass(frozen=True)
class Emoji:
    """One emoji: its code points as in '1F469-200D-1F52C', its name and its keywords."""

    code: str
    name: str
    keywords: tuple[str, ...]
    group: int
    subgroup: int
    may_mirror: bool  # a drawing of it, left to right

    @property
    def text(self) -> str:
        """The character itself."""
        return "".join(chr(int(point, 16)) for point in self.code.split("-"))


def _read(package: str, path: str) -> dict | list:
    return json.loads((PACKAGES / package / path).read_text(encoding="utf-8"))


def _bare(code: str) -> str:
    """Code points without the variation selector, which the packages keep or drop at will."""
    return "-".join(point for point in code.upper().split("-") if point != "FE0F")


@lru_cache
def all_emoji() -> tuple[Emoji, ...]:
    """Every emoji, in Unicode's order; the position is its class."""
    rows = _read("emojibase-data", "en/data.json")
    rows = [row for row in rows if row.get("group") not in _LEFT_OUT]
    return tuple(
        Emoji(
            _bare(row["hexcode"]),
            row["label"],
            tuple(row.get("tags", ())),
            row["group"],
            row["subgroup"],
            row["group"] in _MIRRORED and not _NOT_MIRRORED.search(row["label"]),
        )
        for row in sorted(rows, key=lambda row: row["order"])
    )


def _plain(name: str) -> str:
    """'Piñata' and 'pinata', 'o’clock' and 'oclock' are one name."""
    ascii_only = unicodedata.normalize("NFKD", name.lower().replace("&", "and"))
    return re.sub("[^a-z0-9]", "", ascii_only.encode("ascii", "ignore").decode())


@lru_cache
def _codes_by_name() -> dict[str, str]:
    """Every name an emoji goes by, the most official first: CLDR, Unicode, packages, shortcodes."""
    emoji = all_emoji()
    known = {e.code for e in emoji}
    names = [(e.name, e.code) for e in emoji]
    names += [(unicodedata.name(e.text, ""), e.code) for e in emoji if len(e.text) == 1]
    for package in ("noto", "twemoji"):
        icons = {name: _bare(code) for code, name in _read(package, "chars.json").items()}
        names += list(icons.items())
        aliases = _read(package, "icons.json")["aliases"]
        names += [(alias, icons.get(row["parent"], "")) for alias, row in aliases.items()]
    for source in _SHORTCODES:
        for code, found in _read("emojibase-data", f"en/shortcodes/{source}.json").items():
            names += [
                (name, _bare(code)) for name in ([found] if isinstance(found, str) else found)
            ]
    table: dict[str, str] = {}
    for name, code in names:
        if code in known:
            table.setdefault(_plain(name), code)
    return table


def _known_as(icon: str, icons: Collection[str]) -> str:
    """The name to look an icon up under."""
    if f"{icon}side" in icons:
        return _plain(f"{icon} face")  # fxemoji: 'cat' is the face, 'catside' the whole animal
    number = r"-\d+$"  # streamline-emojis: 'boy-2' is a second drawing of the boy
    return _plain(re.sub(number, "", icon.removesuffix("side")))


def without_style(icon: str) -> str:
    """What an icon shows: 'cat' of 'cat-fill' and 'cat-bold-2'."""
    while (bare := _STYLE.sub("", icon)) != icon:
        icon = bare
    return icon


@lru_cache
def _icon_shows(name: str) -> frozenset[str]:
    """The codes of the emoji that an icon of this name is a drawing of; mostly none."""
    known = _codes_by_name()
    if len(name) == 1:  # a letter is a shortcode of some emoji, but no picture of it
        return frozenset()
    if name in _ICONS:
        return frozenset(known[_plain(called)] for called in _ICONS[name])
    found = {known.get(_plain(name), "")}
    return frozenset(found | {e.code for e in all_emoji() if e.name == f"{name} face"})


def drawings(package: str) -> list[tuple[str, int]]:
    """The icons of an artist that show one of our emoji: (icon's name, class)."""
    classes = {e.code: i for i, e in enumerate(all_emoji())}
    chars, icons = _read(package, "chars.json"), _read(package, "icons.json")["icons"]
    if package in ICON_SETS:
        bare = {name: without_style(name) for name in icons}
        kept = [name for name in icons if (package, bare[name]) not in _OTHER_THINGS]
        found = [(name, code) for name in kept for code in _icon_shows(bare[name])]
    elif chars:
        found = [(name, _bare(code)) for code, name in chars.items()]
    else:
        names = _codes_by_name()
        found = [(name, names.get(_known_as(name, icons), "")) for name in icons]
    return sorted({(name, classes[code]) for name, code in found if code in classes})


def svg(package: str) -> dict[str, str]:
    """Each icon as a whole SVG document."""
    file = _read(package, "icons.json")
    width, height = file["width"], file["height"]
    return {
        name: (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} '
            f'{icon.get("width", width)} {icon.get("height", height)}">{icon["body"]}</svg>'
        )
        for name, icon in file["icons"].items()
    }
