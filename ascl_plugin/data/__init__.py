"""Readers of image-caption data, streams, drawn scenes, and the store of cached features."""
