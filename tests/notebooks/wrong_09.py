"""Wrong answers to the exercises of lesson 09; see wrong_answers.py."""

WRONG: dict[str, list[tuple[str, str]]] = {
    "09.embed": [
        ("pooled @ W.T", "not of length 1"),
        ("pooled / np.linalg.norm(pooled, axis=1, keepdims=True) @ W.T", "project first"),
        ("(f := pooled @ W.T) / np.linalg.norm(f)", "the whole array"),
        ("(f := pooled @ W.T) / np.linalg.norm(f, axis=0)", "the last axis"),
        ("(f := pooled @ W.T) / (f**2).sum(axis=1, keepdims=True)", "root"),
        ("(f := pooled @ W.T) / np.abs(f).sum(axis=1, keepdims=True)", "absolute"),
        ("pooled @ W", "raised ValueError"),
    ],
    "09.two": [
        ("0.99", "a third digit"),
        ("100 * (0.30 - 0.25)", "the difference of the logits"),
        ("1 / (1 + np.exp(-0.05))", "without the scale"),
        ("0.30 / 0.55", "exponentials"),
        ("np.exp(30)", "too large"),
        ("0.0067", "too small"),
        ("1 / (1 + np.exp(5))", "the other text"),
    ],
    "09.scale": [
        ("1 / np.exp(stored)", "this is the temperature"),
        ("stored", "the logarithm itself"),
        ("np.exp(stored)", "100 is the most"),
        ("min(np.exp(stored), 100)", "1 is the least"),
        ("np.exp(np.clip(stored, 0, 100))", "100 is the most"),
        ("np.clip(stored, 0, np.log(100))", "the logarithm itself"),
        ("np.ones(3)", "a number is asked for"),
    ],
    "09.ensemble": [
        ("vectors.mean(axis=0)", "shorter than 1"),
        ("vectors.sum(axis=0)", "the sum"),
        ("vectors[0]", "first prompt"),
        ("(m := vectors.mean(axis=0)) / np.linalg.norm(m)", "the whole array"),
        ("vectors.reshape(-1, 4).mean(axis=0)", "should be (2, 4), found (4,)"),
        (
            "(m := vectors.mean(axis=1)) / np.linalg.norm(m, axis=1, keepdims=True)",
            "over the prompts",
        ),
    ],
    "09.confusion": [
        (
            "np.array([[((found == i) & (right == j)).sum() for j in range(K)] for i in range(K)])",
            "exchanged",
        ),
        (
            "np.array([[((right == i) & (found == j)).any() for j in range(K)] for i in range(K)])",
            "np.add.at",
        ),
        ("np.diag(np.bincount(right[right == found], minlength=K))", "only the right ones"),
        ("right == found", "should be (4, 4), found (8,)"),
    ],
}
