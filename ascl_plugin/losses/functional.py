"""The asymmetry-sensitive loss as a function of score matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ascl_plugin.features import wide
from ascl_plugin.losses.blocks import balanced, check_blocks
from ascl_plugin.losses.negatives import Negatives
from ascl_plugin.losses.options import check_options
from ascl_plugin.losses.pairs import RightPairs, right_pairs

Index = tuple[Tensor, Tensor]


def asymmetry_loss(
    sim: Tensor,
    negative_sim: Tensor | None = None,
    positive_sim: Tensor | None = None,
    positive_negative_sim: Tensor | None = None,
    *,
    targets: Tensor | None = None,
    ignore: Tensor | None = None,
    temperature: float | Tensor = 0.05,
    balance: float = 0.5,
    form: str = "nll",
    bias: float | Tensor = -10.0,
    negative_mode: str = "sum",
    violations: str | None = None,
    margin: float = 0.0,
    focal: float = 0.0,
    negative_weight: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Return the asymmetry-sensitive contrastive loss (AsCL eqs. 3-5; ACF-R+ eqs. 16-18).

    For pair i, with S = `sim`, S- = `negative_sim` and temperature t::

        image side  e^(S_ii/t) / sum_n e^(S_ni/t)
        text side   e^(S_ii/t) / (sum_n e^(S_in/t) + sum_n a_in e^(S-_in/t))

    where a_in = 0 if S-_in > S_ii, else 1: a generated negative that beats the positive, by more
    than rounding, leaves the sum. L_I is the mean over pairs of the sum of both terms; L_II&III is
    the same of `positive_sim`, `positive_negative_sim`.

    With `targets`, W_it >= 0 says how right text t is for image i, and the loss is::

        - mean_i sum_t w_it log(e^(S_it/t) / (sum_n e^(S_in/t) + negatives of i, t))
        - mean_t sum_i v_it log(e^(S_it/t) / sum_n e^(S_nt/t))

    with w the rows of W and v its columns, scaled to sum 1. The means are over images, and texts,
    that have a right pair. W = identity is the loss above. (There, "text side" names the
    candidates: texts; the first line here.)

    `negative_mode` places the generated negatives of pair (i, t), with m = `margin`,
    g = `negative_weight`, and a as above (all 1 if `violations` is "keep"):

    - "sum": g sum_n a_itn e^((S-_in + m)/t) joins the denominator, over all given negatives;
    - "own": the same over the negatives of text t only;
    - "pairwise": the denominators stay; g times the mean, over right pairs (weighted by W) and
      negatives of their texts, of (1 - p)^focal log(1 + e^((S- - S_it + m)/t)) is added, with
      p = sigmoid((S_it - S-)/t) taken as a constant (`contrast_loss`).

    Args:
        sim: (N, N), row i, column j = S(I_i, T_j), pairs on the diagonal; (I, T) with `targets`.
        negative_sim: scores of generated negatives of the texts; -inf marks one that is missing.
            Mode "sum": (N, M) or (I, M), all images with M negatives. Modes "own" and "pairwise":
            (T,) or (T, M), each text's image with M negatives of that text; or of sim's shape,
            all images with one negative of each text, of which the right pairs are read.
        positive_sim: of sim's shape, scores with the generated positives T+, with the same targets.
        positive_negative_sim: scores with negatives of the T+, shaped as `negative_sim`.
        targets: the right texts of each image. Integers (T,): row of each text's image, -1 for a
            text of none. Or (I, T), bool or weights in [0, inf). None: the diagonal.
        ignore: (I, T) bool, True where a pair is neither right nor wrong, as known false negatives:
            it leaves all sums of sim and positive_sim, also as a right pair.
        temperature: t, in (0, inf); a number, or a tensor of one element, which gets a gradient.
        balance: weight of L_I, the rest goes to L_II&III; without positives the loss is L_I alone.
        form: "nll" takes -log of each ratio; "ratio" minus the ratio, as both papers print it;
            "sigmoid" judges each pair alone (SigLIP): the sum of -W_it log sigmoid(x_it) over the
            P right pairs and of -log sigmoid(-x_it) over the wrong texts of their images, over P,
            with x = S/t + bias. Negatives add -g log sigmoid(-x-), x- = (S- + m)/t + bias, to
            their pair; in mode "sum", weighted by w_it.
        bias: of form "sigmoid"; a number, or a tensor of one element, which gets a gradient.
        negative_mode: "sum" (the papers), "own" or "pairwise".
        violations: "drop" leaves out a negative that beats its pair (the papers' alpha rule), in
            mode "pairwise" from the mean; "keep" keeps it. None: "keep" in mode "pairwise", which
            would else learn from pairs already won alone; "drop" in the others.
        margin: m, in units of the score, in [0, inf).
        focal: exponent, in [0, inf); mode "pairwise" alone.
        negative_weight: g, in [0, inf).
        reduction: "none" returns the terms of each of the P right pairs, in the order of texts, or
            of `targets.nonzero()` for a matrix; "mean" their mean, the loss; "sum" their sum;
            "clip" half of the mean: directions are averaged, not added, as in CLIP.

    Returns:
        A scalar, or (P,); computed in fp32 or wider.

    Raises:
        ValueError: a shape or target that does not fit, or an option out of range.
    """
    if violations is None:
        violations = "keep" if negative_mode == "pairwise" else "drop"
    check_options(
        temperature=temperature, balance=balance, form=form, bias=bias,
        negative_mode=negative_mode, violations=violations, margin=margin, focal=focal,
        negative_weight=negative_weight, reduction=reduction,
    )  # fmt: skip
    blocks = (sim, negative_sim, positive_sim, positive_negative_sim)
    check_blocks(blocks, targets is None, negative_mode)
    pairs = right_pairs(sim, targets, ignore)
    diagonal = targets is None and ignore is None

    def half(scores: Tensor, block: Tensor | None) -> Tensor:
        scores = wide(scores)
        right = scores[pairs.index]
        logits = scores / temperature
        if form == "sigmoid":
            logits = logits + bias
        if ignore is not None:
            logits = logits.masked_fill(ignore, -torch.inf)
        negatives = None
        if block is not None and negative_weight:
            if negative_mode == "sum":
                row = None if diagonal else pairs.image
            else:
                block, row = _own_negatives(block, sim, pairs), None
            negatives = Negatives.of(block, right, row, violations)
        joining = None if negative_mode == "pairwise" else negatives
        if form == "sigmoid":
            terms = _sigmoid_terms(logits, pairs)
            if joining is not None:
                extra = negative_weight * joining.sigmoid_sum(temperature, bias, margin)
                terms = terms + (pairs.of_image * extra if negative_mode == "sum" else extra)
        else:
            joined = None
            if joining is not None:
                joined = joining.log_sum(temperature, margin, negative_weight)
            terms = pairs.weigh(
                _loss(log_ratios(logits, pairs.index, 1, joined), form),
                _loss(log_ratios(logits, pairs.index, 0), form),
            )
        if negatives is not None and joining is None:
            contrast = negatives.contrast(right, pairs.weight, temperature, margin, focal)
            terms = terms + negative_weight * contrast
        return terms

    terms = balanced(half, balance, blocks)
    if reduction == "clip":
        return terms.mean() / 2
    return terms if reduction == "none" else terms.mean() if reduction == "mean" else terms.sum()


def pair_terms(
    by_text: Tensor,
    by_image: Tensor,
    own: Tensor,
    negatives: Tensor | None = None,
    temperature: float | Tensor = 0.05,
    form: str = "nll",
) -> Tensor:
    """Return the loss of each of n pairs among N images and N texts: both terms, added.

    Args:
        by_text: (n, N), row i: S(I_i, T_j), pair i's image with every text.
        by_image: (n, N), row i: S(I_j, T_i), pair i's text with every image.
        own: (n,), the column of each pair's own text and image.
        negatives: (n, M), scores of the n images with M generated negatives.
        temperature: divides the scores; may be learned.
        form: "nll" or "ratio".

    Returns:
        (n,), fp32 or wider. `asymmetry_loss` is its mean for n = N.
    """
    # no autocast: log_softmax would be widened anyway, the divisions before it would not
    with torch.autocast(by_text.device.type, enabled=False):
        index = torch.arange(len(own), device=own.device), own
        by_text, joined = wide(by_text), None
        if negatives is not None:
            joined = Negatives.of(negatives, by_text[index]).log_sum(temperature, 0.0, 1.0)
        of_text = log_ratios(by_text / temperature, index, 1, joined)
        of_image = log_ratios(wide(by_image) / temperature, index, 1)
        return _loss(of_image, form) + _loss(of_text, form)


def log_ratios(logits: Tensor, index: Index, dim: int, joined: Tensor | None = None) -> Tensor:
    """Return (P,), log of e^x_p / (sum of e^x over `dim` + e^joined_p), x_p = logits[index]."""
    share = torch.log_softmax(logits, dim)[index]
    if joined is None:
        return share
    return share - softplus(joined - (logits[index] - share))


def _loss(log_ratio: Tensor, form: str) -> Tensor:
    return -log_ratio if form == "nll" else -log_ratio.exp()


def _own_negatives(block: Tensor, sim: Tensor, pairs: RightPairs) -> Tensor:
    """Return (P, M): negatives of each pair's text, from (T,), (T, M) or a matrix as sim."""
    if block.shape == sim.shape:
        return block[pairs.index][:, None]
    return (block[:, None] if block.ndim == 1 else block).index_select(0, pairs.text)


def _sigmoid_terms(logits: Tensor, pairs: RightPairs) -> Tensor:
    """Return (P,): each right pair, and its share of the wrong texts of its image."""
    wrong = softplus(logits.index_put(pairs.index, logits.new_tensor(-torch.inf))).sum(1)
    right = pairs.weight * softplus(-logits[pairs.index])
    return right + pairs.of_image * wrong[pairs.image]
