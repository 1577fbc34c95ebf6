"""Homes of other projects' evaluations: MTEB, CLIP_benchmark, torchmetrics."""
