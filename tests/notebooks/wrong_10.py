"""Wrong answers of lesson 10."""

WRONG: dict[str, list[tuple[str, str]]] = {
    "10.intensity": [
        ("2 * O * K * T / (O * K + T * K + T * O)", "4 bytes"),
        ("O * K * T / (4 * (O * K + T * K + T * O))", "2 FLOP"),
        ("2 * O * K * T / (4 * O * K)", "the tokens are moved, too"),
        ("2 * O * K * T / (4 * (O * K + T * K))", "what is written counts"),
        ("2 * O * K * T / (4 * (O * K + T * O))", "tokens that are read"),
        ("4 * (O * K + T * K + T * O) / (2 * O * K * T)", "not bytes for each FLOP"),
        ("2 * O * K * T", "divide by the bytes"),
        ("T / 2", "the tokens are moved, too"),
        ("O * K * T", "too large"),
    ],
    "10.roof": [
        ("peak", "memory decides"),
        ("i * bandwidth", "no step is faster"),
        ("max(peak, i * bandwidth)", "memory decides"),
        ("bandwidth / i", "multiply"),
        ("bandwidth", "that is the bandwidth"),
        ("80", "too small"),
    ],
    "10.tokens": [
        ("200 / 20", "a token gives 2 for each weight of 4 bytes"),
        ("200 / 20 / 2", "a weight has 4 bytes"),
        ("200 / 20 * 4", "2 FLOP with each weight"),
        ("256", "too large"),
    ],
    "10.tokens8": [
        ("x", "nothing was rounded"),
        (
            "np.round((x - x.min(axis=1, keepdims=True))"
            " / (s := np.ptp(x, axis=1, keepdims=True) / 255))",
            "return the numbers they stand for",
        ),
        (
            "np.round((x - x.min(axis=1, keepdims=True))"
            " / (s := np.ptp(x, axis=1, keepdims=True) / 255)) * s",
            "add the least number again",
        ),
        (
            "np.round(x / (s := np.abs(x).max(axis=1, keepdims=True) / 127)) * s",
            "this is the weights' form",
        ),
        (
            "np.round((x - x.min()) / (s := np.ptp(x) / 255)) * s + x.min()",
            "a largest number of its own",
        ),
        (
            "np.floor((x - (m := x.min(axis=1, keepdims=True)))"
            " / (s := np.ptp(x, axis=1, keepdims=True) / 255)) * s + m",
            "round to nearest",
        ),
        ("np.round(x)", "these are whole numbers"),
        (
            "np.round((x - (m := x.min(axis=1, keepdims=True)))"
            " / (s := np.ptp(x, axis=1, keepdims=True) / 256)) * s + m",
            "255 steps, not 256",
        ),
        ("x / 2", "numbers differ"),
    ],
}
