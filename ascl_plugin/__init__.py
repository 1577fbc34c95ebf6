"""Asymmetry-sensitive image-text retrieval, as components that work alone and together.

* `AsymmetryLoss`, `TripletLoss`: losses over score matrices, for any model.
* `AsymmetryCollator`: batches with generated positives, and seeds of generated negatives.
* `CrossModalFusion`: scores images against texts by regions and words, and as wholes; it takes
  `ImageFeatures` and `TextFeatures`.
* `rerank`: both directions of retrieval from a score matrix alone; returns `Reranked`.
* `rerank_candidates`: the same from top-K lists alone; returns `RerankedLists`.
* `tune_rerank`: options for `rerank` that gain on a validation split.
* `retrieval_metrics`, `score_matrix`: recalls and ranks; scores of large sets in tiles.
* `register`, `build`, `available`: components by name, also those of other packages.
* `RetrievalModel`: encoders and fusion in one; needs ``pip install "ascl-plugin[recipes]"``.

Everything but the last needs torch and numpy alone. See docs/components.md.
"""

from typing import TYPE_CHECKING, Any

from ascl_plugin._version import __version__
from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion.head import CrossModalFusion
from ascl_plugin.losses.modules import AsymmetryLoss, TripletLoss
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.registry import available, build, register

# From here on `ascl_plugin.rerank` is the function; its package is still imported by name
# (`from ascl_plugin.reranking.methods import ...`).
from ascl_plugin.reranking import Reranked, RerankedLists, rerank, rerank_candidates, tune_rerank
from ascl_plugin.scoring.matrix import score_matrix

if TYPE_CHECKING:
    from ascl_plugin.retrieval.model import RetrievalModel as RetrievalModel

# RetrievalModel is left out: `import *` must work on the base install.
__all__ = [
    "AsymmetryCollator",
    "AsymmetryLoss",
    "CrossModalFusion",
    "ImageFeatures",
    "Reranked",
    "RerankedLists",
    "TextFeatures",
    "TripletLoss",
    "__version__",
    "available",
    "build",
    "register",
    "rerank",
    "rerank_candidates",
    "retrieval_metrics",
    "score_matrix",
    "tune_rerank",
]


def __getattr__(name: str) -> Any:
    """`RetrievalModel`, imported when it is asked for."""
    if name == "RetrievalModel":
        from ascl_plugin.retrieval.model import RetrievalModel

        return RetrievalModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
