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
        ("np.full(scores.shape, np.nan)", "NaN"),
        ("scores", "numbers differ"),
    ],
    "04.bytes": [
        ("8 * 4096**2", "4 bytes"),
        ("4 * 4096**2", "there are 8"),
        ("512", "in bytes"),
        ("8 * 4096 * 4", "for every patch"),
    ],
}

for _file in sorted(Path(__file__).parent.glob("wrong_[0-9][0-9].py")):
    WRONG |= import_module(_file.stem).WRONG
