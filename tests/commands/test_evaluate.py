"""``ascl evaluate``: the audit comes first, and what leaks says so."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("yaml", reason="extra `recipes`")
pytest.importorskip("datasets", reason="extra `recipes`")
from ascl_plugin.commands.evaluate import OF_FILES
from ascl_plugin.commands.main import main
from ascl_plugin.data import scenes
from ascl_plugin.data.contests import LAYOUTS
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.model import RetrievalModel

pytestmark = pytest.mark.filterwarnings('ignore:protocol "paired" leaks')


def saved(folder, fusion, image_encoder="grid"):
    """A small model, not trained, as the run of a recipe leaves it."""
    torch.manual_seed(0)
    model = RetrievalModel(
        image_encoder={"name": image_encoder, "width": 8},
        text_encoder={"name": "transformer", "width": 8, "vocabulary": ["a", "red", "small"]},
        fusion=fusion,
        dim=8,
    )
    model.save_pretrained(folder / "best")
    (folder / "config.yaml").write_text("scenes_test: 6\nrerank_k: 3\n")
    return str(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), {"name": "cross_modal", "num_heads": 4})


def test_a_passed_audit_is_a_line_and_an_entry(run, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    assert main(["evaluate", run, "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "audit passed: 6 images and 6 texts, shuffled and alone; largest difference" in out
    assert out.index("audit passed") < out.index("| initial")
    written = json.loads(output.read_text())
    assert written["audit"].keys() == {"images", "texts", "largest_difference"}
    assert 0 <= written["audit"]["largest_difference"] < 1e-5
    assert "paired" not in out and not any(row["leaks"] for row in written["rows"])


def test_paired_stands_beside_the_honest_row(run, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    argv = ["evaluate", run, "--protocol", "paired", "--ci", "--output", str(output)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    for row in ("| initial ", "| reranked ", "| paired (leaks) "):
        assert out.count(row) == 3  # recalls, nDCG@10 and MRR, intervals
    written = json.loads(output.read_text())
    assert written["protocol"] == "paired"
    initial, _, paired = written["rows"]
    assert paired["metrics"] != initial["metrics"] and not initial["leaks"]
    assert "leaks: each text attends to its own image" in paired["leaks"]


def test_run_files_out_and_in(run, tmp_path, capsys):
    """Six scenes and 30 captions fit into the files whole: their metrics are those of the table."""
    name, output = tmp_path / "scores", tmp_path / "metrics.json"
    words = ["evaluate", run, "--no-rerank", "--output", str(output), "--run_file", str(name)]
    assert main(words) == 0
    (initial,) = json.loads(output.read_text())["rows"]
    for way in ("i2t", "t2i"):
        words = ["evaluate", f"{name}.{way}.run", "--qrels", f"{name}.{way}.qrels"]
        assert main([*words, "--output", str(output)]) == 0
        assert "| queries |" in capsys.readouterr().out
        found = json.loads(output.read_text())
        for metric in ("r1", "r5", "r10", "ndcg10", "mrr"):
            assert found[metric] == pytest.approx(initial["metrics"][f"{way}_{metric}"])
    assert main(["evaluate", run, "--qrels", words[3]]) == 2
    assert "--qrels goes with a run file in the place of the model" in capsys.readouterr().err


def test_an_unknown_split_prints_no_table(run, capsys):
    assert main(["evaluate", run, "--split", "tset"]) == 2
    captured = capsys.readouterr()
    assert "|" not in captured.out
    assert "no split 'tset'; they have train, val, test" in captured.err


@pytest.mark.parametrize("suite", ["variants", "balanced", "half_truths"])
def test_suites_of_a_split(run, suite, tmp_path, capsys):
    """Six scenes, 20 texts of "added" at least: without the image half the pairs, no group."""
    output = tmp_path / "suite.json"
    assert main(["evaluate", run, "--suite", suite, "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert f"{suite} of test, 6 images" in out and "| blind" in out
    written = json.loads(output.read_text())
    assert (written["suite"], written["split"]) == (suite, "test")
    if suite != "balanced":
        assert {"add", "add, shorter"} <= written["contests"].keys()
        one = written["contests"]["add"]
        assert one["texts"] == 6 and 0 <= one["blind"] <= 100 and "| difference" in out
        assert ("ordered" in one) == (suite == "half_truths")  # the full truth, the text, the lie
    if suite != "variants":
        one = written["balanced"]["added"]
        assert (one["blind"], one["blind_groups"]) == (50, 0) and one["count"] % 2 == 0
        assert len(written["balanced"]) == (1 if suite == "half_truths" else 3)


def test_suites_of_files(run, tmp_path, capsys):
    assert tuple(LAYOUTS) == OF_FILES
    for number, row in enumerate(scenes.make("test", 2)):
        (tmp_path / f"{number}.png").write_bytes(row["image"]["bytes"])
    entry = {"caption": "a red car", "negative_caption": "a small car"}
    entries = [{"filename": f"{number}.png", **entry} for number in range(2)]
    (tmp_path / "swap_att.json").write_text(json.dumps(entries))
    words = ["evaluate", run, "--suite", "sugarcrepe"]
    assert main([*words, "--path", str(tmp_path), "--image_root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| swap_att" in out and "| balanced |" in out
    pair = {"image_0": "0", "image_1": "1", "caption_0": "a red car", "caption_1": "a small car"}
    (tmp_path / "examples.jsonl").write_text(json.dumps(pair))
    words[-1] = "winoground"
    assert main([*words, "--path", str(tmp_path / "examples.jsonl")]) == 0
    assert "| examples" in capsys.readouterr().out
    assert main(words) == 2 and "--suite winoground needs --path" in capsys.readouterr().err
    words[-1] = "variants"
    assert main([*words, "--path", str(tmp_path)]) == 2
    assert "--suite variants takes no --path" in capsys.readouterr().err
    assert main(["evaluate", run, "--path", str(tmp_path)]) == 2


@pytest.mark.parametrize("command", ["evaluate", "demo"])
def test_code_is_imported_on_request_only(command, tmp_path, capsys, monkeypatch):
    """Demo opens the same way; it is stopped before it serves."""
    (tmp_path / "somebodys_grid.py").write_text(
        "from ascl_plugin.retrieval.encoders import GridEncoder as Grid\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = saved(tmp_path, {"name": "cross_modal", "num_heads": 4}, "somebodys_grid:Grid")
    served = []
    if command == "demo":
        monkeypatch.setattr("ascl_plugin.demo.server.serve", lambda *given: served.append(given))
        words = ["demo", path, "--port", "0"]
    else:
        words = ["evaluate", path, "--no-rerank"]
    assert main(words) == 2 and not served
    assert "'somebodys_grid:Grid' is code to import" in capsys.readouterr().err
    assert main([*words, "--allow_import"]) == 0
    assert len(served) == (command == "demo")


def test_a_configuration_without_options_is_refused(tmp_path, capsys):
    path = saved(tmp_path, {"name": "pooled"})
    (tmp_path / "config.yaml").write_text("[1, 2]")
    assert main(["evaluate", path]) == 2
    assert "config.yaml: expected options, got [1, 2]" in capsys.readouterr().err


@pytest.mark.parametrize("leak", ["scorer", "matrix"])
def test_a_failed_audit_prints_no_number(run, leak, tmp_path, capsys, monkeypatch):
    """A scorer that looks for the pairing by position; a matrix of paired scores."""
    if leak == "scorer":
        whole = RetrievalModel.from_pretrained

        def leaking(path, **options):
            model = whole(path, **options)
            honest = model.fusion.forward
            model.fusion.forward = lambda v, w: honest(v, w) + torch.eye(len(v), len(w))
            return model

        monkeypatch.setattr(RetrievalModel, "from_pretrained", leaking)
    else:
        own = torch.arange(30) // 5
        monkeypatch.setattr(Evaluator, "score", lambda s, v, w: s.paired_score(v, w, own))
    output = tmp_path / "metrics.json"
    assert main(["evaluate", run, "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert "|" not in captured.out and not output.exists()
    message = "error: the audit of the scores failed, no number is printed: "
    assert message in captured.err
    assert ("shuffling images" in captured.err) == (leak == "scorer")
    assert ("in the matrix" in captured.err) == (leak == "matrix")


def test_paired_of_another_head_is_refused(tmp_path, capsys):
    other = saved(tmp_path, {"name": "pooled"})
    assert main(["evaluate", other, "--protocol", "paired"]) == 2
    captured = capsys.readouterr()
    assert (
        "|" not in captured.out and "the fusion of this model is PooledSimilarity" in captured.err
    )


def test_stored_label_groups_are_refused(tmp_path, capsys):
    """Unless the row with them is asked for, beside the honest one."""
    path = saved(tmp_path, {"name": "pooled"})
    config = tmp_path / "config.yaml"
    config.write_text(
        config.read_text() + f"rerank_caption_groups: {[t // 5 for t in range(30)]}\n"
    )
    assert main(["evaluate", path]) == 2
    captured = capsys.readouterr()
    assert "|" not in captured.out
    assert "caption_groups is among the options of re-ranking" in captured.err
    assert "add --oracle" in captured.err
    with pytest.warns(UserWarning, match="caption_groups"):
        assert main(["evaluate", path, "--oracle"]) == 0
    assert "| oracle: label groups" in capsys.readouterr().out
