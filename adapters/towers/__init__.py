"""Image and text encoders of other frameworks."""
