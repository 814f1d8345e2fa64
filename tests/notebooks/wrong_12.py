"""Wrong answers of lesson 12."""

WRONG: dict[str, list[tuple[str, str]]] = {
    "12.error": [
        ("np.sqrt(((found - truth) ** 2).mean())", "divide by that of the truth"),
        ("np.linalg.norm(found - truth)", "divide it by the length of the truth"),
        ("((found - truth) ** 2).sum() / (truth**2).sum()", "take the roots"),
        ("np.linalg.norm(found - truth) / np.linalg.norm(found)", "not of what was found"),
        ("np.abs(found - truth).max()", "says nothing of the size"),
        ("np.abs(found - truth).mean()", "take lengths"),
        ("np.abs(found - truth).max() / np.abs(truth).max()", "the lengths of all"),
        ("np.abs(found - truth).sum() / np.abs(truth).sum()", "sums of absolute values"),
        ("found - truth", "a number is asked for"),
    ],
    "12.first": [
        ("[name for name, error in excess.items() if error > allowed]", "one name"),
        ("max(excess, key=excess.get)", "where they begin"),
        ("[n for n, e in excess.items() if e > allowed][-1]", "last one that is wrong"),
        (
            "[n for n, e in zip(excess, list(excess.values())[1:]) if e > allowed][0]",
            "last one that is right",
        ),
        ("next(n for n, e in excess.items() if e >= allowed)", "is allowed"),
        ("next(iter(excess))", "its error is allowed"),
        ("next(e for e in excess.values() if e > allowed)", "choose one of"),
    ],
    "12.telling": [
        ("np.ones((1, 3, 64, 64))", "all its patches are alike"),
        ("np.random.rand(1, 3, 8, 64)", "a single row or column"),
        ("np.random.rand(3, 64, 64)", "should be (1, 3, Y, X)"),
        ("np.random.rand(1, 3, 20, 64)", "multiples of 8"),
        ("np.eye(2).repeat(8, 0).repeat(8, 1) * np.ones((1, 3, 1, 1))", "mirror image"),
        ("np.full((1, 3, 16, 16), np.nan)", "NaN"),
        ("'a photograph'", "an array is asked for"),
    ],
    "12.mystery": [
        ("'gate-swap'", "would show in other places"),
        ("'norm'", "knows no such mistake"),
        ("7", "choose one of"),
    ],
}
