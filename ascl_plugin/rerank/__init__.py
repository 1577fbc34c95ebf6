"""Re-ranking of a similarity matrix: no model, no labels, torch and numpy alone."""

from ascl_plugin.rerank.methods import Reranked, rerank

__all__ = ["Reranked", "rerank"]
