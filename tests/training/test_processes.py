"""Two and three processes against one: gradients, order of data, resuming with another number."""

from __future__ import annotations

import json
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

pytest.importorskip("accelerate", reason="extra `recipes`")
import processes_ranks as program

from ascl_plugin.training.batches import epoch_batches
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint

pytestmark = pytest.mark.recipe
WORLDS = (1, 2, 3)
STEPS = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory, run_ranks):
    """Folder of all runs, and by number of processes what each of them found.

    Steps have two batches. One process dies in batch 7, the second of step 4, and three go on,
    from the checkpoint of step 3. Two are stopped in the first epoch, in batch 0, and one goes on.
    Two are stopped in the second, in batch 4, and go on.
    """
    out = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {"alone": program.run(out / "alone-1")}
    program.run(out / "parts-1", "--balanced_pairs=0")
    runs["1-3, first"] = program.run(out / "1-3", kill_at=7)
    ranks = {world: run_ranks(program.__file__, out, world) for world in (2, 3)}
    runs["2-1, then"] = program.run(out / "2-1", "--resume", "--num_workers=2")
    components = {name: program.gradients(**o) for name, o in program.COMPONENTS.items()}
    torch.set_num_threads(threads)
    return out, {1: [{"runs": runs, "components": components}], **ranks}


def batches(found, world, run):
    """What was in each batch, the processes' parts one after another."""
    parts = [rank["runs"][run][1] for rank in found[1][world]]
    return [list(chain.from_iterable(batch)) for batch in zip(*parts, strict=True)]


def statuses(found, world, run):
    return {rank["runs"][run][0] for rank in found[1][world]}


def weights(folder):
    return load_file(checkpoints(folder)[-1] / "model.safetensors")


@pytest.mark.parametrize("world", WORLDS[1:])
@pytest.mark.parametrize("name", program.COMPONENTS)
def test_loss_and_gradients_are_those_of_one_process(found, name, world):
    """In fp32, of 7 pairs: shares are uneven."""
    alone = found[1][1][0]["components"][name]
    largest = max(g.abs().max().item() for g in alone["gradients"].values())
    assert 0.1 < largest < 20
    for rank in found[1][world]:
        for kind, atol in (("values", 1e-5), ("gradients", 2e-6 * max(1, largest))):
            ours = rank["components"][name][kind]
            assert ours.keys() == alone[kind].keys()
            for key, value in alone[kind].items():
                torch.testing.assert_close(
                    ours[key], value, rtol=0, atol=atol, msg=lambda m, key=key: f"{key}: {m}"
                )


@pytest.mark.parametrize(("world", "shares"), [(2, (3, 4)), (3, (2, 2, 3))])
def test_features_of_texts_are_sent_and_own_rows_are_scored(found, world, shares):
    """Bytes: words and masks of four kinds of texts, rows of scores; nothing of images."""
    lengths = (5, 5, 6, 6)  # captions, their negatives, positives, theirs
    most, dim = max(shares), 8
    words = [[most, length, dim, 4] for length in lengths]
    masks = [[most, length, 1] for length in lengths]
    rows = [most, 4 * sum(shares), 4]
    for share, rank in zip(shares, found[1][world], strict=True):
        seen = rank["components"]["nll"]
        assert seen["scored"] == [[share, 4 * sum(shares)]]
        assert sorted(seen["sent"]) == sorted([*words, *masks, rows])


def test_data_are_a_function_of_seed_epoch_and_row(found):
    """Row, caption, its words, the generated positive, noise seeds, pixels; on 1, 2, 3 processes.

    The runs left alone load in their own process; those below, all the same, in two workers each.
    """
    expected = batches(found, 1, "alone")
    counts = [5] * 16
    planned = [b for epoch in range(2) for b in epoch_batches(0, epoch, counts, 7, 2)]
    assert [[tuple(line[:2]) for line in batch] for batch in expected] == planned
    assert len(expected[0][0]) == 4 and len(expected[-1][0]) == 7  # without and with generated
    for world in WORLDS[1:]:
        assert statuses(found, world, "alone") == {0}
        assert batches(found, world, "alone") == expected


@pytest.mark.parametrize(
    ("name", "first", "then", "until", "since"),
    [("1-3", 1, 3, 7, 6), ("2-1", 2, 1, 2, 2), ("2-2", 2, 2, 6, 6)],
)
def test_a_run_goes_on_with_the_right_rows(found, name, first, then, until, since):
    """Every batch of a run left alone, in its order; after a death, those since the checkpoint."""
    expected = batches(found, 1, "alone")
    assert 0 not in statuses(found, first, f"{name}, first")
    assert statuses(found, then, f"{name}, then") == {0}
    assert batches(found, first, f"{name}, first") == expected[:until]
    assert batches(found, then, f"{name}, then") == expected[since:]


@pytest.mark.parametrize("name", ["alone-2", "alone-3", "1-3", "2-1", "2-2", "parts-2"])
def test_runs_end_with_the_weights_and_metrics_of_one_process(found, name):
    """In doubles; shares of the 5 images of validation are uneven, too."""
    alone = found[0] / ("parts-1" if name == "parts-2" else "alone-1")
    folder = found[0] / name
    ours, expected = weights(folder), weights(alone)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6, msg=key)
    logs = [
        [json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()]
        for f in (alone, folder)
    ]
    losses = [[line["loss"] for line in log if "loss" in line] for log in logs]
    assert len(losses[0]) == STEPS and losses[1] == pytest.approx(losses[0], abs=1e-6)
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (alone, folder)]
    for split in ("val", "test"):
        assert metrics[0][split] == metrics[1][split]


def test_processes_judge_the_model_that_is_saved(found):
    """Each scores its share of the images with the running means of the first."""
    (code, first), second = (rank["runs"]["batch norm"] for rank in found[1][2])
    assert code == 0 and len(first) >= 2
    assert [code, first] == list(second)
    assert first[0] != [0, 3, 0]  # it has seen batches


def test_the_same_number_of_processes_ends_bit_for_bit_the_same(found):
    """Weights and the optimiser's moments."""
    ours, expected = (load_checkpoint(checkpoints(found[0] / n)[-1]) for n in ("2-2", "alone-2"))
    for key, value in expected[0].items():
        assert torch.equal(ours[0][key], value), key
    moments = [state["optimizer"]["state"] for _, state in (ours, expected)]
    for number, moment in moments[1].items():
        for key, value in moment.items():
            assert torch.equal(moments[0][number][key], value), (number, key)


def test_processes_skip_the_same_steps(found):
    """Every process leaves out step 2 and stops at 4; gradients of steps 1 and 3 are shared."""
    zero, one = (rank["bad"] for rank in found[1][2])
    assert zero["steps"] == one["steps"] == [2]
    torch.manual_seed(0)
    # d sum / d weight: 2 rows of 1 on rank 0, of 2 on rank 1, in the mean 3; two steps of 0.1
    expected = nn.Linear(2, 2).weight.detach() - 0.6
    torch.testing.assert_close(zero["weight"], expected)
    assert torch.equal(one["weight"], zero["weight"])
    assert one["error"].startswith("loss is nan at step 4; the batch held images image 0, image 1.")
    assert zero["error"].startswith("a loss or gradient of another process is not finite at step 4")
