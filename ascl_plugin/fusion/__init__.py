"""Scorers of image-text pairs."""

from ascl_plugin.fusion.head import CrossModalFusion
from ascl_plugin.fusion.late_interaction import LateInteraction
from ascl_plugin.fusion.pooled import PooledSimilarity

__all__ = ["CrossModalFusion", "LateInteraction", "PooledSimilarity"]
