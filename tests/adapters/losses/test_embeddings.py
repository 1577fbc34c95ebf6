"""EmbeddingLoss against AsymmetryLoss of score matrices, and two processes against one."""

from __future__ import annotations

import os
import sys

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import normalize
from torch.testing import assert_close

from ascl_plugin import AsymmetryLoss
from ascl_plugin.adapters.losses.embeddings import EmbeddingLoss, noisy, text_blocks

# ranks bring unequal numbers of images: 2 and 3, with two texts each
IMAGES, SPLIT = 5, 2
NAMES = ("", "positive_", "negative_", "positive_negative_")


def drawn():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 6, generator=generator, dtype=torch.float64)
    own = images.repeat_interleave(2, 0)
    texts = {
        name: (own + torch.randn(own.shape, generator=generator, dtype=torch.float64))
        for name in NAMES
    }
    return images.requires_grad_(), {name: x.requires_grad_() for name, x in texts.items()}


def total(loss_fn, images, texts, batch):
    return torch.stack(list(loss_fn.of_batch(images, texts, batch).values())).sum()


def one_rank(rank, out):
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    images, texts = drawn()
    own = slice(0, SPLIT) if rank == 0 else slice(SPLIT, IMAGES)
    mine = {name: x[2 * own.start : 2 * own.stop] for name, x in texts.items()}
    owner = torch.arange(len(images[own])).repeat_interleave(2)
    found = {}
    for mode in ("sum", "pairwise"):
        loss_fn = EmbeddingLoss(AsymmetryLoss(0.1, balance=0.3, negative_mode=mode))
        loss = total(loss_fn, images[own], mine, {"image_of_text": owner})
        leaves = [images, *texts.values()]
        gradients = torch.autograd.grad(loss, leaves)
        for gradient in gradients:
            dist.all_reduce(gradient)
        found[mode] = [loss.detach(), *(gradient / 2 for gradient in gradients)]
    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


def expected(mode):
    """The loss of score matrices, and its gradients, in one process."""
    images, texts = drawn()
    owner = torch.arange(IMAGES).repeat_interleave(2)
    sims = [normalize(images, dim=1) @ normalize(x, dim=1).T for x in texts.values()]
    sim, positive, negative, positive_negative = sims
    loss_fn = AsymmetryLoss(0.1, balance=0.3, negative_mode=mode)
    loss = loss_fn(sim, negative, positive, positive_negative, targets=owner)
    return [loss.detach(), *torch.autograd.grad(loss, [images, *texts.values()])]


def test_two_processes_of_unequal_batches_are_one(run_ranks, tmp_path):
    for found in run_ranks(__file__, tmp_path):
        for mode in ("sum", "pairwise"):
            for ours, theirs in zip(found[mode], expected(mode), strict=True):
                assert_close(ours, theirs)


@pytest.mark.parametrize("mode", ["sum", "own", "pairwise"])
def test_it_is_the_loss_of_the_score_matrices(mode):
    images, texts = drawn()
    owner = torch.arange(IMAGES).repeat_interleave(2)
    loss_fn = EmbeddingLoss(AsymmetryLoss(0.1, balance=0.3, negative_mode=mode))
    assert_close(
        total(loss_fn, images, texts, {"image_of_text": owner}).detach(), expected(mode)[0]
    )


def test_several_positives_count_by_their_mean_and_all_negatives_compete():
    """With balance b: b L(T, both negatives) + (1 - b) (L(P1) + L(P2)) / 2, by score matrices."""
    images, texts = drawn()
    images, (text, one, two, three) = normalize(images), [x[::2] for x in texts.values()]
    loss_fn = AsymmetryLoss(0.1, balance=0.3)
    terms = EmbeddingLoss(loss_fn)(images, text, [one, two], [three, one])

    def sim(*columns):
        return images @ normalize(torch.cat(columns), dim=1).T

    assert_close(terms["asymmetry_loss"], 0.3 * loss_fn(sim(text), sim(three, one)))
    generated = (loss_fn(sim(one)) + loss_fn(sim(two))) / 2
    assert_close(terms["positive_loss"], 0.7 * generated)
    assert list(EmbeddingLoss(loss_fn)(images, text)) == ["asymmetry_loss"]


def test_gaussian_noise_has_the_strength_it_says():
    """Noise of norm s on a unit vector of many dimensions leaves a cosine of 1 / sqrt(1 + s^2)."""
    texts = normalize(torch.randn(64, 4096), dim=1)
    for seeds in (None, torch.arange(64)):
        drawn = noisy(texts, "gaussian", 0.75, seeds)
        assert_close(drawn.norm(dim=1), torch.ones(64))
        assert_close((drawn * texts).sum(1), torch.full((64,), 0.8), rtol=0, atol=0.03)
    again = noisy(texts, "dropout", 0.5, torch.arange(64))
    assert torch.equal(again, noisy(texts, "dropout", 0.5, torch.arange(64)))
    assert not torch.equal(noisy(texts, "dropout"), noisy(texts, "dropout"))


def test_seeds_of_the_collator_become_negatives_and_noise_is_off_in_evaluation():
    images, texts = drawn()
    batch = {"noise_seed": torch.arange(10), "positive_noise_seed": torch.arange(10, 20)}
    batch["image_of_text"] = torch.arange(IMAGES).repeat_interleave(2)
    plain = {name: texts[name] for name in NAMES[:2]}
    seeded = {
        **plain,
        "negative_": noisy(normalize(texts[""]), "gaussian", None, batch["noise_seed"]),
        "positive_negative_": noisy(
            normalize(texts["positive_"]), "gaussian", None, batch["positive_noise_seed"]
        ),
    }
    owner = {"image_of_text": batch["image_of_text"]}
    loss_fn = EmbeddingLoss()
    assert_close(total(loss_fn, images, plain, batch), total(loss_fn, images, seeded, owner))
    loss_fn = EmbeddingLoss(noise="dropout")
    assert total(loss_fn, images, plain, owner) != total(loss_fn, images, plain, owner)
    assert_close(
        total(loss_fn.eval(), images, plain, owner), total(EmbeddingLoss(), images, plain, owner)
    )


def test_texts_of_a_batch_are_told_apart_by_their_prefixes():
    keys = (
        "input_ids", "pixel_values", "positive_input_ids", "negative_input_ids", "noise_seed",
        "positive_negative_input_ids", "positive_noise_seed", "row",
    )  # fmt: skip
    blocks = text_blocks({key: torch.tensor(place) for place, key in enumerate(keys)})
    assert {k: {n: int(x) for n, x in b.items()} for k, b in blocks.items()} == {
        "": {"input_ids": 0, "pixel_values": 1},
        "positive_": {"input_ids": 2},
        "negative_": {"input_ids": 3},
        "positive_negative_": {"input_ids": 5},
    }


def test_options_out_of_range():
    with pytest.raises(ValueError, match="gaussian, dropout, none, got 'shuffle'"):
        EmbeddingLoss(noise="shuffle")
    with pytest.raises(ValueError, match="reduction must not be 'none'"):
        EmbeddingLoss(AsymmetryLoss(reduction="none"))


if __name__ == "__main__":
    one_rank(int(os.environ["RANK"]), sys.argv[1])
