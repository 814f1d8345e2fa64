"""Wrong answers of lesson 14."""

WRONG: dict[str, list[tuple[str, str]]] = {
    "14.block": [
        ("4 * 1536**2 + 3 * 1536 * 4096", "two norms have a weight"),
        ("4 * 1536**2 + 2 * 1536 * 4096 + 2 * 1536", "three matrices"),
        ("3 * 1536**2 + 3 * 1536 * 4096 + 2 * 1536", "the projection"),
        ("24 * (4 * 1536**2 + 3 * 1536 * 4096 + 2 * 1536)", "all 24 blocks"),
        ("1536", "too small"),
    ],
    "14.fits": [
        ("'huge'", "a larger one fits"),
        ("'3B'", "5.4 GB"),
        ("'XXL'", "choose one of"),
    ],
    "14.native": [
        ("72 * 50", "round down"),
        ("1000 * 700 / 196", "each side on its own"),
        ("1000 * 700 // 196", "not the quotient of the areas"),
        ("256", "does not resize"),
    ],
    "14.factor": [
        ("2", "factor of the side"),
        ("4", "each meets each"),
        ("3", "too small"),
    ],
    "14.search": [
        ("'large-patch14-native'", "no text encoder"),
        ("'emoji-lit'", "drawings"),
        ("'clip'", "choose one of"),
    ],
}
