"""Object detectors as image encoders."""
