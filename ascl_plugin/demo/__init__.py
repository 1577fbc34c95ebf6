"""A trained model on a local page: search both ways, attention, before and after re-ranking."""
