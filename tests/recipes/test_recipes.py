"""Recipes as a user runs them: on drawn scenes, on files, on two processes, on bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
import forked
import yaml
from PIL import Image

from ascl_plugin.commands.main import main as command
from ascl_plugin.data import scenes
from ascl_plugin.data.readers import caption_to_image
from ascl_plugin.metrics.result_row import SplitResults
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.recipe import default_config

pytestmark = pytest.mark.recipe

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SPLITS = ("val", "test")
SMALL = [
    "--dim=16",
    "--image_encoder.width=16",
    "--text_encoder.width=16",
    "--cpu=True",
    "--num_threads=1",
    "--log_with=none",
]
ON_SCENES = [
    *SMALL, "--scenes_train=32", "--scenes_val=12", "--scenes_test=12", "--epochs=2",
    "--batch_size=8", "--captions_per_epoch=1", "--log_every=1", "--eval_every=1",
    "--align_epochs=1", "--negatives=gaussian", "--save_scores",
]  # fmt: skip


def run(name, folder, *flags, status=0):
    """A recipe as a process of its own; what it printed, errors too, if it ended with a status."""
    folder.mkdir(parents=True, exist_ok=True)
    code, printed = forked.run(RECIPES / f"{name}.py", flags, folder / "output.txt")
    assert code == status, printed
    return printed


@pytest.fixture(scope="module")
def on_scenes(tmp_path_factory):
    """(folder, output) of `python recipes/ascl_coco.py` on a few drawn scenes."""
    folder = tmp_path_factory.mktemp("run") / "of" / "scenes"
    return folder, run("ascl_coco", folder.parent, *ON_SCENES, f"--output_dir={folder}")


def test_a_run_leaves_all_that_it_promises(on_scenes):
    folder, output = on_scenes
    assert {path.name for path in folder.iterdir()} == {
        "best", "checkpoint-0000004", "checkpoint-0000008", "config.yaml", "log.jsonl",
        "metrics.json", ".run.lock",
        *(f"scores_{split}{kind}.npy" for split in SPLITS for kind in ("", ".caption_to_image")),
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["seed"] == 0 and "--scenes_train=32" in metrics["command"]
    for split in ("val", "test"):
        assert set(metrics[split]) == {"protocol", "rows", "asymmetry"}
        results = SplitResults.from_dict(metrics[split])
        assert [row.name for row in results.rows] == ["initial", "reranked"]
        assert 0 <= results["initial"].metrics["rsum"] <= 600
        assert f"{split}: 12 images, seed 0, single model" in output
    assert metrics["val"]["rows"][0]["metrics"]["rsum"] == metrics["best"]["rsum"]
    card = (folder / "best" / "README.md").read_text()
    assert (
        "images grid, texts transformer, fusion cross_modal" in card and "train 32 images" in card
    )
    assert "| initial" in output and "| reranked" in output and "richer > negative" in output
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["dim"] == 16 and config["schedule"] == "cosine"  # a flag, and scenes.yaml's
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 8 + 2 and lines[-1]["val_rsum"] >= 0 and lines[-1]["step"] == 8


def test_scores_are_re_ranked_without_a_word_on_captions(on_scenes, capsys):
    """`ascl rerank` finds the map that the recipe wrote; before it, recall is that of the run."""
    folder, _ = on_scenes
    assert command(["rerank", str(folder / "scores_val.npy"), "--method", "all"]) == 0
    row = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("| none"))
    written = json.loads((folder / "metrics.json").read_text())["val"]
    rsum = SplitResults.from_dict(written)["initial"].metrics["rsum"]
    assert row.split("|")[8].strip() == f"{rsum:.1f}"


def test_the_best_model_loads_and_scores_what_the_run_says(on_scenes):
    folder, _ = on_scenes
    model = RetrievalModel.from_pretrained(str(folder / "best"))
    rows = scenes.make("val", 12)
    evaluator = Evaluator(model, ImageInputs(model.image_encoder), TextInputs(model.text_encoder))
    with torch.no_grad():
        metrics = evaluator.evaluate(rows)
    written = SplitResults.from_dict(json.loads((folder / "metrics.json").read_text())["val"])
    assert metrics["initial"].metrics == pytest.approx(written["initial"].metrics)
    assert metrics.asymmetry == pytest.approx(written.asymmetry)
    assert evaluator.score(rows, caption_to_image(rows)[0]).shape == (12, 60)


def test_drawn_scenes_and_given_data_have_defaults_of_their_own():
    chosen = default_config
    assert chosen(["--seed=1", "--scenes_train", "9"]).name == "scenes.yaml"
    for flags in (["--data_root", "x"], ["--seed=1", "--train_stream=x.tar"]):
        assert chosen(flags).name == "small.yaml"


def test_the_flickr_recipe_is_the_same_under_its_own_name(tmp_path):
    output = run("ascl_flickr30k", tmp_path, "--help")
    assert "--data_root none" in output and len(output.splitlines()) < 80


@pytest.fixture
def main(run_recipe, tmp_path):
    """The recipe in this process: (exit status, last line of stderr)."""

    def run(*argv):
        return run_recipe(
            *SMALL, "--epochs=1", "--align_epochs=0", f"--output_dir={run.out}", *argv
        )

    run.out = tmp_path / "run"
    return run


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Writes a data root in Karpathy's layout: per split, the number of captions of each image."""

    def write(**splits):
        folder, entries = tmp_path / "root", []
        for split, counts in splits.items():
            for number, count in enumerate(counts):
                name = f"{split}{number}.png"
                picture(folder / "images" / name, len(entries))
                captions = [f"picture {number} of {split} said {k}" for k in range(count)]
                sentences = [{"raw": caption} for caption in captions]
                entries.append({"filename": name, "split": split, "sentences": sentences})
        (folder / "dataset_coco.json").write_text(json.dumps({"images": entries}))
        return folder

    return write


def test_captions_of_different_counts_per_image(main, root):
    """1 to 4 captions an image; an epoch shows all captions: passes of 6, 4, 3 and 2 images."""
    folder = root(train=[1, 2, 4, 1, 3, 4], val=[1, 3, 2], test=[2, 1])
    assert main(f"--data_root={folder}", "--batch_size=2", "--captions_per_epoch=0")[0] == 0
    metrics = json.loads((main.out / "metrics.json").read_text())
    assert metrics["best"]["step"] == 3 + 2 + 1 + 1
    assert set(metrics["val"]) == {"protocol", "rows"}  # nobody knows what photographs hold


def test_a_set_smaller_than_a_batch_is_one_batch(main, root):
    folder = root(train=[2, 2, 2], val=[1, 1])
    assert main(f"--data_root={folder}", "--batch_size=32")[0] == 0
    metrics = json.loads((main.out / "metrics.json").read_text())
    assert metrics["best"]["step"] == 1 and "test" not in metrics


@pytest.mark.parametrize(
    "ablation",
    [
        ["--align_epochs=1"],
        ["--positives=none", "--negatives=none"],
        ["--fusion=pooled"],
        ["--loss=triplet"],
        [
            "--fusion.attention=parameter-free",
            "--gradient_accumulation_steps=2",
            "--loss.form=ratio",
        ],
    ],
    ids=" ".join,
)
def test_the_ablations_run(main, root, ablation):
    folder = root(train=[2] * 6, val=[1, 1])
    assert main(f"--data_root={folder}", "--batch_size=2", *ablation)[0] == 0
    assert (main.out / "metrics.json").exists()


def test_coco(main):
    folder = SHARED / "coco_subset"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    code, _ = main(f"--data_root={folder}", "--captions_per_epoch=1", "--max_steps=1",
                   "--batch_size=16")  # fmt: skip
    assert code == 0
    metrics = json.loads((main.out / "metrics.json").read_text())
    assert metrics["best"]["step"] == 1 and 0 < metrics["test"]["rows"][0]["metrics"]["rsum"] < 600


def test_an_image_that_does_not_decode_is_named_and_ends_the_run(main, root, tmp_path):
    """Data workers never see SIGTERM: left over, they would keep the process at its end for good.

    With a worker, that is in a process of its own.
    """
    folder = root(train=[1] * 4, val=[1, 1])
    bad = folder / "images" / "train2.png"
    bad.write_bytes(bad.read_bytes()[:60])
    code, told = main(f"--data_root={folder}", "--batch_size=2")
    assert code == 2 and told.startswith(f"error: image train2.png ({bad}) does not decode")
    flags = [*SMALL, "--epochs=1", "--align_epochs=0", f"--data_root={folder}", "--batch_size=2"]
    out = f"--output_dir={tmp_path / 'worker'}"
    output = run("ascl_coco", tmp_path, *flags, "--num_workers=1", out, status=2)
    assert "Traceback" not in output and output.strip().splitlines()[-1] == told


def test_other_bad_input_is_one_line_that_names_it(main, root):
    folder = root(train=[1] * 4, val=[1, 1])
    annotations = folder / "dataset_coco.json"
    whole = json.loads(annotations.read_text())

    def told(content):
        annotations.write_text(json.dumps(content))
        code, line = main(f"--data_root={folder}", "--batch_size=2")
        assert code == 2 and line.startswith("error: ")
        return line

    line = told({"pictures": whole["images"]})
    assert str(annotations) in line and "'images'" in line
    whole["images"][1]["sentences"][0]["raw"] = "  "
    line = told(whole)
    assert str(annotations) in line and "train1.png" in line and "empty" in line
    whole["images"][1]["sentences"][0]["raw"] = "fine"
    (folder / "images" / "train3.png").unlink()
    line = told(whole)
    assert "train3.png" in line
    line = told(
        {"images": [e for e in whole["images"] if e["filename"] in ("train0.png", "val0.png")]}
    )
    assert "1 training image(s)" in line and "at least 2 pairs" in line


def test_options_that_do_not_fit_the_data_or_the_model_are_one_line(main, root):
    folder = root(train=[1] * 4, val=[1, 1])
    for flags, message in (
        (["--data_root=/no/such/folder"], "/no/such/folder"),
        (["--image_encoder.gird=3"], "image_encoder 'grid' has no option 'gird'"),
        (["--fusion.num_heads=3"], "dim 16 is not divisible by num_heads 3"),
        (["--image_encoder=gird"], "did you mean 'grid'"),
        (["--loss.temperature=0"], "temperature must be in (0, inf)"),
        (["--batch_size=2", "--gradient_accumulation_steps=9"], "fewer than gradient_accumulation"),
    ):
        code, line = main(f"--data_root={folder}", *flags)
        assert code == 2 and line.startswith("error: ") and message in line, (flags, line)
