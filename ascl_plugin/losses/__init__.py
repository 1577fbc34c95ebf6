"""Losses over score matrices; they know nothing of encoders or fusion."""

from ascl_plugin.losses.functional import asymmetry_loss, triplet_loss
from ascl_plugin.losses.modules import AsymmetryLoss, TripletLoss

__all__ = ["AsymmetryLoss", "TripletLoss", "asymmetry_loss", "triplet_loss"]
