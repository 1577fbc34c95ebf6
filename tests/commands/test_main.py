"""The command `ascl`, run in this process on files of every format."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import ascl_plugin
from ascl_plugin.commands.main import main
from ascl_plugin.reranking import rerank
from ascl_plugin.scoring.matrix_file import write_matrix

# text 0 prefers image 1, so image 0 gives it up: see the table test for the recalls
SIM = np.array([[0.8, 0.7, 0.6], [0.9, 0.2, 0.3], [0.1, 0.5, 0.95]], dtype=np.float32)


def write(folder, sim, suffix, key="sim"):
    path = folder / f"sims{suffix}"
    if suffix == ".npy":
        np.save(path, sim)
    elif suffix == ".npz":
        np.savez(path, **{key: sim})
    else:
        safetensors = pytest.importorskip("safetensors.torch", reason="extra `recipes`")
        safetensors.save_file({key: torch.as_tensor(sim)}, path)
    return path


def read(folder, stem, suffix):
    if suffix == ".npy":
        return {name: np.load(folder / f"{stem}.{name}.npy") for name in ("i2t", "t2i")}
    if suffix == ".npz":
        with np.load(folder / f"{stem}.npz") as arrays:
            return dict(arrays)
    from safetensors.torch import load_file

    return {name: value.numpy() for name, value in load_file(folder / f"{stem}{suffix}").items()}


def failing(capsys, *argv):
    """The one line that a user's error prints."""
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("ascl: error: ")
    return captured.err


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("key", ["sim", "scores"])
def test_each_format_in_and_out(tmp_path, suffix, key):
    path = write(tmp_path, SIM, suffix, key)
    before = path.read_bytes()
    assert main(["rerank", str(path)]) == 0
    found, wanted = read(tmp_path, "sims.reranked", suffix), rerank(SIM)
    assert sorted(found) == ["i2t", "t2i"]
    np.testing.assert_array_equal(found["i2t"], wanted.i2t)
    np.testing.assert_array_equal(found["t2i"], wanted.t2i)
    assert found["i2t"].dtype == np.float32
    assert path.read_bytes() == before
    left = {p.name for p in tmp_path.iterdir()} - {path.name}
    npy = {"sims.reranked.i2t.npy", "sims.reranked.t2i.npy"}
    assert left == (npy if suffix == ".npy" else {f"sims.reranked{suffix}"})


def test_output_decides_the_format_and_options_arrive(tmp_path):
    draw = np.random.default_rng(0)
    sim = draw.random((6, 12), dtype=np.float32)
    embeddings = draw.standard_normal((12, 3)).astype(np.float32)
    path = write(tmp_path, np.asfortranarray(sim), ".npy")
    np.save(tmp_path / "emb.npy", embeddings)
    options = ["--k", "5", "--reverse_k", "3", "--text_neighbors", "2"]
    options += ["--text_embeddings", str(tmp_path / "emb.npy")]
    assert main(["rerank", str(path), "--output", str(tmp_path / "out.npz"), *options]) == 0
    given = {"k": 5, "reverse_k": 3, "text_neighbors": 2, "text_embeddings": embeddings}
    np.testing.assert_array_equal(read(tmp_path, "out", ".npz")["t2i"], rerank(sim, **given).t2i)
    for name in given:  # each makes a difference
        fewer = rerank(sim, **{key: value for key, value in given.items() if key != name})
        assert not np.array_equal(fewer.t2i, rerank(sim, **given).t2i), name


def test_bfloat16_passes_through_safetensors_but_not_numpy(tmp_path, capsys):
    safetensors = pytest.importorskip("safetensors.torch", reason="extra `recipes`")
    path = write(tmp_path, torch.from_numpy(SIM).bfloat16(), ".safetensors")
    assert main(["rerank", str(path)]) == 0
    found = safetensors.load_file(tmp_path / "sims.reranked.safetensors")
    assert found["i2t"].dtype == torch.bfloat16
    capsys.readouterr()
    message = failing(capsys, "rerank", path, "--output", tmp_path / "out.npy")
    assert "no bfloat16" in message and "out.npy" in message


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_table_before_and_after(tmp_path, capsys, suffix):
    """Captions 0, 1, 2 belong to images 1, 0, 2.

    Before: image 0 ranks text 0 (.8) over its own text 1 (.7), the two others have theirs first:
    I2T R@1 66.7. Every text has its image first: T2I 100. After: image 0 has text 1 first
    (worked out in tests/rerank), I2T R@1 100, Rsum 600. Transposed, it is T2I that gains.
    """
    pairing = tmp_path / f"owners{suffix}"
    if suffix == ".npy":
        np.save(pairing, np.array([1, 0, 2]))
    else:
        pairing.write_text("1\n0\n2\n")
    for sim, column in ((SIM, 1), (SIM.T, 4)):
        path = write(tmp_path, sim, ".npy")
        assert main(["rerank", str(path), "--overwrite", "--caption_to_image", str(pairing)]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert cells[3] == ["after", *["100.0"] * 6, "600.0"]
        before = ["before", *["100.0"] * 6, "566.7"]
        before[column] = "66.7"
        assert cells[2] == before


def test_captions_per_image(tmp_path, capsys):
    """Captions 0, 1 belong to image 0, captions 2, 3 to image 1: all right but caption 3."""
    path = write(tmp_path, np.array([[0.9, 0.8, 0.1, 0.3], [0.3, 0.4, 0.7, 0.2]]), ".npy")
    assert main(["rerank", str(path), "--captions_per_image", "2", "--method", "none"]) == 0
    before = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| before"))
    assert before.split()[3:11:2] == ["100.0", "100.0", "100.0", "75.0"]


def test_errors_name_the_file_and_the_place(tmp_path, capsys):
    broken = SIM.copy()
    broken[1, 2] = np.nan
    path = write(tmp_path, broken, ".npy")
    assert f"{path} holds nan at row 1, column 2" in failing(capsys, "rerank", path)
    path = write(tmp_path, np.ones(3), ".npy")
    assert f"{path} must be (images, texts), got shape (3,)" in failing(capsys, "rerank", path)
    path = write(tmp_path, np.ones((2, 2), dtype=int), ".npy")
    assert f"{path} must hold floats" in failing(capsys, "rerank", path)
    path = write(tmp_path, SIM, ".npy")
    assert "k must be an integer of at least 1" in failing(capsys, "rerank", path, "--k", 0)
    np.save(tmp_path / "emb.npy", np.ones((2, 4)))
    options = ["--text_embeddings", tmp_path / "emb.npy"]
    assert "sim has 3 texts" in failing(capsys, "rerank", path, *options)
    message = failing(capsys, "rerank", path, "--captions_per_image", 5)
    assert "3 images and 3 texts" in message and str(path) in message
    assert {p.name for p in tmp_path.iterdir()} == {"sims.npy", "emb.npy"}


def test_files_that_cannot_be_read(tmp_path, capsys):
    missing = tmp_path / "missing.npy"
    assert f"{missing}: no such file" in failing(capsys, "rerank", missing)
    other = tmp_path / "sims.pt"
    other.write_bytes(b"")
    message = failing(capsys, "rerank", other)
    assert "unknown format '.pt'; use .npy, .npz" in message and "tensor.numpy()" in message
    assert "np.loadtxt(" in failing(capsys, "rerank", tmp_path / "sims.csv")
    for suffix in (".npy", ".npz", ".safetensors"):
        garbage = tmp_path / f"garbage{suffix}"
        for content in (b"", b"no matrix", b"x" * 500):
            garbage.write_bytes(content)
            assert f"{garbage}: " in failing(capsys, "rerank", garbage)
    several = tmp_path / "several.npz"
    np.savez(several, i2t=SIM, t2i=SIM)
    assert "named 'sim', found i2t, t2i" in failing(capsys, "rerank", several)


def test_outputs_that_cannot_be_written(tmp_path, capsys):
    path = write(tmp_path, SIM, ".npy")
    nowhere = tmp_path / "nowhere" / "out.npy"
    assert "no such folder" in failing(capsys, "rerank", path, "--output", nowhere)
    assert "unknown format '.csv'" in failing(capsys, "rerank", path, "--output", "out.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "0\nx\n2\n", "line 2 is 'x', expected an integer"),
        ("a.txt", "0\n1\n", "sim has 3 texts"),
        ("a.txt", "0\n1\n3\n", "caption 2 points at image 3"),
        ("a.txt", "0\n0\n2\n", "image 1 has no caption"),
        ("a.txt", "", "sim has 3 texts"),
        ("a.txt", "0\n\n1\n2\n", "line 2 is '', expected an integer of 64 bits; remove the blank"),
    ],
)
def test_pairings_that_do_not_fit(tmp_path, capsys, name, content, message):
    path = write(tmp_path, SIM, ".npy")
    (tmp_path / name).write_text(content)
    options = ["--caption_to_image", tmp_path / name]
    assert message in failing(capsys, "rerank", path, *options)


def test_blank_lines_end_a_map(tmp_path):
    path = write(tmp_path, SIM, ".npy")
    (tmp_path / "map.txt").write_text("0\n1\n2\n\n \n")
    assert main(["rerank", str(path), "--caption_to_image", str(tmp_path / "map.txt")]) == 0


def test_the_map_beside_the_scores_is_found(tmp_path, capsys):
    path = tmp_path / "scores_val.npy"
    write_matrix(path, torch.from_numpy(SIM), np.array([1, 0, 2]))
    given = ["--captions_per_image", "1"]  # counts, and is wrong: text 1 is not image 1's
    for words, t2i in (([], "100.0"), (given, "33.3")):
        assert main(["rerank", str(path), "--method", "none", "--overwrite", *words]) == 0
        before = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| before"))
        assert before.split()[3:10:6] == ["66.7", t2i]


def test_nothing_is_overwritten_unasked(tmp_path, capsys):
    path = write(tmp_path, SIM, ".npy")
    earlier = tmp_path / "sims.reranked.t2i.npy"
    earlier.write_text("mine")
    message = failing(capsys, "rerank", path)
    assert f"{earlier} is there already; --overwrite replaces it" in message
    assert earlier.read_text() == "mine" and not (tmp_path / "sims.reranked.i2t.npy").exists()
    assert main(["rerank", str(path), "--overwrite"]) == 0
    np.testing.assert_array_equal(np.load(earlier), rerank(SIM).t2i)
    table = tmp_path / "table.md"
    table.write_text("mine")
    capsys.readouterr()
    argv = ["rerank", path, "--method", "all", "--captions_per_image", 1, "--output", table]
    assert "table.md is there already" in failing(capsys, *argv)


def test_a_transposed_matrix_is_told(tmp_path, capsys):
    path = write(tmp_path, np.ones((6, 3)), ".npy")
    message = failing(capsys, "rerank", path, "--captions_per_image", 2)
    assert "has 6 images and 3 texts; it is (texts, images): write its transpose" in message
    (tmp_path / "map.txt").write_text("0\n" * 6)
    message = failing(capsys, "rerank", path, "--caption_to_image", tmp_path / "map.txt")
    assert "pass its transpose" in message


def test_dashes_and_underscores_are_the_same(tmp_path, capsys):
    """In options of every command; values keep theirs."""
    path = write(tmp_path, SIM, ".npy")
    for words in (["--captions-per-image", "1"], ["--captions-per_image=1"]):
        argv = ["rerank", str(path), "--output", str(tmp_path / "a-b_c.npz"), *words]
        assert main([*argv, "--overwrite"]) == 0
    assert (tmp_path / "a-b_c.npz").exists()
    capsys.readouterr()
    for words in (
        ["evaluate", "gone", "--data-root", "x", "--no-average-views", "--batch-size=2"],
        ["demo", "gone", "--image-root", "a"],
        ["experiment", "all", "--output-dir", str(tmp_path / "gone"), "--config", "gone.yaml"],
    ):
        assert "unrecognized" not in failing(capsys, *words)


def test_missing_safetensors_names_the_extra(tmp_path, capsys, monkeypatch):
    path = tmp_path / "sims.safetensors"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert 'pip install "ascl-plugin[recipes]"' in failing(capsys, "rerank", path)


def test_components(capsys):
    assert main(["components"]) == 0
    out = capsys.readouterr().out
    for kind in ascl_plugin.registry.kinds():
        assert f"{kind}: {', '.join(ascl_plugin.available(kind))}\n" in out


def test_version(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"ascl {ascl_plugin.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "ascl: error: the following arguments are required: COMMAND; see ascl --help"),
        (["unknown"], "ascl: error: argument COMMAND: invalid choice: 'unknown'"),
        (["rerank", "a.npy", "--methd=csls"],
         "ascl rerank: error: no option --methd (did you mean '--method'?); see ascl rerank --"),
        (["demo", "--zzzz"], "ascl demo: error: no option --zzzz; see ascl demo --help"),
    ],
)  # fmt: skip
def test_wrong_words_exit_with_2_and_one_line(argv, told, capsys):
    with pytest.raises(SystemExit) as done:
        main(argv)
    assert done.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(told) and err.count("\n") == 1


def test_a_demo_without_a_model_says_how_to_get_one(capsys):
    assert "`ascl train` makes runs/train-1" in failing(capsys, "demo")
    assert "`ascl train` makes one" in failing(capsys, "demo", "gone")


def test_rerank_of_nothing(capsys):
    assert "give SIMS, a file of scores, or --fit BANK" in failing(capsys, "rerank")


def test_an_unknown_name_reads_as_it_was_written(monkeypatch, capsys):
    """str() of a KeyError puts quotes around its message; the user must not see them."""

    def evaluate_command(args):
        raise KeyError("no split 'dev'\nin this data")

    monkeypatch.setattr("ascl_plugin.commands.evaluate.evaluate_command", evaluate_command)
    assert failing(capsys, "evaluate", "x") == "ascl: error: no split 'dev' in this data\n"
