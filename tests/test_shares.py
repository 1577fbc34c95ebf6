"""Two gloo ranks against one process: the same scores, in order, however images are split."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from ascl_plugin import shares as processes
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.paired_protocol import paired_matrix
from ascl_plugin.shares import is_main, shares

WORLD = 2
OWN = (4, 1)  # of five images
PAIRING = [0, 1, 2, 3, 4, 4, 4, 0]


def inputs():
    torch.manual_seed(0)
    head = CrossModalFusion(4, 2)
    v = ImageFeatures(torch.randn(5, 3, 4), None, torch.randn(5, 4))
    mask = torch.arange(6) < torch.randint(1, 7, (8, 1))
    return head, v, TextFeatures(torch.randn(8, 6, 4), mask)


def listed(best):
    return [best.i2t_ids, best.i2t_scores, best.t2i_ids, best.t2i_scores]


def one_rank(rank, out):
    """Write the results of one rank to a file."""
    warnings.simplefilter("ignore")
    processes.CHUNK = 40  # bytes: several messages a share
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    head, v, w = inputs()
    own = v[sum(OWN[:rank]) : sum(OWN[: rank + 1])]
    file = Path(out) / "sims.npy"
    found = {
        "split": score_matrix(head, v, w, (1, 3), processes="split"),
        "own": score_matrix(head, own, w, (1, 3), processes="own"),
        "uneven": score_matrix(head, v[: 5 * rank], w, processes="own"),
        "file": score_matrix(head, v, w, (1, 3), processes="split", path=file),
        "again": score_matrix(head, v, w, processes="split", path=file),
        "paired": paired_matrix(head, v, w, PAIRING, processes="split"),
        "split best": listed(score_matrix(head, v, w, (1, 3), topk=3, processes="split")),
        "own best": listed(score_matrix(head, own, w, topk=3, processes="own")),
        "long lists": listed(score_matrix(head, own, w, topk=99, processes="own")),
    }
    try:
        score_matrix(head, v[1:], w, processes="split", path=file)
    except ValueError as error:
        found["refused"] = str(error)
    if rank == 1:  # alone, while the other has gone on
        found["alone"] = score_matrix(head, v, w)
    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory, run_ranks):
    """Results of each rank; this file is the program."""
    out = tmp_path_factory.mktemp("ranks")
    values = run_ranks(__file__, out, WORLD)
    assert sorted(p.name for p in out.glob("sims*")) == ["sims.npy", "sims.npy.json"]
    return values


def test_every_process_has_the_matrix_of_one(found):
    head, v, w = inputs()
    alone = score_matrix(head, v, w)
    for values in found:
        for way in ("split", "own", "uneven", "file", "again"):
            torch.testing.assert_close(values[way], alone, rtol=0, atol=1e-6, msg=way)
    torch.testing.assert_close(found[1]["alone"], alone, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings('ignore:protocol "paired" leaks')
def test_the_paired_protocol_sees_the_images_of_all(found):
    head, v, w = inputs()
    alone = paired_matrix(head, v, w, PAIRING)
    for values in found:
        torch.testing.assert_close(values["paired"], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("way", "k"), [("split best", 3), ("own best", 3), ("long lists", 99)])
def test_every_process_has_the_lists_of_one(found, way, k):
    head, v, w = inputs()
    alone = listed(score_matrix(head, v, w, topk=k))
    for values in found:
        for got, expected in zip(values[way], alone, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_all_refuse_what_one_refuses(found):
    for values in found:
        assert "holds scores of shape [5, 8], not [4, 8]" in values["refused"]


def test_without_a_group_one_process_has_all():
    for way in ("one", "split", "own"):
        one = shares(way, 7, torch.device("cpu"))
        assert (one.counts, one.rank, one.total, one.own) == ((7,), 0, 7, slice(0, 7))
    assert is_main()


if __name__ == "__main__":
    one_rank(int(os.environ["RANK"]), sys.argv[1])
