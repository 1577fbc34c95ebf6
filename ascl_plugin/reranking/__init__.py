"""Re-ranking of a similarity matrix: no model, no labels, torch and numpy alone."""

from ascl_plugin.reranking.candidates import RerankedLists, rerank_candidates
from ascl_plugin.reranking.methods import Reranked, rerank
from ascl_plugin.reranking.reranker import Reranker
from ascl_plugin.reranking.tune import Trial, Tuned, tune_rerank

__all__ = [
    "Reranked",
    "RerankedLists",
    "Reranker",
    "Trial",
    "Tuned",
    "rerank",
    "rerank_candidates",
    "tune_rerank",
]
