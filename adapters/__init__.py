"""Adapters: one file per framework; heavy imports live here only."""
