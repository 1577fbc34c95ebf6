"""`ascl rerank`: every method, the comparison, choosing options. Files: test_main.py."""

from __future__ import annotations

import numpy as np
import pytest

from ascl_plugin import registry
from ascl_plugin.commands.main import main
from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.registry import available
from ascl_plugin.reranking import rerank, tune_rerank

OWNERS = np.arange(12) // 2


@pytest.fixture
def sim():
    """(6, 12): related scores with hubs, so that every method changes something."""
    rng = np.random.default_rng(0)
    return (
        0.4 * np.eye(6)[:, OWNERS] + 0.3 * rng.normal(size=(6, 12)) + 0.2 * rng.normal(size=12)
    ).astype(np.float32)


@pytest.fixture
def path(sim, tmp_path):
    np.save(tmp_path / "sims.npy", sim)
    return tmp_path / "sims.npy"


def written(path):
    return [np.load(path.with_name(f"sims.reranked.{name}.npy")) for name in ("i2t", "t2i")]


def cells(text):
    """A Markdown table as dicts."""
    lines = [x for x in text.splitlines() if x.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def failing(capsys, *argv):
    assert main(["rerank", *(str(word) for word in argv)]) == 2
    return capsys.readouterr().err


GIVEN = {
    "bidirectional": {"k": 4, "reverse_k": 3, "text_neighbors": 2, "mix": 0.5},
    "csls": {"neighbors": 2},
    "dbnorm": {"temperature": 0.3, "gallery_temperature": 0.01},
    "dbnorm_dynamic": {"temperature": 0.3, "activation_k": 2},
    "dn": {"alpha": 2.0},
    "dual_softmax": {"temperature": 0.3},
    "inverted_softmax": {"temperature": 0.3},
    "k_reciprocal": {"k1": 3, "k2": 2, "initial_weight": 0.1},
    "local_scaling": {"neighbors": 2, "scaling": "nicdm", "self_score": 1.5},
    "mutual_proximity": {"distribution": "empirical"},
    "nnn": {"alpha": 0.9, "neighbors": 2},
    "none": {},
    "qb_norm": {"temperature": 0.3, "activation_k": 3},
    "sinkhorn": {"temperature": 0.3, "iterations": 2},
}


@pytest.mark.parametrize("method", available("rerank"))
def test_each_method_and_its_options(path, sim, method):
    options = [word for n, v in GIVEN[method].items() for word in (f"--{n}", str(v))]
    assert main(["rerank", str(path), "--method", method, *options]) == 0
    wanted = rerank(sim, method=method, **GIVEN[method])
    for found, matrix in zip(written(path), wanted, strict=True):
        np.testing.assert_array_equal(found, matrix)
    assert method == "none" or not np.array_equal(wanted.t2i, rerank(sim, method=method).t2i)


def test_a_registered_method(path, sim, monkeypatch, capsys):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register("rerank", "mine")(lambda scores, *, alpha=1.0: (scores * alpha, -scores))
    assert main(["rerank", str(path), "--method", "mine", "--alpha", ".5"]) == 0
    np.testing.assert_array_equal(written(path)[0], sim / 2)
    assert main(["rerank", str(path), "--method", "all", "--captions_per_image", "2"]) == 0
    assert "mine" in {row["method"] for row in cells(capsys.readouterr().out)}


def test_banks_and_embeddings_come_from_files(path, sim, tmp_path):
    rng = np.random.default_rng(1)
    arrays = {
        "bank_i2t": rng.normal(size=(5, 12)),
        "bank_t2i": rng.normal(size=(6, 7)),
        "image_embeddings": rng.normal(size=(6, 3)),
        "text_embeddings": rng.normal(size=(12, 3)),
    }
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    for method, names in (
        ("nnn", ("bank_i2t", "bank_t2i")),
        ("k_reciprocal", ("image_embeddings", "text_embeddings")),
    ):
        files = [word for n in names for word in (f"--{n}", str(tmp_path / f"{n}.npy"))]
        assert main(["rerank", str(path), "--overwrite", "--method", method, *files]) == 0
        wanted = rerank(sim, method=method, **{name: arrays[name] for name in names})
        for found, matrix in zip(written(path), wanted, strict=True):
            np.testing.assert_array_equal(found, matrix)


def test_options_and_defaults_are_those_of_the_methods(path, capsys):
    with pytest.raises(SystemExit):
        main(["rerank", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(csls: 10, local_scaling: 7, nnn: 16)" in shown
    assert "caption_groups" not in shown
    for method, option in (("csls", "--mix"), ("none", "--alpha"), ("nnn", "--text_neighbors")):
        message = failing(
            capsys, path, "--method", method, option, "3" if "text" in option else ".3"
        )
        assert f"method {method!r} has no option {option[2:]!r}" in message


def test_all_methods_in_a_table(path, sim, capsys, tmp_path):
    """An option goes to the methods that have it."""
    argv = ["rerank", str(path), "--method", "all", "--captions_per_image", "2", "--neighbors", "2"]
    argv += ["--k", "3", "--output", str(tmp_path / "table.md")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    rows = {row["method"]: row for row in cells(out)}
    assert sorted(rows) == available("rerank") and next(iter(rows)) == "none"
    options = {name: {"neighbors": 2} for name in ("csls", "local_scaling", "nnn")}
    options["bidirectional"] = {"k": 3}
    for method, row in rows.items():
        result = rerank(sim, method=method, **options.get(method, {}))
        metrics = retrieval_metrics(result.i2t, OWNERS, t2i=result.t2i)
        for title, name in (("I2T R@1", "i2t_r1"), ("T2I R@5", "t2i_r5"), ("Rsum", "rsum")):
            assert row[title] == f"{metrics[name]:.1f}"
        assert row["transductive"] == ("no" if method == "none" else "yes")
        assert float(row["seconds"]) >= 0
    assert out.startswith((tmp_path / "table.md").read_text())
    assert {p.name for p in tmp_path.iterdir()} == {"sims.npy", "table.md"}


def test_tune_prints_words_that_the_command_takes(path, sim, capsys, tmp_path):
    argv = ["rerank", str(path), "--tune", "--captions_per_image", "2", "--k", "3"]
    assert main([*argv, "--allow_uncertain"]) == 0
    out = capsys.readouterr().out
    tuned = tune_rerank(sim, OWNERS, k=3, allow_uncertain=True)
    assert tuned.options["k"] == 3  # it gains, so there is something to print
    after = cells(out)[1]
    assert after["Rsum"] == f"{tuned.metrics['rsum']:.1f}"
    assert [p.name for p in tmp_path.iterdir()] == ["sims.npy"]
    words = next(x for x in out.splitlines() if x.startswith("options: ")).split()[1:]
    assert main(["rerank", str(path), *words]) == 0
    for found, matrix in zip(written(path), rerank(sim, **tuned.options), strict=True):
        np.testing.assert_array_equal(found, matrix)
    gain = tuned.gain
    assert f"gain in Rsum: {gain.value:+.1f} (95 %: {gain.low:+.1f} to {gain.high:+.1f})" in out


def test_tune_refuses_what_chance_may_have_made(tmp_path, capsys):
    """Of three images one gains: see tests/reranking/test_tune.py."""
    sim = np.array([[0.8, 0.7, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]])
    np.save(tmp_path / "sims.npy", sim)
    (tmp_path / "map.txt").write_text("1\n0\n2\n")
    argv = ["rerank", str(tmp_path / "sims.npy"), "--tune", "--method", "csls"]
    assert main([*argv, "--caption_to_image", str(tmp_path / "map.txt")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("options: --method none\n") and "the interval contains zero" in out
    assert "--allow_uncertain would choose --method csls --neighbors" in out


def test_nothing_gains_prints_no_reranking(tmp_path, capsys):
    np.save(tmp_path / "sims.npy", np.eye(3))
    argv = ["rerank", str(tmp_path / "sims.npy"), "--tune", "--captions_per_image", "1"]
    assert main(argv) == 0
    assert "options: --method none\n" in capsys.readouterr().out


def test_what_does_not_go_together(path, capsys, tmp_path):
    for words in (["--tune"], ["--method", "all"]):
        assert f"{words[0]} " in (message := failing(capsys, path, *words))
        assert "needs --caption_to_image or --captions_per_image" in message
    pairing = ["--captions_per_image", "2"]
    message = failing(capsys, path, "--tune", "--method", "none", *pairing)
    assert "no default grid for method 'none'" in message
    assert "--tune writes nothing" in failing(capsys, path, "--tune", "--output", "a.npy", *pairing)
    message = failing(capsys, path, "--method", "all", "--output", "a.npy", *pairing)
    assert "a.npy: --method all writes a table" in message


def test_fit_saves_and_apply_corrects_other_queries(sim, path, tmp_path, capsys):
    from ascl_plugin import Reranker

    bank = np.random.default_rng(3).normal(size=(20, 12)).astype(np.float32)
    np.save(tmp_path / "bank.npy", bank)
    saved = str(tmp_path / "bias.safetensors")
    fit = ["rerank", "--fit", str(tmp_path / "bank.npy"), "--save", saved]
    assert main([*fit, "--method", "nnn", "--neighbors", "3"]) == 0
    assert "Reranker('nnn', alpha=0.75, neighbors=3): 20 bank" in capsys.readouterr().out
    assert main(["rerank", str(path), "--apply", saved]) == 0
    wanted = Reranker("nnn", neighbors=3).fit(bank).transform(sim)
    np.testing.assert_array_equal(np.load(path.with_name("sims.reranked.npy")), wanted)
    assert "is there already" in failing(capsys, path, "--apply", saved)
    assert "is there already" in failing(capsys, *fit[1:])
    assert main([*fit, "--overwrite"]) == 0
    assert Reranker.load(saved).method == "inverted_softmax"


def test_fit_and_apply_refuse_what_they_do_not_use(path, capsys):
    for argv, message in (
        ((), "give SIMS"),
        ((path, "--save", "x"), "--save goes with --fit"),
        (("--fit", path), "--fit BANK goes with --save"),
        ((path, "--fit", path, "--save", "x"), "--fit BANK goes with --save FILE alone"),
        (("--fit", path, "--save", "x", "--tune"), "take no --tune"),
        (("--fit", path, "--save", "x", "--method", "k_reciprocal"), "cannot be fitted"),
        (("--apply", path), "goes with SIMS"),
        ((path, "--apply", path, "--alpha", "1"), "method and options are in FILE"),
        ((path, "--apply", path), "no file of Reranker.save"),
    ):
        assert message in failing(capsys, *argv)
