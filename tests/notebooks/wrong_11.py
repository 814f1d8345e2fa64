"""Wrong answers of lesson 11."""

_MEAN = "(x**2).mean(axis=-1, keepdims=True)"

WRONG: dict[str, list[tuple[str, str]]] = {
    "11.rms_norm": [
        (f"x / np.sqrt({_MEAN} + eps)", "the weight is missing"),
        (f"x / np.sqrt({_MEAN} + eps) * (1 + weight)", "not by 1 + weight"),
        (f"x / np.sqrt({_MEAN}) * weight", "eps is missing"),
        (f"x / ({_MEAN} + eps) * weight", "the root is missing"),
        (f"x / (np.sqrt({_MEAN}) + eps) * weight", "under the root"),
        (
            "x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + eps) * weight",
            "the mean of the squares",
        ),
        ("x / np.sqrt((x**2).mean() + eps) * weight", "a mean of its own"),
        (
            "(x - x.mean(axis=-1, keepdims=True))"
            " / np.sqrt(x.var(axis=-1, keepdims=True) + eps) * weight",
            "LayerNorm",
        ),
        ("x / np.sqrt((x**2).mean(axis=-1) + eps) * weight", "raised ValueError"),
        (
            "x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps) * weight",
            "the last is not axis 1",
        ),
    ],
    "11.softmax": [
        ("np.exp(x)", "divide each row"),
        ("np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)", "NaN or infinity for large scores"),
        ("np.exp(x) / np.exp(x).sum()", "a sum of its own"),
        ("(e := np.exp(x - x.max())) / e.sum(axis=-1, keepdims=True)", "each row's own largest"),
        (
            "(e := np.exp(x - x.max(axis=-1, keepdims=True))) / e.sum(axis=-1, keepdims=True)",
            "a row of -inf alone gives NaN",
        ),
        (
            "(e := np.exp((y := np.maximum(x, -1e30)) - y.max(axis=-1, keepdims=True)))"
            " / e.sum(axis=-1, keepdims=True)",
            "not thirds",
        ),
        ("x", "infinity"),
    ],
    "11.merged": [
        ("(c1 + c2) / (s1 + s2)", "relative to different maxima"),
        ("(c1 / s1 + c2 / s2) / 2", "their sums differ"),
        (
            "np.exp(m1 - max(m1, m2)) * c1 + np.exp(m2 - max(m1, m2)) * c2",
            "divide by the sum",
        ),
        (
            "(np.exp(m1 - max(m1, m2)) * c1 + np.exp(m2 - max(m1, m2)) * c2) / (s1 + s2)",
            "the sums are scaled",
        ),
        (
            "(np.exp(max(m1, m2) - m1) * c1 + np.exp(max(m1, m2) - m2) * c2)"
            " / (np.exp(max(m1, m2) - m1) * s1 + np.exp(max(m1, m2) - m2) * s2)",
            "not the other way round",
        ),
        (
            "(np.exp(m1) * c1 + np.exp(m2) * c2) / (np.exp(m1) * s1 + np.exp(m2) * s2)",
            "exp overflows",
        ),
        ("c1", "numbers differ"),
    ],
    "11.entry": [
        ("'asarray'", "pixels, not weights"),
        ("'linear'", "in every call"),
        ("'to_numpy'", "brings results back"),
        ("'offloads'", "a device computes"),
        ("'fetch'", "look again"),
        ("'upload'", "choose one of"),
    ],
}
