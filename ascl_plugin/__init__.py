"""Asymmetry-sensitive image-text retrieval."""

from ascl_plugin._version import __version__
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.registry import available, build, register

__all__ = ["ImageFeatures", "TextFeatures", "__version__", "available", "build", "register"]
