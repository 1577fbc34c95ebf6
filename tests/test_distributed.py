"""Two gloo processes against one process with the whole batch."""

from __future__ import annotations

import os
import sys

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("huggingface_hub", reason="extra `recipes`")
from ascl_plugin.distributed import gather, gather_features, world_size
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.losses import AsymmetryLoss
from ascl_plugin.retrieval.model import RetrievalModel

WORLD = 2
# a word on rank 0, five on rank 1: what is gathered has to be padded
CAPTIONS = [["a", "the b"], ["a b c d e", "c a"]]
POSITIVES = [["b", "a c b"], ["d", "c a e e"]]


def model_and_batches():
    """A tiny model, and the batch of each rank, noise seeds and generated positives included."""
    torch.manual_seed(0)
    model = RetrievalModel(
        {"name": "grid", "width": 8, "grid": 2},
        {"name": "transformer", "vocabulary": list("abcde"), "width": 8},
        {"num_heads": 2},
        dim=8,
    ).double()
    pixels = torch.rand(4, 3, 32, 32).double() * 2 - 1
    seeds = torch.tensor([3, 1, 4, 5, 92, 65, 35, 89])
    batches = []
    for rank in range(WORLD):
        rows = slice(2 * rank, 2 * rank + 2)
        batches.append(
            model.text_encoder.tokenize(CAPTIONS[rank])
            | {f"positive_{k}": v for k, v in model.text_encoder.tokenize(POSITIVES[rank]).items()}
            | {"pixel_values": pixels[rows], "noise_seed": seeds[:4][rows]}
            | {"positive_noise_seed": seeds[4:][rows]}
        )
    return model, batches


def joined(batches, model):
    """The same four pairs as one batch of one process."""
    whole = {k: torch.cat([b[k] for b in batches]) for k in batches[0] if "_seed" in k}
    whole["pixel_values"] = torch.cat([b["pixel_values"] for b in batches])
    whole |= model.text_encoder.tokenize([*CAPTIONS[0], *CAPTIONS[1]])
    positives = model.text_encoder.tokenize([*POSITIVES[0], *POSITIVES[1]])
    return whole | {f"positive_{k}": v for k, v in positives.items()}


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

    model, batches = model_and_batches()
    # without DDP, which is Accelerate's business: the average is taken by hand
    blocks = model(batches[rank])
    loss = AsymmetryLoss()(**blocks)
    loss.backward()
    for name, parameter in model.named_parameters():
        dist.all_reduce(parameter.grad)
        found[f"grad {name}"] = parameter.grad / WORLD
    found |= {name: block.detach() for name, block in blocks.items()} | {"loss": loss.detach()}
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


def test_the_loss_and_its_gradients_are_those_of_one_process(found):
    """Score blocks over all pairs, the loss on both ranks, every parameter's averaged gradient."""
    model, batches = model_and_batches()
    blocks = model(joined(batches, model))
    loss = AsymmetryLoss()(**blocks)
    loss.backward()
    assert set(blocks) == {"sim", "negative_sim", "positive_sim", "positive_negative_sim"}
    for values in found:
        for name, block in blocks.items():
            assert block.shape == (4, 4)
            torch.testing.assert_close(values[name], block.detach(), rtol=0, atol=1e-10)
        torch.testing.assert_close(values["loss"], loss.detach(), rtol=0, atol=1e-10)
        largest = 0.0
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(
                values[f"grad {name}"], parameter.grad, rtol=0, atol=1e-10,
                msg=lambda m, name=name: f"{name}: {m}",
            )  # fmt: skip
            largest = max(largest, parameter.grad.abs().max().item())
        assert largest > 0.01


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), sys.argv[1])
