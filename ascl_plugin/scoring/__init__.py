"""Score matrices of large sets, in blocks."""
