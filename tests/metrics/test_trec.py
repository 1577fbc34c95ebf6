"""TREC files: written, read, and measured as ir_measures (trec_eval) measures them."""

from __future__ import annotations

import pytest
import torch

from ascl_plugin.metrics.protocols import protocol_metrics
from ascl_plugin.metrics.trec import read_qrels, read_run, run_metrics, write_qrels, write_run

RUN = """q1 Q0 b 1 0.5 x
q1 Q0 a 2 0.5 x
q1 Q0 c 3 2 x
q2 Q0 a 1 -1 x
"""
QRELS = "q1 0 a 2\nq1 0 b 1\nq1 0 d 3\nq2 0 a 0\nq2 0 b 1\nq3 0 a 1\n"


def test_by_hand(tmp_path):
    """By score, then the higher id: q1 ranks c, b, a; grades 0, 1, 2. First right at rank 2.

    nDCG = (1/log2(3) + 2/log2(4)) / (3 + 2/log2(3) + 1/log2(4)) = 1.6309 / 4.7619. q2 finds none of
    its right ones, and q3 is not in the run: 0.
    """
    (tmp_path / "a.run").write_text(RUN)
    (tmp_path / "a.qrels").write_text(QRELS)
    run, qrels = read_run(tmp_path / "a.run"), read_qrels(tmp_path / "a.qrels")
    assert run["q1"] == {"b": 0.5, "a": 0.5, "c": 2} and qrels["q2"] == {"a": 0, "b": 1}
    third = 100 / 3
    assert run_metrics(run, qrels) == pytest.approx(
        {"r1": 0, "r5": third, "r10": third, "ndcg10": third * 1.6309 / 4.7619, "mrr": third / 2},
        abs=1e-3,
    )
    with pytest.raises(ValueError, match=r"no query of the run \(1\) is in the qrels \(3\)"):
        run_metrics({"q9": {"a": 1}}, qrels)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 b 1 0.5", "line 2 has 5 words, expected QUERY Q0"),
        ("q1 Q0 b 1 nan x", "line 2: score 'nan', expected a finite"),
        ("q1 Q0 a 1 7 x", "line 2: query 'q1' has document 'a' twice"),
    ],
)
def test_a_wrong_line_is_named(line, message, tmp_path):
    (tmp_path / "a.run").write_text(f"q1 Q0 a 1 0.5 x\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "a.run")


def written(folder, sim, owners, depth=100):
    """Both directions of scores as files; ids have white space."""
    images = [f"image {i}" for i in range(len(sim))]
    texts = [f"{images[i]}#{t}" for t, i in enumerate(owners)]
    write_run(folder / "i2t.run", sim, images, texts, depth)
    write_run(folder / "t2i.run", sim.T, texts, images, depth)
    write_qrels(folder / "i2t.qrels", [(images[i], t) for i, t in zip(owners, texts, strict=True)])
    write_qrels(folder / "t2i.qrels", [(t, images[i]) for i, t in zip(owners, texts, strict=True)])


def drawn(images=40, captions=3):
    generator = torch.Generator().manual_seed(0)
    owners = torch.arange(images * captions) % images
    sim = torch.randn(images, len(owners), generator=generator)
    return sim + 2 * (owners == torch.arange(images)[:, None]), owners


def test_what_is_written_has_the_metrics_of_the_scores(tmp_path):
    sim, owners = drawn()
    written(tmp_path, sim, owners.tolist(), depth=200)
    found = protocol_metrics(sim, owners)
    for way in ("i2t", "t2i"):
        run = read_run(tmp_path / f"{way}.run")
        of_files = run_metrics(run, read_qrels(tmp_path / f"{way}.qrels"))
        assert of_files == pytest.approx({k: found[f"{way}_{k}"] for k in of_files}, abs=1e-9)
    assert "image%200" in run["image%200#0"]
    with pytest.raises(ValueError, match="queries: 2 ids, of which 1 differ"):
        write_run(tmp_path / "x.run", sim[:2, :1], ["a b", "a%20b"], ["c"])


@pytest.mark.parametrize("depth", [5, 100])
def test_the_same_as_ir_measures(tmp_path, depth):
    """On files of ours, with equal scores among them, and on the one written by hand."""
    ir_measures = pytest.importorskip("ir_measures", reason="extra `test`")
    names = {"Success@1": "r1", "Success@5": "r5", "Success@10": "r10", "nDCG@10": "ndcg10"}
    names["RR"] = "mrr"
    sim, owners = drawn()
    written(tmp_path, (3 * sim).round() / 3, owners.tolist(), depth)
    (tmp_path / "hand.run").write_text(RUN)
    (tmp_path / "hand.qrels").write_text(QRELS)
    for name in ("i2t", "t2i", "hand"):
        run, qrels = tmp_path / f"{name}.run", tmp_path / f"{name}.qrels"
        theirs = ir_measures.calc_aggregate(
            map(ir_measures.parse_measure, names),
            list(ir_measures.read_trec_qrels(str(qrels))),
            list(ir_measures.read_trec_run(str(run))),
        )
        ours = run_metrics(read_run(run), read_qrels(qrels))
        expected = {names[str(measure)]: 100 * value for measure, value in theirs.items()}
        assert ours == pytest.approx(expected, abs=1e-9)
