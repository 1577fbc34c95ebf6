"""The loss as pytorch-metric-learning calls it."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from torch.nn.functional import normalize

if __name__ != "__main__":
    pytest.importorskip("pytorch_metric_learning", reason="extra `metric-learning`")
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import CrossBatchMemory, SelfSupervisedLoss
from pytorch_metric_learning.regularizers import LpRegularizer
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

from ascl_plugin import AsymmetryLoss
from ascl_plugin.adapters.losses.metric_learning import AsymmetryMetricLoss


def sets(pairs=6):
    torch.manual_seed(0)
    return torch.randn(3, pairs, 5)


def cosines(x, y):
    return normalize(x, dim=-1) @ normalize(y, dim=-1).T


@pytest.mark.parametrize("form", ["nll", "ratio"])
def test_it_is_the_loss_of_the_score_matrices(form):
    """Labels are names: which they are, and where the negatives stand, changes nothing."""
    images, texts, noisy = sets()
    labels = torch.tensor([4, 9, 0, 7, 1, 3])
    expected = AsymmetryLoss(0.1, form=form)
    given = AsymmetryMetricLoss(0.1, form)
    plain = given(images, labels, ref_emb=texts, ref_labels=labels)
    torch.testing.assert_close(plain, expected(cosines(images, texts)))
    mixed = torch.cat([noisy[:1], texts, noisy[1:]])
    kinds = torch.cat([torch.tensor([-1]), labels, torch.full((5,), -1)])
    torch.testing.assert_close(
        given(images, labels, ref_emb=mixed, ref_labels=kinds),
        expected(cosines(images, texts), cosines(images, noisy)),
    )


def test_an_embedding_regularizer_is_added():
    images, texts, _ = sets()
    labels = torch.arange(6)
    plain = AsymmetryMetricLoss()(images, labels, ref_emb=texts, ref_labels=labels)
    more = AsymmetryMetricLoss(embedding_regularizer=LpRegularizer(), embedding_reg_weight=2)
    torch.testing.assert_close(
        more(images, labels, ref_emb=texts, ref_labels=labels),
        plain + 2 * images.norm(dim=-1).mean(),
    )


def test_what_the_loss_cannot_take_is_refused():
    images, texts, _ = sets()
    labels, loss = torch.arange(6), AsymmetryMetricLoss()
    for own, other in ((labels // 2, labels // 2), (labels, labels.flip(0)), (labels, labels + 1)):
        with pytest.raises(ValueError, match=r"labels that all differ, .* same order"):
            loss(images, own, ref_emb=texts, ref_labels=other)
    with pytest.raises(ValueError, match="takes no miner"):
        triplets = (labels, labels, labels)
        loss(images, labels, triplets, ref_emb=texts, ref_labels=labels)
    with pytest.raises(ValueError, match=r"needs labels, and texts: ref_emb="):
        loss(images, labels)
    with pytest.raises(ValueError, match=r"grow with similarity, .* got LpDistance"):
        AsymmetryMetricLoss(distance=LpDistance())


def test_wrappers_that_refuse_it():
    """As the docstring says; if this fails, the docstring is out of date."""
    with pytest.raises(Exception, match="not supported for AsymmetryMetricLoss"):
        SelfSupervisedLoss(AsymmetryMetricLoss())
    with pytest.raises(Exception, match="not supported for AsymmetryMetricLoss"):
        CrossBatchMemory(AsymmetryMetricLoss(), embedding_size=5)


def test_two_processes_are_one_with_the_whole_batch(run_ranks, tmp_path):
    """The wrapper multiplies by the number of processes, for DDP averages gradients over them."""
    images, texts, noisy = sets()
    images.requires_grad_()
    labels, minus = torch.arange(6), torch.full((6,), -1)
    loss = AsymmetryMetricLoss()(
        images, labels, ref_emb=torch.cat([texts, noisy]), ref_labels=torch.cat([labels, minus])
    )
    loss.backward()
    for rank, (value, gradient) in enumerate(run_ranks(__file__, tmp_path)):
        torch.testing.assert_close(value / 2, loss.detach())
        torch.testing.assert_close(gradient / 2, images.grad[3 * rank :][:3])


def one_rank(rank, out):
    torch.distributed.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    own = slice(3 * rank, 3 * rank + 3)
    images, texts, noisy = sets()[:, own]
    images.requires_grad_()
    labels = torch.arange(6)[own]
    loss = DistributedLossWrapper(AsymmetryMetricLoss())(
        images,
        labels,
        ref_emb=torch.cat([texts, noisy]),
        ref_labels=torch.cat([labels, torch.full((3,), -1)]),
    )
    loss.backward()
    torch.save((loss.detach(), images.grad), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    one_rank(int(os.environ["RANK"]), sys.argv[1])
