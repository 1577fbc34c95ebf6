"""Losses over score matrices, independent of encoders and fusion."""

from ascl_plugin.losses.functional import asymmetry_loss, triplet_loss
from ascl_plugin.losses.modules import AsymmetryLoss, TripletLoss

__all__ = ["AsymmetryLoss", "TripletLoss", "asymmetry_loss", "triplet_loss"]
