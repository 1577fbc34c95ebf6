"""Models, scores, metrics, and what keeps them honest."""
