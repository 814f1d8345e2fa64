"""What a model did with one image, as data and as a page.

    from aimv2_np.explain import explain
    found = explain(model, "cat.jpg", ["cat", "dog"])
    found.texts.contributions  # (K, N): what each patch adds to each logit
    found.write("cat.html")

explanation.py   all of it, from one trace
attention.py     whom patches attend to, small enough for a page
depth.py         the residual stream: its lengths, its principal components
texts.py         probabilities, and which patches raise them
page.py          the page; drawings.py draws, page.js moves what is drawn
"""

from .explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
