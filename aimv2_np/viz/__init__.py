"""Pictures of what a model computes: patches, attention, positions, features, depth.

    from aimv2_np import viz
    trace = model.trace(picture)
    viz.attention(trace, block=3, head=2, patch=27)           # in a notebook, this shows it
    viz.norms(trace).savefig("norms.png")                     # anywhere else

They need matplotlib: `pip install 'aimv2-np[notebooks]'`.

pictures.py   what every picture is: a matplotlib Figure with an alternative text
canvas.py     colours, sizes, labels
arrays.py     what is drawn, as plain NumPy
components.py principal components, also for the page of `explain`
imagery.py    images and their patches
features.py   numbers and features over an image's patches
heads.py      whom a patch attends to, also with sliders; what the pooling head looks at
stream.py     the residual stream along depth
charts.py     matrices, bars, curves
diagrams.py   how a matrix product is cut into tiles

Every function returns the Figure; with `ax=` it draws there. Colours can be told apart by the
colour-blind: cividis for amounts, purple and orange for signs, the palette of Okabe and Ito.
matplotlib is imported with the first picture.
"""

from typing import TYPE_CHECKING

from ..lazy import lazily

_WHERE = {
    "as_rgb": "arrays",
    "attention": "heads",
    "bars": "charts",
    "contributions": "stream",
    "curves": "charts",
    "explore_attention": "heads",
    "image": "imagery",
    "matrix": "charts",
    "nearest": "features",
    "nearest_patches": "arrays",
    "norms": "stream",
    "over_patches": "features",
    "patches": "imagery",
    "pca": "features",
    "picture": "canvas",
    "pooling": "heads",
    "principal_components": "components",
    "probabilities": "charts",
    "roofline": "charts",
    "similarity": "features",
    "tiles": "diagrams",
}

__all__ = ["as_rgb", "attention", "bars", "contributions", "curves", "explore_attention",
           "image", "matrix", "nearest", "nearest_patches", "norms", "over_patches", "patches",
           "pca", "picture", "pooling", "principal_components", "probabilities", "roofline",
           "similarity", "tiles"]  # fmt: skip

if TYPE_CHECKING:
    from .arrays import as_rgb as as_rgb
    from .arrays import nearest_patches as nearest_patches
    from .canvas import picture as picture
    from .charts import bars as bars
    from .charts import curves as curves
    from .charts import matrix as matrix
    from .charts import probabilities as probabilities
    from .charts import roofline as roofline
    from .components import principal_components as principal_components
    from .diagrams import tiles as tiles
    from .features import nearest as nearest
    from .features import over_patches as over_patches
    from .features import pca as pca
    from .features import similarity as similarity
    from .heads import attention as attention
    from .heads import explore_attention as explore_attention
    from .heads import pooling as pooling
    from .imagery import image as image
    from .imagery import patches as patches
    from .stream import contributions as contributions
    from .stream import norms as norms

__getattr__, __dir__ = lazily(__name__, _WHERE)
