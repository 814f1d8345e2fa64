"""For each exercise, expressions that a reader may well put in the place of `...`, and words that
the hint then holds. Those of the later lessons lie beside, one file each."""

from importlib import import_module
from pathlib import Path

WRONG: dict[str, list[tuple[str, str]]] = {
    "00.similar": [
        ("'penguin'", "another picture's cosine is larger"),
        ("'cat'", "choose one of"),
        ("0.67", "choose one of"),
    ],
    "00.probabilities": [
        ("np.exp(scale * image @ texts.T)", "divide each row"),
        ("scale * image @ texts.T", "softmax is missing"),
        (
            "np.exp(image @ texts.T) / np.exp(image @ texts.T).sum(axis=1, keepdims=True)",
            "the scale is missing",
        ),
        (
            "(e := np.exp(scale * image @ texts.T)) / e.sum()",
            "each image's row must sum to 1",
        ),
        ("(e := np.exp(scale * image @ texts.T)) / e.sum(axis=0)", "over the texts"),
        ("(e := np.exp(scale * (image @ texts.T))) / e.sum(axis=1, keepdims=True)", "overflows"),
        ("(e := np.exp(scale * image @ texts.T)) / e.sum(axis=1)", "raised ValueError"),
        ("(image @ texts.T).max(axis=1)", "should be (2, 3), found (2,)"),
        ("undefined_name", "raised NameError"),
    ],
    "00.numbers": [
        ("8 * 256 * 256", "there are 24"),
        ("24 * 256 * 256", "there are 8"),
        ("24 * 8 * 256", "for *every* patch"),
        ("1", "too small"),
    ],
    "01.count": [
        ("640 * 480 / 14**2", "round down"),
        ("35 * 46", "round down"),
        ("(34, 45)", "a number is asked for, found a tuple"),
        ("256", "does not resize"),
        ("640 * 480 // 14**2", "each side on its own"),
    ],
    "01.normalise": [
        ("(raw / 255 - mean) / std", "channels should come first"),
        ("(raw.transpose(2, 0, 1) / 255 - mean) / std", "along the columns of pixels"),
        ("(raw / 255 / std).transpose(2, 0, 1)", "the mean was not subtracted"),
        ("(raw / 255 - mean / std).transpose(2, 0, 1)", "parentheses"),
        ("((raw - mean) / std).transpose(2, 0, 1)", "not divided by 255"),
        ("((raw / 255 - mean) / std).T", "rows and columns"),
        ("((raw / 255 - mean) / std)[..., ::-1].transpose(2, 0, 1)", "blue, green, red"),
        ("raw.transpose(2, 0, 1)", "right shape, but 18 of 18 numbers differ"),
        ("((raw / 255 - mean) / std).ravel()", "should be (3, 2, 3), found (18,)"),
    ],
    "01.where": [
        ("2 * 16 + 7", "row by row"),
        ("7 * 14 + 2", "16 patches"),
        ("100 / 14 * 16 + 37 / 14", "too large"),
        ("'seven'", "a number is asked for"),
    ],
    "01.together": [
        ("patches.reshape(3, Y, X)", "reshape alone"),
        (
            "patches.reshape(X // P, Y // P, 3, P, P).transpose(2, 1, 3, 0, 4).reshape(3, Y, X)",
            "column by column",
        ),
        (
            "patches.reshape(Y // P, X // P, P, P, 3).transpose(4, 0, 2, 1, 3).reshape(3, Y, X)",
            "inside a patch the channels come first",
        ),
        (
            "patches.reshape(Y // P, X // P, 3, P, P).transpose(0, 3, 1, 4, 2).reshape(Y, X, 3)",
            "channels should come first",
        ),
        ("patches", "should be (3, 4, 6), found (6, 12)"),
    ],
    "01.parameters": [
        ("3 * 14 * 14 * 1024", "there is a bias"),
        ("14 * 14 * 1024 + 1024", "three channels"),
        ("10**9", "too large"),
    ],
    "02.slice": [
        ("(4, 2)", "(column, row)"),
        ("(3, 2)", "where the patch is"),
        ("(3, 3)", "its number is 20"),
        ("20", "should be (2,), found ()"),
    ],
    "02.line": [
        (
            "np.concatenate([np.cos(a := np.outer(np.arange(T), 1e4 ** (-np.arange(D // 2)"
            " / (D // 2)))), np.sin(a)], axis=1)",
            "the sines come first",
        ),
        (
            "np.stack([np.sin(a := np.outer(np.arange(T), 1e4 ** (-np.arange(D // 2)"
            " / (D // 2)))), np.cos(a)], axis=-1).reshape(T, D)",
            "alternate",
        ),
        (
            "np.concatenate([np.sin(a := np.outer(np.arange(T), 1e4 ** (-np.arange(D // 2)"
            " / D))), np.cos(a)], axis=1)",
            "the exponent is i / (D/2)",
        ),
        (
            "np.concatenate([np.sin(a := np.outer(np.arange(T), 1e4 ** (np.arange(D // 2)"
            " / (D // 2)))), np.cos(a)], axis=1)",
            "the exponent is negative",
        ),
        (
            "np.concatenate([np.sin(a := np.outer(np.arange(1, T + 1), 1e4 ** (-np.arange(D // 2)"
            " / (D // 2)))), np.cos(a)], axis=1)",
            "count from 0",
        ),
        ("np.sin(np.outer(np.arange(T), 1e4 ** (-np.arange(D // 2) / (D // 2))))", "cosines are"),
        ("np.zeros((T, D))", "numbers differ"),
    ],
    "02.apart": [
        ("np.cos(dx * 1e4 ** (-np.arange(D // 4) / (D // 4))).sum()", "rows' half is missing"),
        ("np.cos(dy * 1e4 ** (-np.arange(D // 4) / (D // 4))).sum()", "columns' half is missing"),
        (
            "np.cos(dx * (o := 1e4 ** (-np.arange(D // 4) / (D // 4)))).sum()"
            " * np.cos(dy * o).sum()",
            "add up",
        ),
        (
            "(np.cos(dx * (o := 1e4 ** (-np.arange(D // 4) / (D // 4)))).sum()"
            " + np.cos(dy * o).sum()) / (D / 2)",
            "this is the cosine",
        ),
        (
            "2 * np.cos(1e4 ** (-np.arange(D // 2) / (D // 2)) * dx).sum()",
            "for dy = 2, dx = 3, D = 8",
        ),
        (
            "np.cos(dx * (o := 1e4 ** (-np.arange(D // 2) / (D // 2)))).sum()"
            " + np.cos(dy * o).sum()",
            "D/4 frequencies, not D/2",
        ),
        ("np.cos((dx + dy) * 1e4 ** (-np.arange(D // 4) / (D // 4))).sum()", "two sums"),
        ("D / 2", "too large"),
    ],
    "02.halve": [
        ("table.reshape(len(table) // 4, 4, -1).mean(axis=1)", "in a row of the picture"),
        ("table[::2][:4]", "numbers differ"),
        ("table.reshape(2, 2, 2, 2, -1).sum(axis=(1, 3)).reshape(4, -1)", "divide by 4"),
        ("table.reshape(2, 2, 2, 2, -1)[:, 0, :, 0].reshape(4, -1)", "the first of each block"),
        ("table.reshape(2, 2, 2, 2, -1).mean(axis=(1, 3))", "flatten the grid"),
        ("table.mean(axis=0)", "should be (4, 3), found (3,)"),
    ],
    "02.parameters": [
        ("32 * 32", "a vector of D numbers"),
        ("448 * 448 * 1024", "not for each pixel"),
        ("32 * 1024", "along one side"),
        ("16 * 16 * 1024", "224 model"),
    ],
    "03.third": [
        ("1.4", "weight of the third channel is missing"),
        ("2.1", "divided by the length"),
        ("3", "this is LayerNorm"),
        ("21 / 25", "take its root"),
        ("5.6", "not as 1 + w"),
        ("[0.2, 0.2, 4.2, 1.4]", "a number is asked for"),
        ("100", "too large"),
    ],
    "03.norm": [
        ("x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)", "the weight is missing"),
        ("x / (np.sqrt((x**2).mean(axis=-1, keepdims=True)) + eps) * weight", "under the root"),
        ("x / np.sqrt((x**2).mean(axis=-1, keepdims=True)) * weight", "eps is missing"),
        ("x / np.linalg.norm(x, axis=-1, keepdims=True) * weight", "divides by the length"),
        ("x / np.sqrt((x**2).mean() + eps) * weight", "an RMS of its own"),
        ("x / np.sqrt((x**2).mean(axis=-1) + eps) * weight", "raised ValueError"),
        ("x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps) * weight", "the channels"),
        ("x / np.sqrt((x**2).sum(axis=-1, keepdims=True) + eps) * weight", "take their mean"),
        ("x / ((x**2).mean(axis=-1, keepdims=True) + eps) * weight", "the root is missing"),
        (
            "(c := x - x.mean(axis=-1, keepdims=True))"
            " / np.sqrt((c**2).mean(axis=-1, keepdims=True) + eps) * weight",
            "this is LayerNorm",
        ),
        (
            "x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * (1 + weight)",
            "not as 1 + w",
        ),
    ],
    "03.fold": [
        ("W", "the weight is missing"),
        ("W / weight", "this divides"),
        ("W @ weight", "each column of W"),
        ("(W * weight).T", "the shape of W"),
        ("weight[: len(W), None] * W", "numbers differ"),
        ("weight[:, None] * W", "raised ValueError"),
    ],
    "03.count": [
        ("48", "the embedding counts"),
        ("25", "adds twice"),
        ("24", "adds twice"),
        ("13", "emoji-lit"),
    ],
    "04.softmax": [
        ("np.exp(scores)", "divide each row"),
        ("np.exp(scores) / np.exp(scores).sum()", "not the whole array"),
        ("np.exp(scores) / np.exp(scores).sum(axis=0)", "use the last axis"),
        ("np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)", "exp overflows"),
        (
            "(e := np.exp(scores - scores.max())) / e.sum(axis=1, keepdims=True)",
            "softmax of (2, 2, 3)",
        ),
        ("scores", "numbers differ"),
    ],
    "04.head": [
        (
            "(e := np.exp(x @ Wq.T @ (x @ Wk.T).T)) / e.sum(axis=1, keepdims=True) @ (x @ Wv.T)",
            "not divided by sqrt(E)",
        ),
        (
            "(e := np.exp(x @ Wq.T @ (x @ Wk.T).T / np.sqrt(x.shape[1])))"
            " / e.sum(axis=1, keepdims=True) @ (x @ Wv.T)",
            "not of D",
        ),
        (
            "(e := np.exp(x @ Wq.T @ (x @ Wk.T).T / 2)) / e.sum(axis=0) @ (x @ Wv.T)",
            "columns sum to 1",
        ),
        (
            "(e := np.exp(x @ Wk.T @ (x @ Wq.T).T / 2)) / e.sum(axis=1, keepdims=True)"
            " @ (x @ Wv.T)",
            "exchanged",
        ),
        ("x @ Wq.T @ (x @ Wk.T).T / 2 @ (x @ Wv.T)", "softmax is missing"),
        (
            "((e := np.exp(x @ Wq.T @ (x @ Wk.T).T / 2)) / e.sum(axis=1, keepdims=True)).T"
            " @ (x @ Wv.T)",
            "the pattern is transposed",
        ),
        ("x @ Wq", "raised ValueError"),
        ("x @ Wv.T", "numbers differ"),
    ],
    "04.split": [
        ("x.reshape(H, len(x), -1)", "reshape alone"),
        ("x.reshape(len(x), H, -1)", "the heads should come first"),
        ("x.reshape(len(x), -1, H).transpose(2, 0, 1)", "h·E to (h + 1)·E"),
        ("x.reshape(len(x), H, -1).transpose(1, 2, 0)", "(H, N, E)"),
    ],
    "04.causal": [
        ("np.tril(scores)", "exp(0) = 1"),
        ("np.where(np.triu(np.ones(scores.shape, bool)), scores, -np.inf)", "what came before"),
        ("np.where(np.tri(len(scores), k=-1, dtype=bool), scores, -np.inf)", "diagonal"),
        ("np.tri(len(scores))", "the mask itself"),
        ("np.where(np.tri(len(scores), dtype=bool), scores, -1e9)", "-inf hides all"),
        ("np.full(scores.shape, np.nan)", "NaN"),
        ("scores", "numbers differ"),
    ],
    "04.bytes": [
        ("8 * 4096**2", "4 bytes"),
        ("4 * 4096**2", "there are 8"),
        ("512", "in bytes"),
        ("8 * 4096 * 4", "for every patch"),
    ],
    "05.silu": [
        ("1 / (1 + np.exp(-z))", "this is the sigmoid"),
        ("z / (1 + np.exp(z))", "the sign of the exponent"),
        ("np.maximum(z, 0)", "this is ReLU"),
        ("z * np.exp(z) / (1 + np.exp(z))", "NaN for -1000 or 1000"),
        ("z", "numbers differ"),
    ],
    "05.swiglu": [
        (
            "(x @ fc1.T * (u := x @ fc3.T) / (1 + np.exp(-u))) @ fc2.T",
            "fc1 and fc3 are exchanged",
        ),
        ("(x @ fc1.T * (x @ fc3.T)) @ fc2.T", "SiLU is missing"),
        ("((g := x @ fc1.T) / (1 + np.exp(-g))) @ fc2.T", "the up projection"),
        ("((g := x @ fc1.T) / (1 + np.exp(-g)) + x @ fc3.T) @ fc2.T", "not added"),
        ("(x @ fc3.T / (1 + np.exp(-x @ fc1.T))) @ fc2.T", "this is the sigmoid"),
        ("((p := x @ fc1.T * (x @ fc3.T)) / (1 + np.exp(-p))) @ fc2.T", "to the gate alone"),
        ("x + ((g := x @ fc1.T) / (1 + np.exp(-g)) * (x @ fc3.T)) @ fc2.T", "added outside"),
        ("(g := x @ fc1.T) / (1 + np.exp(-g)) * (x @ fc3.T)", "should be (3, 4), found (3, 5)"),
        ("x @ fc1", "raised ValueError"),
    ],
    "05.both": [
        (
            "(x @ both[: len(both) // 2].T) * (u := x @ both[len(both) // 2 :].T)"
            " / (1 + np.exp(-u))",
            "the gate's rows come first",
        ),
        (
            "(g := x @ both[::2].T) / (1 + np.exp(-g)) * (x @ both[1::2].T)",
            "the rows do not alternate",
        ),
        (
            "(g := x @ both[: len(both) // 2].T) / (1 + np.exp(-g)) * g",
            "the same half was used twice",
        ),
        ("x @ both.T", "should be (2, 4), found (2, 8)"),
    ],
    "05.neurons": [
        ("4 * 768", "SwiGLU has three"),
        ("2 * 768", "two thirds"),
        ("3 * 768 * 2048", "how many neurons"),
        ("2816", "too large"),
    ],
    "05.lowest": [
        ("-0.28", "at which z"),
        ("1.28", "the sign"),
        ("0", "left of it"),
        ("-1", "too large"),
        ("'small'", "a number is asked for"),
    ],
    "06.block": [
        ("(y := x + attention(norm_1(x))) + mlp(norm_2(x))", "after attention was added"),
        ("mlp(norm_2(x + attention(norm_1(x))))", "x + is missing before the MLP"),
        ("mlp(norm_2(attention(norm_1(x))))", "nothing is added"),
        ("(y := attention(norm_1(x))) + mlp(norm_2(y))", "is added to is missing"),
        ("(y := norm_1(x) + attention(norm_1(x))) + mlp(norm_2(y))", "not normalised"),
        ("x + mlp(norm_2(x + attention(norm_1(x))))", "attention's part was lost"),
        ("(y := x + attention(norm_1(x))) + mlp(norm_1(y))", "norm_1 was used twice"),
        ("(y := x + attention(norm_2(x))) + mlp(norm_1(y))", "norm_1 stands before attention"),
        ("(y := x + attention(x)) + mlp(y)", "the norms are missing"),
        ("norm_2((y := norm_1(x + attention(x))) + mlp(y))", "not after the sums"),
        ("x + attention(norm_1(x))", "attention's half"),
        ("x", "it should be 413403"),
        ("'x'", "a number is asked for"),
    ],
    "06.nearest": [
        ("(a @ b.T).argmax(axis=1)", "favours long rows"),
        ("np.linalg.norm(a[:, None] - b, axis=2).argmin(axis=1)", "smallest distance"),
        (
            "(a / np.linalg.norm(a, axis=1, keepdims=True) @ b.T).argmax(axis=1)",
            "favours long rows",
        ),
        (
            "(a / np.linalg.norm(a, axis=1, keepdims=True)"
            " @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T).argmax(axis=0)",
            "for each row of b",
        ),
        (
            "(a / np.linalg.norm(a, axis=1, keepdims=True)"
            " @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T).max(axis=1)",
            "asked for is which row",
        ),
        ("a @ b", "raised ValueError"),
        ("np.zeros(len(a))", "numbers differ"),
    ],
    "06.parameters": [
        ("4 * 1024**2 + 3 * 1024 * 2816", "two norms have a weight"),
        ("3 * 1024**2 + 3 * 1024 * 2816 + 2048", "attention has four matrices"),
        ("4 * 1024**2 + 2 * 1024 * 2816 + 2048", "SwiGLU has three"),
        ("24 * (4 * 1024**2 + 3 * 1024 * 2816 + 2048)", "all 24 blocks"),
        ("309e6", "too large"),
    ],
    "06.share": [
        (
            "(s := np.linalg.svd(x, compute_uv=False))[0] ** 2 / (s**2).sum()",
            "the mean was not subtracted",
        ),
        (
            "(s := np.linalg.svd(x - x.mean(axis=0), compute_uv=False))[0] / s.sum()",
            "*squares*",
        ),
        (
            "(s := np.linalg.svd(x - x.mean(axis=1, keepdims=True), compute_uv=False))[0] ** 2"
            " / (s**2).sum()",
            "axis 0",
        ),
        ("np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[0] ** 2", "divide by the sum"),
        (
            "(s := np.linalg.svd(x - x.mean(axis=0), compute_uv=False)) ** 2 / (s**2).sum()",
            "one number is asked for",
        ),
    ],
}

for _file in sorted(Path(__file__).parent.glob("wrong_[0-9][0-9].py")):
    WRONG |= import_module(_file.stem).WRONG
