"""What two gloo processes gather, and the gradients that come back; losses: test_processes.py."""

from __future__ import annotations

import os
import sys

import pytest
import torch
import torch.distributed as dist

from ascl_plugin.distributed import gather, gather_features, world_size
from ascl_plugin.features import ImageFeatures, TextFeatures

WORLD = 2


def one_process(rank, out):
    """What each of the processes does; its results go into a file."""
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    found = {}
    # uneven shares: two rows of rank 0, three of rank 1
    local = torch.full((2 + rank, 3), float(rank), requires_grad=True)
    whole = gather(local)
    # each process weighs row n of the whole by n + 1: gradients of both processes add up
    (whole * torch.arange(1.0, 6)[:, None]).sum().backward()
    found["gathered"], found["gathered_grad"] = whole.detach(), local.grad
    # a sum hands both of its terms the same gradient
    one, other = (torch.ones(2, 3, requires_grad=True) for _ in range(2))
    both = gather(one) + gather(other)
    both.retain_grad()
    (both * torch.arange(1.0, 5)[:, None]).sum().backward()
    found |= {"of_sum": both.grad, "one_grad": one.grad, "other_grad": other.grad}

    words = torch.full((1, 1 + 2 * rank, 2), 1.0 + rank)
    texts = gather_features(TextFeatures(words))
    found["words"], found["mask"] = texts.words, texts.mask
    mask = torch.tensor([[True, rank == 0]])
    images = gather_features(ImageFeatures(torch.full((1, 2, 2), float(rank)), mask, words[:, 0]))
    found["regions"], found["region_mask"] = images.regions, images.mask
    found["pooled"] = images.pooled

    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory, run_ranks):
    """What each rank found. This file is the program."""
    out = tmp_path_factory.mktemp("ranks")
    return run_ranks(__file__, out, WORLD)


def test_one_process_gathers_nothing():
    texts = TextFeatures(torch.zeros(1, 2, 3))
    assert world_size() == 1
    assert gather_features(texts) is texts and gather(texts.words) is texts.words


def test_gather_keeps_the_order_of_ranks_and_adds_gradients_up(found):
    """Rows weigh 1, 2 (of rank 0) and 3, 4, 5 in the sum that each of the two ranks takes."""
    for values, weights in zip(found, ([1, 2], [3, 4, 5]), strict=True):
        assert values["gathered"][:, 0].tolist() == [0, 0, 1, 1, 1]
        assert values["gathered_grad"][:, 0].tolist() == [2 * weight for weight in weights]


def test_a_gradient_that_others_read_stays_as_it_is(found):
    for rank, values in enumerate(found):
        assert values["of_sum"][:, 0].tolist() == [1, 2, 3, 4]
        for name in ("one_grad", "other_grad"):
            assert values[name][:, 0].tolist() == [2 * (2 * rank + 1), 2 * (2 * rank + 2)]


def test_features_of_uneven_length_are_padded_and_masked(found):
    for values in found:
        assert values["words"][..., 0].tolist() == [[1, 0, 0], [2, 2, 2]]
        assert values["mask"].tolist() == [[True, False, False], [True, True, True]]
        assert values["regions"][:, 0, 0].tolist() == [0, 1]
        assert values["region_mask"].tolist() == [[True, True], [True, False]]
        assert values["pooled"][:, 0].tolist() == [1, 2]


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), sys.argv[1])
