"""Generated positives and negatives."""

from ascl_plugin.asymmetry.captions.text_edits import TextEdits
from ascl_plugin.asymmetry.collator import AsymmetryCollator
from ascl_plugin.asymmetry.embedding import NEGATIVES, generate_negatives
from ascl_plugin.asymmetry.text import POSITIVES, generate_positive

__all__ = [
    "NEGATIVES",
    "POSITIVES",
    "AsymmetryCollator",
    "TextEdits",
    "generate_negatives",
    "generate_positive",
]
