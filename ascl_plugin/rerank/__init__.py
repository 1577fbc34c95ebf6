"""Re-ranking of a similarity matrix: no model, no labels, torch and numpy alone."""

from ascl_plugin.rerank.candidates import RerankedLists, rerank_candidates
from ascl_plugin.rerank.methods import Reranked, rerank
from ascl_plugin.rerank.tune import Trial, Tuned, tune_rerank

__all__ = [
    "Reranked",
    "RerankedLists",
    "Trial",
    "Tuned",
    "rerank",
    "rerank_candidates",
    "tune_rerank",
]
