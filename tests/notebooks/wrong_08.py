"""Wrong answers to the exercises of lesson 08; see wrong_answers.py."""

WRONG: dict[str, list[tuple[str, str]]] = {
    "08.merge": [
        ("pieces", "it should be ['g', 'u', 'it', 'a', 'r</w>']"),
        ("''.join(pieces).replace(''.join(pair), '|')", "a list of strings is asked for"),
        (
            "(i := next((i for i in range(len(pieces)) if tuple(pieces[i:i + 2]) == pair), None))"
            " is not None and pieces[:i] + [''.join(pair)] + pieces[i + 2:] or pieces",
            "['b', 'an', 'a', 'n', 'a</w>']",
        ),
        (
            "' '.join(pieces).replace(' '.join(pair), ''.join(pair)).split()",
            "it should be ['t', 'h', 'i', 'n', 'g</w>']",
        ),
        ("pieces.index(pair)", "raised ValueError"),
    ],
    "08.bytes": [
        ("14", "begin and end"),
        ("len('Crème brûlée')", "a token is a byte"),
        ("len('Crème brûlée'.encode()) + 2", "no token for the space"),
        ("4", "each byte"),
        ("100", "too large"),
    ],
    "08.causal": [
        ("77 * 76", "all but the diagonal"),
        ("77 * 77", "sees the tokens 0 to i"),
        ("77 * 76 / 2", "sees itself"),
        ("77 * 77 / 2", "diagonal"),
        ("77", "the last row"),
    ],
    "08.end": [
        ("features[ids == eos]", "padding has the same id"),
        ("features[:, -1]", "the last position"),
        ("features[:, 0]", "begin token"),
        ("features[np.arange(len(ids)), ids.argmax(axis=1)]", "largest id"),
        ("features[np.arange(len(ids)), (ids == eos).argmax(axis=1) - 1]", "before the end"),
        ("features[:, (ids == eos).argmax(axis=1)]", "its own position"),
        ("features.mean(axis=1)", "the mean"),
        ("(ids == eos).argmax(axis=1)", "should be (3, 2), found (3,)"),
    ],
    "08.same": [
        ("6", "seen the whole text"),
        ("7", "differs"),
        ("4", "begin token"),
        ("0", "what comes later"),
    ],
}
