"""Numbers that every device and precision must agree on.

`benchmarks/gpu_check.py` compares a GPU's with the CPU's, a test those of a pretended device.
A case computes with the library at a `Place` and returns tensors by name. Inputs are drawn on the
CPU in fp32, so that two places differ in arithmetic alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ascl_plugin import (
    AsymmetryLoss,
    CrossModalFusion,
    ImageFeatures,
    LateInteraction,
    TextFeatures,
    TripletLoss,
    available,
    generate_negatives,
    rerank,
    retrieval_metrics,
    score_matrix,
)
from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss
from ascl_plugin.scoring.pairs import score_pairs

Found = dict[str, Tensor]
IMAGES, TEXTS, DIM = 6, 12, 32
WORDS = [f"w{number}" for number in range(30)]


@dataclass(frozen=True)
class Place:
    """A device and a precision."""

    device: str
    dtype: torch.dtype

    def normal(self, seed: int, *shape: int) -> Tensor:
        """Draw normal numbers that want a gradient."""
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return drawn.to(self.device, self.dtype).requires_grad_()

    def features(self, masks: bool = True) -> tuple[ImageFeatures, TextFeatures]:
        """Draw features of images and texts, with padding."""

        def mask(items: int, places: int) -> Tensor | None:
            real = torch.arange(places) <= (torch.arange(items)[:, None] * 5 + 2) % places
            return real.to(self.device) if masks else None

        images = ImageFeatures(
            self.normal(0, IMAGES, 7, DIM), mask(IMAGES, 7), self.normal(1, IMAGES, DIM)
        )
        return images, TextFeatures(self.normal(2, TEXTS, 9, DIM), mask(TEXTS, 9))

    def module(self, module: nn.Module) -> nn.Module:
        """Return the module here, its weights drawn anew."""
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weights in module.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator) * DIM**-0.5)
        return module.to(self.device, self.dtype)


def with_gradients(scores: Tensor, **inputs: Tensor | None) -> Found:
    """Return scores, and what a sum of them, each with a weight of its own, passes back."""
    weights = torch.linspace(-1, 1, scores.numel()).view(scores.shape)
    (scores * weights.to(scores)).sum().backward()
    grads = {f"d {k}": x.grad for k, x in inputs.items() if x is not None and x.grad is not None}
    return {"value": scores.detach(), **grads}


def scorer(make: Callable[[], nn.Module], place: Place, masks: bool = True) -> Found:
    """Score all pairs."""
    head, (images, texts) = place.module(make()), place.features(masks)
    given = {"regions": images.regions, "words": texts.words, "pooled": images.pooled}
    return with_gradients(head(images, texts), **given, **dict(head.named_parameters()))


def chosen_pairs(place: Place) -> Found:
    """Score chosen pairs, with and without gradients."""
    images, texts = place.features()
    rows, columns = (torch.arange(20) * 7 % n for n in (IMAGES, TEXTS))
    found = {}
    rows, columns = rows.to(place.device), columns.to(place.device)
    for name, options in (("cross", {"attention": "parameter-free"}), ("late", None)):
        made = LateInteraction(0.5, 0.5) if options is None else CrossModalFusion(DIM, 4, **options)
        head = place.module(made)
        some = head.score_pairs_local(images, texts, rows, columns)
        given = {"regions": images.regions, "words": texts.words}
        found |= {f"{name} {k}": v for k, v in with_gradients(some, **given).items()}
        images.regions.grad = texts.words.grad = None
        found[f"{name} whole"] = score_pairs(head, images, texts, rows, columns)
    return found


def loss(make: Callable[[], nn.Module], place: Place, **shapes: tuple[int, ...]) -> Found:
    """Take a loss of the four blocks."""
    names = ("sim", "negative_sim", "positive_sim", "positive_negative_sim")
    blocks = {n: place.normal(k, *shapes.get(n, (TEXTS, TEXTS))) for k, n in enumerate(names)}
    return with_gradients(
        make().to(place.device)(**{k: x / 10 for k, x in blocks.items()}), **blocks
    )


def owned(place: Place) -> Found:
    """Take a loss of several captions an image."""
    sim, targets = place.normal(0, IMAGES, TEXTS), torch.arange(TEXTS) // 2
    ignore = torch.zeros(IMAGES, TEXTS, dtype=torch.bool, device=place.device)
    ignore[0, 5] = True
    value = AsymmetryLoss()(sim / 10, targets=targets.to(place.device), ignore=ignore)
    return with_gradients(value, sim=sim)


def open_clip_loss(place: Place) -> Found:
    """Take the loss that open_clip's trainer calls."""
    images, texts = place.normal(0, TEXTS, DIM), place.normal(1, TEXTS, DIM)
    scale = torch.tensor(2.0, device=place.device)
    value = OpenClipAsymmetryLoss(negatives="none")(images / DIM, texts / DIM, scale)
    return with_gradients(value, images=images, texts=texts)


def negatives(place: Place) -> Found:
    """Generate negatives of every kind."""
    _, texts = place.features()
    seeds, found = torch.arange(TEXTS), {}
    for kind in ("gaussian", "shuffle", "token_cutoff", "feature_cutoff", "dropout", "mixture"):
        found[kind] = generate_negatives(texts, seeds, kind).words.detach()
    return found


def cached(place: Place) -> Found:
    """Take a step of a whole model, its batch encoded in parts and twice."""
    from ascl_plugin.retrieval.model import RetrievalModel
    from ascl_plugin.training.gradient_cache import CachedEncoding

    encoders = {"name": "grid", "width": 16, "grid": 2}, {"name": "transformer", "width": 16}
    head = {"name": "cross_modal", "num_heads": 4, "attention": "parameter-free"}
    model = RetrievalModel(encoders[0], {**encoders[1], "vocabulary": WORDS}, head, DIM)
    model = place.module(model).eval()
    captions = [" ".join(WORDS[(row + k) % 30] for k in range(3 + row % 3)) for row in range(6)]
    pictures = place.normal(4, 6, 3, 32, 32).detach()
    batch = model.text_encoder.tokenize(captions)
    batch = {k: v.to(place.device) for k, v in batch.items()} | {"pixel_values": pictures}
    batch = {"row": torch.arange(6), **batch, "noise_seed": torch.arange(6)}
    parts = CachedEncoding(model, batch, 4, nullcontext)
    AsymmetryLoss()(**model.score_blocks(parts.images, parts.texts, batch, "gaussian")).backward()
    parts.carry_on()
    return {f"d {k}": p.grad for k, p in model.named_parameters() if p.grad is not None}


def matrix(place: Place) -> Found:
    """Score all pairs in blocks: the matrix, and the best of each."""
    images, texts = place.features()
    head = place.module(CrossModalFusion(DIM, 4))
    best = score_matrix(head, images, texts, tile=(4, 5), topk=3)
    whole = score_matrix(head, images, texts, memory=2**20)
    return {"matrix": whole, "i2t": best.i2t_ids, "t2i": best.t2i_ids}


def reordered(method: str, place: Place) -> Found:
    """Re-rank: the first ten of each list."""
    sim = place.normal(5, 40, 200).detach() / 5
    found = rerank(sim, method=method)
    lists = {"i2t": found.i2t, "t2i": found.t2i.T}
    return {k: x.argsort(dim=1, descending=True, stable=True)[:, :10] for k, x in lists.items()}


def recalls(place: Place) -> Found:
    """Count recalls, of scores with ties."""
    sim = (place.normal(6, 40, 200).detach() * 4).round() + 2 * torch.eye(40).repeat_interleave(
        5, 1
    ).to(place.device, place.dtype)
    return {"all": torch.tensor(list(retrieval_metrics(sim, torch.arange(200) // 5).values()))}


CASES: dict[str, Callable[[Place], Found]] = {
    **{
        f"fusion, {kind}, {score}": partial(
            scorer, partial(CrossModalFusion, DIM, 4, attention=kind, global_score=score)
        )
        for kind in ("projected", "parameter-free")
        for score in ("attended", "both")
    },
    "fusion, softmin of words": partial(
        scorer, partial(CrossModalFusion, DIM, 4, word_pooling="mean_softmin")
    ),
    "late interaction": partial(scorer, partial(LateInteraction, 0.8, 0.5)),
    "late interaction, words": partial(scorer, partial(LateInteraction, 0.8)),
    "late interaction, no masks": partial(scorer, partial(LateInteraction, 0.8, 0.3), masks=False),
    "chosen pairs": chosen_pairs,
    "score_matrix": matrix,
    "loss": partial(loss, AsymmetryLoss),
    "loss, ratio": partial(loss, partial(AsymmetryLoss, form="ratio", learn_temperature=True)),
    "loss, sigmoid": partial(loss, partial(AsymmetryLoss, form="sigmoid")),
    "loss, pairwise": partial(
        loss, partial(AsymmetryLoss, negative_mode="pairwise", focal=1.0),
        negative_sim=(TEXTS, 3), positive_negative_sim=(TEXTS,),
    ),
    "loss, triplets": partial(loss, TripletLoss),
    "loss, several captions": owned,
    "loss, open_clip": open_clip_loss,
    "generated negatives": negatives,
    "gradient cache": cached,
    "metrics": recalls,
    **{f"rerank, {name}": partial(reordered, name) for name in available("rerank")},
}  # fmt: skip


def difference(found: Found, expected: Found, values: bool = False) -> float:
    """Return the largest difference of one tensor, as a share of its largest number.

    Of whole numbers, the share that differs. Nan differs by infinity.

    Args:
        values: leave gradients out: in half precision that of a maximum goes to another place.
    """
    if found.keys() != expected.keys():
        return float("inf")
    worst = 0.0
    for name, wanted in expected.items():
        if values and (name.startswith("d ") or " d " in name):
            continue
        given = found[name].detach().cpu()
        if wanted.dtype.is_floating_point:
            wanted = wanted.detach().cpu().double()
            off = (given.double() - wanted).abs().amax() / wanted.abs().amax().clamp_min(1e-6)
        else:
            off = (given != wanted.cpu()).double().mean()
        worst = max(worst, off.nan_to_num(torch.inf).item())
    return worst
