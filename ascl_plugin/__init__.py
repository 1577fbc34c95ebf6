"""Asymmetry-sensitive image-text retrieval, as components that work alone and together.

* `AsymmetryLoss`, `TripletLoss`: losses over score matrices, for any model; as functions,
  `asymmetry_loss`, `triplet_loss`; `contrast_loss`: right scores against wrong ones, pair by pair.
  `gather_features`: features of all ranks, with gradients.
* `AsymmetryCollator`: batches with generated positives, and seeds of generated negatives;
  `generate_negatives` makes these.
* `CrossModalFusion`: scores images against texts by regions and words, and as wholes; it takes
  `ImageFeatures` and `TextFeatures`. `LateInteraction`, `PooledSimilarity`: cheaper scorers.
* `rerank`: both directions of retrieval from a score matrix alone; returns `Reranked`.
* `rerank_candidates`: the same from top-K lists alone; returns `RerankedLists`. `ItemNames`: lists
  of names, as vector databases return them, to and from ids.
* `Reranker`: a re-ranking method fitted on a bank of queries, then for any query alone.
* `tune_rerank`: options for `rerank` that gain on a validation split.
* `retrieval_metrics`, `score_matrix`, `search`: recalls and ranks; scores of large sets in tiles;
  the best of a large gallery. `audit`: refuses a scorer that sees more than its pair.
* `register`, `build`, `available`: components by name, also those of other packages.
* `RetrievalModel`: encoders and fusion in one; `Gallery`: pictures that it has encoded, to be
  searched by text. Both need ``pip install "ascl-plugin[recipes]"``.

Everything but the last two needs torch and numpy alone. See docs/components.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ascl_plugin._version import __version__

if TYPE_CHECKING:
    from ascl_plugin.asymmetry import AsymmetryCollator, generate_negatives
    from ascl_plugin.distributed import gather_features
    from ascl_plugin.features import ImageFeatures, TextFeatures
    from ascl_plugin.fusion import CrossModalFusion, LateInteraction, PooledSimilarity
    from ascl_plugin.losses import (
        AsymmetryLoss,
        TripletLoss,
        asymmetry_loss,
        contrast_loss,
        triplet_loss,
    )
    from ascl_plugin.metrics.recall import retrieval_metrics
    from ascl_plugin.registry import available, build, register
    from ascl_plugin.reranking import (
        ItemNames,
        Reranked,
        RerankedLists,
        Reranker,
        rerank,
        rerank_candidates,
        tune_rerank,
    )
    from ascl_plugin.retrieval.audit import audit
    from ascl_plugin.retrieval.gallery import Gallery as Gallery
    from ascl_plugin.retrieval.model import RetrievalModel as RetrievalModel
    from ascl_plugin.scoring.matrix import score_matrix
    from ascl_plugin.scoring.search import search

# Module -> its public names, imported when they are asked for: torch takes two seconds.
_HOMES = {
    "asymmetry": "AsymmetryCollator generate_negatives",
    "distributed": "gather_features",
    "features": "ImageFeatures TextFeatures",
    "fusion": "CrossModalFusion LateInteraction PooledSimilarity",
    "losses": "AsymmetryLoss TripletLoss asymmetry_loss contrast_loss triplet_loss",
    "metrics.recall": "retrieval_metrics",
    "registry": "available build register",
    "reranking": "ItemNames Reranked RerankedLists Reranker rerank rerank_candidates tune_rerank",
    "retrieval.audit": "audit",
    "retrieval.gallery": "Gallery",
    "retrieval.model": "RetrievalModel",
    "scoring.matrix": "score_matrix",
    "scoring.search": "search",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
# Without Gallery and RetrievalModel: `import *` must work on the base install.
__all__ = [
    "AsymmetryCollator",
    "AsymmetryLoss",
    "CrossModalFusion",
    "ImageFeatures",
    "ItemNames",
    "LateInteraction",
    "PooledSimilarity",
    "Reranked",
    "RerankedLists",
    "Reranker",
    "TextFeatures",
    "TripletLoss",
    "__version__",
    "asymmetry_loss",
    "audit",
    "available",
    "build",
    "contrast_loss",
    "gather_features",
    "generate_negatives",
    "register",
    "rerank",
    "rerank_candidates",
    "retrieval_metrics",
    "score_matrix",
    "search",
    "triplet_loss",
    "tune_rerank",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    """List the public names, those that need the recipes' packages among them."""
    return sorted({*__all__, *_HOME})
