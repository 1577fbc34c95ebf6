"""The published evaluation: as its equations, with its warning, and found out by the audit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ascl_plugin.fusion import CrossModalFusion, LateInteraction
from ascl_plugin.fusion.reference import cosine, fuse, multi_head
from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.retrieval.audit import AuditError, audit, chance_recall
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.paired_protocol import PairedProtocol, paired_matrix

KINDS = ("projected", "parameter-free")
leaks = pytest.mark.filterwarnings('ignore:protocol "paired" leaks')


def head_of(attention, **options):
    torch.manual_seed(0)
    head = CrossModalFusion(8, 2, attention=attention, **options)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head.requires_grad_(False)


def one_by_one(head, images, texts, owners):
    """The definition, written out: each text over its image, each image over its first caption."""
    vs = [r[m] for r, m in zip(images.regions, images.mask, strict=True)]
    ws = [r[m] for r, m in zip(texts.words, texts.mask, strict=True)]
    w_g = [
        head.text_global(multi_head(head.image_to_text, vs[i], w).mean(0))
        for i, w in zip(owners, ws, strict=True)
    ]
    v_g = []
    for i, v in enumerate(vs):
        seen = multi_head(head.text_to_image, ws[owners.index(i)], v).mean(0)
        v_g.append(fuse(head, head.image_global(seen), head.pooled_global(images.pooled[i])))
    local, _ = head.score_parts(images, texts)
    whole = cosine(torch.stack(v_g)[:, None], torch.stack(w_g)[None])
    return head.local_weight * local + (1 - head.local_weight) * whole


@leaks
@pytest.mark.parametrize("attention", KINDS)
def test_as_its_definition(features, attention):
    head, (v, w) = head_of(attention), features(3, 7, dim=8)
    owners = [2, 0, 1, 1, 2, 0, 0]
    expected = one_by_one(head, v, w, owners)
    found = PairedProtocol(head)(v, w, owners)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    matrix = paired_matrix(head, v, w, owners)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-5)


def test_it_says_that_it_leaks(features):
    head, (v, w) = head_of("projected"), features(3, 3, dim=8)
    with pytest.warns(UserWarning, match="leaks: each text attends to its own image"):
        PairedProtocol(head)
    with pytest.warns(UserWarning, match="leaks"):
        paired_matrix(head, v, w, [0, 1, 2])


@leaks
@pytest.mark.parametrize("attention", KINDS)
def test_the_audit_finds_it_out(features, attention):
    """It pairs by position, which the shuffling of the audit reveals."""
    paired = PairedProtocol(head_of(attention))
    with pytest.raises(AuditError, match="shuffling images and texts changes scores"):
        audit(paired, *features(10, 10, dim=8))


@leaks
@pytest.mark.parametrize("attention", KINDS)
def test_on_noise_it_is_far_above_chance_and_the_pairwise_score_is_not(features, attention):
    """200 pairs of noise: .5 % is chance, and nine hits of the honest score have odds of 1e-6.

    Thirty steps on other noise teach the head to look for what a text has seen; nothing else is
    there to be learned.
    """
    images, texts = features(200, 200, dim=32)
    torch.manual_seed(0)
    head = CrossModalFusion(32, 16, attention=attention, local_weight=0.0)
    paired = PairedProtocol(head)
    loss_fn, optimizer = AsymmetryLoss(), torch.optim.Adam(head.parameters(), 1e-2)
    leaking, honest = {}, {}
    for step in range(31):
        if step in (0, 30):
            leaking[step], chance = chance_recall(paired, images, texts)
            honest[step], _ = chance_recall(head, images, texts)
        optimizer.zero_grad()
        loss_fn(paired(*features(32, 32, dim=32, seed=step + 1))).backward()
        optimizer.step()
    assert chance == 0.5
    assert leaking[0] > 15 * chance and leaking[30] > 40 * chance
    assert max(honest.values()) < 9 * chance


@leaks
def test_a_pairing_that_is_none_is_refused(features):
    head, (v, w) = head_of("projected"), features(3, 4, dim=8)
    paired = PairedProtocol(head)
    for owners, message in (
        ([0, 1, 2], r"shape \(3,\), there are 4 texts"),
        ([0, 1, 2, 3], "points beyond the 3 images"),
        ([0, 1, -1, 2], "points beyond the 3 images"),
        ([0, 2, 2, 0], "image 1 has no caption"),
    ):
        with pytest.raises(ValueError, match=message):
            paired(v, w, owners)
    with pytest.raises(TypeError, match="takes a CrossModalFusion, got LateInteraction"):
        PairedProtocol(LateInteraction())
    with pytest.raises(TypeError, match="PairedProtocol scores a whole gallery at once"):
        score_matrix(paired, v, w)
    with pytest.raises(ValueError, match="the paired protocol goes with"):
        paired_matrix(head, v, w, [0, 1, 2, 0], processes="own")
