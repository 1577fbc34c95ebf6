"""Recalls, protocols and statistics of rankings."""
