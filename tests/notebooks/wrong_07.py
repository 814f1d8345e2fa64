"""Wrong answers to the exercises of lesson 07; see wrong_answers.py."""

_SOFTMAX = "(e := np.exp({})) / e.sum() @ (x @ {}.T)"

WRONG: dict[str, list[tuple[str, str]]] = {
    "07.head": [
        (_SOFTMAX.format("x @ Wk.T @ query", "Wv"), "not divided by sqrt(E)"),
        (_SOFTMAX.format("x @ Wk.T @ query / len(query)", "Wv"), "not by E"),
        (_SOFTMAX.format("x @ Wk.T @ query / np.sqrt(x.shape[1])", "Wv"), "not of D"),
        (_SOFTMAX.format("x @ Wv.T @ query / 2", "Wk"), "exchanged"),
        ("(x @ Wv.T).mean(axis=0)", "the query was not used"),
        (_SOFTMAX.format("x @ Wk.T @ (Wk @ (query @ Wk)) / 2", "Wv"), "used as it is"),
        ("x @ Wv.T", "should be (4,), found (5, 4)"),
        ("query @ x", "raised ValueError"),
    ],
    "07.parameters": [
        ("3 * 1024**2", "parameters, too"),
        ("4 * 1024**2 + 2 * 1024", "the query has none"),
        ("3 * 1024**2 + 1024", "forgotten"),
        ("10**9", "too large"),
    ],
    "07.zeros": [
        ("0", "equal weights"),
        ("1", "divide by the sum"),
        ("1 / 64", "256 patches"),
        ("0.5", "too large"),
    ],
    "07.parts": [
        ("(pattern[:, :, None] * v).transpose(1, 0, 2).reshape(v.shape[1], -1)", "W is missing"),
        ("(pattern[:, :, None] * v).transpose(1, 0, 2).reshape(v.shape[1], -1) @ W", "transposed"),
        ("(pattern[:, :, None] * v).transpose(1, 2, 0).reshape(v.shape[1], -1) @ W.T", "h·E to"),
        ("v.transpose(1, 0, 2).reshape(v.shape[1], -1) @ W.T", "pattern are missing"),
        (
            "((pattern[:, :, None] * v).transpose(1, 0, 2).reshape(v.shape[1], -1) @ W.T).sum(0)",
            "the sum already",
        ),
        ("(pattern[:, :, None] * v).reshape(v.shape[1], -1) @ W.T", "mixes patches and heads"),
        ("v[0] @ W[:3]", "numbers differ"),
    ],
}
