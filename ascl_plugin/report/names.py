"""Names of figures as readers see them, and what they mean."""

ASYMMETRY = {
    "asym1_caption": "caption > negative",
    "asym1_caption_blind": "caption, blind",
    "asym1_richer": "richer > negative",
    "asym1_richer_blind": "richer, blind",
    "asym1_shorter": "shorter > negative",
    "asym1_shorter_blind": "shorter, blind",
    "caption_r1": "caption R@1",
    "richer_r1": "richer R@1",
    "shorter_r1": "shorter R@1",
}
RANKING = {
    "i2t_ndcg10": "I2T nDCG@10",
    "t2i_ndcg10": "T2I nDCG@10",
    "i2t_mrr": "I2T MRR",
    "t2i_mrr": "T2I MRR",
}
RECALLS = (
    "I2T: texts for an image; T2I: images for a text; R@k: percent of queries with a right answer "
    "among the first k; Rsum: the sum of the six"
)
BLIND = "blind: the mean image in place of each; a figure is worth what it has above that"
ASYMMETRY_NOTES = (
    "caption > negative: percent of captions that score above themselves with a false phrase "
    "added; richer: captions with a true phrase more; shorter: with a phrase less.",
    f"{BLIND[0].upper()}{BLIND[1:]}.",
)
