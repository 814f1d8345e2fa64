"""Wrong answers to the exercises of lesson 13; see wrong_answers.py."""

WRONG: dict[str, list[tuple[str, str]]] = {
    "13.iou": [
        ("(found & right).sum() / (found | right).sum()", "0 / 0"),
        ("(found & right).sum() / max((found | right).sum(), 1)", "they agree: 1"),
        ("(found == right).mean()", "no merit"),
        ("(found & right).sum()", "divide by the union"),
        ("(found & right).sum() / found.sum()", "what was found alone"),
        ("(found & right).sum() / right.sum()", "what is right alone"),
        ("2 * (found & right).sum() / (found.sum() + right.sum())", "Dice"),
        ("(found & right).mean()", "all patches"),
        ("(found & right).sum() / (found.sum() + right.sum())", "once"),
    ],
    "13.nearest": [
        ("labels[(asked @ known.T).argmax(axis=1)]", "long rows win"),
        (
            "labels[((asked[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)]",
            "smallest distances",
        ),
        (
            "(asked @ (known / np.linalg.norm(known, axis=1, keepdims=True)).T).argmax(axis=1)",
            "return their labels",
        ),
        ("asked @ known.T", "should be (5,), found (5, 4)"),
        ("labels", "should be (5,), found (4,)"),
    ],
    "13.parameters": [
        ("193", "this lesson's probe"),
        ("150 * 193", "not 192"),
        ("150 * 1024", "a bias, too"),
        ("1025", "there are 150"),
        ("150 * 1025 * 256", "share the same weights"),
        ("10", "too small"),
    ],
    "13.split": [
        ("'frame'", "nearly the same picture"),
        ("'film'", "on both sides"),
        ("'car'", "choose one of"),
    ],
    "13.everything": [
        ("1", "the union is everything"),
        ("0.95", "other way round"),
        ("0", "not empty"),
        ("0.5", "too large"),
    ],
}
