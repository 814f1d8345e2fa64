"""Draw the sample pictures that the package ships for demos and notebooks.

    python samples.py          # writes ../aimv2_np/models_data/samples, a few seconds

Single drawings named by an everyday word, and scenes of several drawings before a background, whose
attention maps are worth a look. All are OpenMoji's: that artist is never trained on, so what the
model makes of them is no memory. In the wide and tall scenes what matters lies in the centre
square, which is what cropping keeps. Pictures and SOURCES.md are the same bytes in every run.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from captions import EVERYDAY
from emoji import all_emoji, drawings, svg
from fetch import VALIDATION
from paths import PACKAGES, SAMPLES
from render import rasterise

SIDE = 256  # pixels of a single drawing's picture
_EXTENT = 208  # the longer side of the drawing in it
_FINE = 1024  # drawings are rasterised at this size, then scaled down
_SMOOTH = 4  # backgrounds are drawn this many times larger, so that edges come out smooth
_COLOURS = 256  # in a picture's palette: flat colours, their smooth edges and a gradient fit
_REFINED = 5  # rounds of k-means after which the palette's loss cannot be seen

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Drawing:
    """One emoji in a scene, placed by the middle of its lower edge."""

    name: str  # CLDR's
    middle: int
    bottom: int
    extent: int  # the longer side
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """Several emoji before a background: a vertical gradient with plain shapes on it."""

    shows: str
    size: Size
    gradient: tuple[str, str]
    shapes: tuple[tuple[str, str, Box], ...]  # "ellipse" or "rectangle", colour, where
    drawings: tuple[Drawing, ...]


# Beside the everyday ones: the picture's name and the emoji's.
OTHERS = {
    "rocket": "rocket",
    "octopus": "octopus",
    "snowman": "snowman",
    "strawberry": "strawberry",
    "elephant": "elephant",
    "butterfly": "butterfly",
    "penguin": "penguin",
    "turtle": "turtle",
    "cake": "birthday cake",
    "camera": "camera",
}
# White, but for what looks better, or is told apart better, on a colour.
BACKGROUNDS = {
    "bird": "#e4f1fa",
    "airplane": "#d5ebf8",
    "flower": "#f3eadb",
    "snowman": "#cfe4f2",
    "octopus": "#d9eef0",
    "penguin": "#dbe9f4",
    "clock": "#fbe6cf",
    "heart": "#fdeef0",
    "butterfly": "#f2f5dc",
    "camera": "#ece7f5",
}


def _cloud(left: int, top: int, width: int) -> tuple[tuple[str, str, Box], ...]:
    """Three puffs on a flat base."""
    third, height = width // 3, width // 3
    return tuple(
        ("ellipse", "#ffffff", box)
        for box in (
            (left, top + height // 3, left + third * 2, top + height),
            (left + third // 2, top, left + third * 2 + third // 3, top + height),
            (left + third, top + height // 3, left + width, top + height),
        )
    )


def _stars(*places: tuple[int, int]) -> tuple[tuple[str, str, Box], ...]:
    return tuple(("ellipse", "#f5f1d6", (x, y, x + 4, y + 4)) for x, y in places)


SCENES = {
    "scene-cat-and-pizza": Scene(
        "a cat and a slice of pizza",
        (256, 256),
        ("#f7ead6", "#f7ead6"),
        (("rectangle", "#d9b38c", (0, 170, 256, 256)),),
        (Drawing("cat face", 72, 206, 136), Drawing("pizza", 194, 206, 122)),
    ),
    "scene-street": Scene(
        "a house, a tree and a car in the sun",
        (384, 256),
        ("#bfe3f7", "#eef8fd"),
        (
            *_cloud(6, 40, 84),
            *_cloud(286, 22, 90),
            ("rectangle", "#a8d08d", (0, 152, 384, 256)),
            ("rectangle", "#b9bcc2", (0, 196, 384, 256)),
        ),
        (
            Drawing("sun", 186, 92, 86),
            Drawing("house", 112, 176, 104),
            Drawing("deciduous tree", 264, 176, 106),
            Drawing("automobile", 194, 246, 146),
        ),
    ),
    "scene-farm": Scene(
        "a cow, a tractor and a rooster in a meadow",
        (384, 256),
        ("#c9e8f8", "#f4fafd"),
        (
            *_cloud(20, 18, 84),
            *_cloud(230, 12, 96),
            ("ellipse", "#b5d99c", (-120, 92, 240, 300)),
            ("ellipse", "#a8d08d", (120, 104, 520, 330)),
            ("rectangle", "#98c47c", (0, 160, 384, 256)),
        ),
        (
            Drawing("tractor", 264, 148, 112),
            Drawing("cow", 122, 174, 116, mirrored=True),
            Drawing("rooster", 216, 248, 90),
        ),
    ),
    "scene-fruit": Scene(
        "an apple, a banana, grapes and a strawberry on a table",
        (256, 256),
        ("#fdf3e1", "#fdf3e1"),
        (("rectangle", "#c9986b", (0, 118, 256, 256)),),
        (
            Drawing("banana", 72, 138, 108),
            Drawing("grapes", 186, 138, 114),
            Drawing("red apple", 74, 246, 96),
            Drawing("strawberry", 184, 246, 94),
        ),
    ),
    "scene-night-sky": Scene(
        "a rocket, the moon and a planet at night",
        (256, 256),
        ("#26366b", "#5b76b5"),
        _stars(
            (24, 30), (60, 96), (128, 20), (112, 72), (20, 150), (236, 120), (120, 236), (44, 56)
        )
        + _stars((238, 24), (226, 238), (16, 238), (136, 168), (190, 138)),
        (
            Drawing("rocket", 84, 220, 128),
            Drawing("crescent moon", 194, 112, 92),
            Drawing("ringed planet", 196, 226, 96),
        ),
    ),
    "scene-under-water": Scene(
        "a whale, a tropical fish and an octopus under water",
        (384, 256),
        ("#b9e6ef", "#4f9fc4"),
        (
            ("ellipse", "#ead9a8", (-80, 218, 230, 320)),
            ("ellipse", "#e2cf98", (150, 224, 480, 320)),
            *(
                ("ellipse", "#e6f7fa", (x, y, x + 9, y + 9))
                for x, y in ((44, 60), (32, 88), (50, 110))
            ),
            *(("ellipse", "#e6f7fa", (x, y, x + 9, y + 9)) for x, y in ((338, 90), (350, 116))),
        ),
        (
            Drawing("whale", 138, 124, 112),
            Drawing("tropical fish", 266, 112, 92),
            Drawing("octopus", 204, 240, 112),
        ),
    ),
    "scene-two-dogs": Scene(
        "two dogs and a ball in a meadow",
        (384, 256),
        ("#cfe9f7", "#f3fafd"),
        (("ellipse", "#a8d08d", (-200, 104, 584, 480)),),
        (
            Drawing("dog", 122, 158, 110, mirrored=True),
            Drawing("poodle", 268, 158, 106),
            Drawing("soccer ball", 194, 250, 86),
        ),
    ),
    "scene-birthday": Scene(
        "a birthday cake, a balloon and a present",
        (256, 256),
        ("#fbe7ee", "#fbe7ee"),
        (("rectangle", "#c9b6dd", (0, 190, 256, 256)),),
        (
            Drawing("birthday cake", 86, 232, 132),
            Drawing("balloon", 190, 118, 110),
            Drawing("wrapped gift", 204, 232, 90),
        ),
    ),
    "scene-winter": Scene(
        "a snowman, a penguin and a fir in the snow",
        (256, 256),
        ("#a9cfe8", "#dcecf6"),
        (("ellipse", "#f7fafc", (-160, 116, 416, 460)),),
        (
            Drawing("evergreen tree", 196, 140, 126),
            Drawing("snowman", 82, 214, 132),
            Drawing("penguin", 196, 250, 98),
        ),
    ),
    "scene-beach": Scene(
        "a palm tree, a sailing boat and a crab at the sea",
        (256, 384),
        ("#8fd0ee", "#e6f6fb"),
        (
            *_cloud(150, 20, 92),
            ("rectangle", "#92d3f5", (0, 161, 256, 260)),
            ("ellipse", "#f0dfae", (-160, 226, 416, 620)),
        ),
        (
            Drawing("sailboat", 200, 192, 96),
            Drawing("palm tree", 76, 262, 138),
            Drawing("crab", 168, 312, 108),
        ),
    ),
    "scene-music": Scene(
        "a guitar, a trumpet and a drum",
        (256, 256),
        ("#f6e3c5", "#f6e3c5"),
        (("ellipse", "#e2b887", (-70, 178, 326, 300)),),
        (
            Drawing("guitar", 68, 140, 122),
            Drawing("trumpet", 190, 122, 110),
            Drawing("drum", 128, 248, 106),
        ),
    ),
}


@lru_cache
def _icons() -> dict[str, str]:
    """The artist's icon for each emoji's name."""
    return {all_emoji()[shown].name: icon for icon, shown in drawings(VALIDATION)}


@lru_cache
def _trimmed(name: str) -> Image.Image:
    """An emoji's drawing, large, without the empty margin around it; RGBA."""
    image = rasterise(svg(VALIDATION)[_icons()[name]], _FINE)
    return image.crop(image.getchannel("A").getbbox())


def _place(picture: Image.Image, drawing: Drawing) -> None:
    """Scale a drawing and put it where it belongs."""
    image = _trimmed(drawing.name)
    if drawing.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = drawing.extent / max(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    image = image.resize((width, height), Image.Resampling.HAMMING)  # no halo, as Lanczos has
    picture.paste(image, (drawing.middle - width // 2, drawing.bottom - height), image)


def draw_single(emoji: str, background: str) -> Image.Image:
    """One drawing in the middle of a plain square."""
    picture = Image.new("RGB", (SIDE, SIDE), background)
    width, height = _trimmed(emoji).size
    bottom = (SIDE + round(_EXTENT * height / max(width, height))) // 2
    _place(picture, Drawing(emoji, SIDE // 2, bottom, _EXTENT))
    return picture


def draw_scene(scene: Scene) -> Image.Image:
    """The background, then the drawings from back to front."""
    large = (scene.size[0] * _SMOOTH, scene.size[1] * _SMOOTH)
    top, bottom = (Image.new("RGB", large, colour) for colour in scene.gradient)
    picture = Image.composite(bottom, top, Image.linear_gradient("L").resize(large))
    canvas = ImageDraw.Draw(picture)
    for shape, colour, box in scene.shapes:
        getattr(canvas, shape)([edge * _SMOOTH for edge in box], fill=colour)
    picture = picture.reduce(_SMOOTH)
    for drawing in scene.drawings:
        _place(picture, drawing)
    return picture


def pictures() -> Iterator[tuple[str, str, tuple[str, ...], str, Image.Image]]:
    """Each picture's name, what it shows, the emoji in it, the changes made, the picture."""
    by_code = {emoji.code: emoji.name for emoji in all_emoji()}
    everyday = {word: by_code[code] for word, code in EVERYDAY.items()}
    for word, emoji in (everyday | OTHERS).items():
        colour = BACKGROUNDS.get(word)
        changes = f"scaled, on {f'a plain colour ({colour})' if colour else 'white'}"
        yield word, word, (emoji,), changes, draw_single(emoji, colour or "#ffffff")
    for name, scene in SCENES.items():
        changes = "scaled, arranged, background added"
        if any(drawing.mirrored for drawing in scene.drawings):
            changes += "; mirrored: " + ", ".join(d.name for d in scene.drawings if d.mirrored)
        emoji = tuple(drawing.name for drawing in scene.drawings)
        yield name, scene.shows, emoji, changes, draw_scene(scene)


_INTRODUCTION = """\
# Where the sample pictures come from

All emojis designed by [OpenMoji](https://openmoji.org) – the open-source emoji and icon project.
License: [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/)

The drawings were taken from the npm package `{package}`, version {version}, turned
into pixels, freed of their margins, and changed further as the table says. The changed pictures,
the scenes among them, are adaptations of OpenMoji's drawings and are under the same licence,
CC BY-SA 4.0: who passes them on names OpenMoji, links the licence, says what was changed, and
passes changed versions on under that licence. The package's own licence does not cover them.

The model that ships with the package was never trained on these drawings. `training/samples.py`
in the source repository makes the pictures and this file.

| file | what it shows | size | drawings | changes | artist | package | licence |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Write the pictures and SOURCES.md, and remove what is no longer drawn."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    about = json.loads((PACKAGES / VALIDATION / "package.json").read_text(encoding="utf-8"))
    package, version = about["name"], about["version"]
    sources = _INTRODUCTION.format(package=package, version=version)
    written = set()
    for name, shows, emoji, changes, picture in pictures():
        file = f"{name}.png"
        palette = picture.quantize(_COLOURS, kmeans=_REFINED, dither=Image.Dither.NONE)
        palette.save(SAMPLES / file, optimize=True)
        written.add(file)
        sources += f"| `{file}` | {shows} | {picture.width} × {picture.height} "
        sources += f"| {', '.join(emoji)} | {changes} "
        sources += f"| OpenMoji | `{package}` {version} | CC BY-SA 4.0 |\n"
    (SAMPLES / "SOURCES.md").write_text(sources, encoding="utf-8")
    for old in SAMPLES.glob("*.png"):
        if old.name not in written:
            old.unlink()
    print(f"{len(written)} pictures, {sum(f.stat().st_size for f in SAMPLES.iterdir())} bytes")


if __name__ == "__main__":
    main()
