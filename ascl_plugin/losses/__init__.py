"""Losses over score matrices, independent of encoders and fusion."""

from ascl_plugin.losses.contrast import contrast_loss
from ascl_plugin.losses.functional import asymmetry_loss
from ascl_plugin.losses.modules import AsymmetryLoss, TripletLoss
from ascl_plugin.losses.temperature import LearnedTemperature
from ascl_plugin.losses.triplet import triplet_loss

__all__ = [
    "AsymmetryLoss",
    "LearnedTemperature",
    "TripletLoss",
    "asymmetry_loss",
    "contrast_loss",
    "triplet_loss",
]
