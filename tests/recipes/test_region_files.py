"""Training and evaluation on region features from files, with no picture anywhere."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")
pytest.importorskip("h5py", reason="extra `regions`")

from ascl_plugin.commands.main import main as command
from ascl_plugin.data.readers import read
from ascl_plugin.retrieval.model import RetrievalModel

pytestmark = pytest.mark.recipe

FLAGS = [
    "--dim=16", "--image_encoder.width=16", "--text_encoder.width=16", "--cpu=True",
    "--num_threads=1", "--log_with=none",
    "--epochs=1", "--align_epochs=0", "--eval_every=1", "--batch_size=4",
]  # fmt: skip


samples = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "adapters" / "region_samples.py"))
)


@pytest.fixture
def main(tmp_path, run_recipe):
    """The recipe in this process: (exit status, last line of stderr)."""

    def run(*argv):
        return run_recipe(*FLAGS, f"--output_dir={run.out}", *argv)

    run.out = tmp_path / "run"
    return run


def metrics(path, split=None):
    found = json.loads(path.read_text())
    return (found if split is None else found[split])["rows"][0]["metrics"]


@pytest.fixture
def scan(tmp_path):
    """A folder in SCAN's layout; train comes five times, test has no ids."""
    for name, count, options in (
        ("train", 8, {"repeat": 5}), ("dev", 3, {}), ("test", 4, {"ids": False}),
    ):  # fmt: skip
        ids = [f"{name}{i}" for i in range(count)]
        images = samples.features(ids, [6] * count, boxes=False, seed=count)
        samples.write_scan(tmp_path / "scan", name, images, **options)
    return tmp_path / "scan"


def test_a_scan_folder_is_read_as_captions(scan):
    splits = read(scan)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 8, "val": 3, "test": 4}
    assert splits["train"][1]["captions"] == [f"caption {k} of train1" for k in range(5)]
    assert splits["test"][1] == {
        "image_id": "test-1", "image": None, "split": "test",
        "captions": [f"caption {k} of test1" for k in range(5)],
        "caption_ids": [f"test-1#{k}" for k in range(5)],
    }  # fmt: skip
    (scan / "val_caps.txt").write_text("a\n")
    with pytest.raises(ValueError, match="alone does not divide captions among images"):
        read(scan)


def test_norms_pooled_texts_and_the_bag_of_words_reach_the_saved_model(main, scan, tmp_path):
    flags = [
        "--input_norm=standard", "--image_dropout=0.1", "--text_dropout=0.1",
        "--text_pool=mean_max", "--lexical=bag", "--fusion={name: pooled, image: pooled}",
        "--positives=none", "--negatives=none",
    ]  # fmt: skip
    status, error = main(f"--data_root={scan}", f"--region_files={scan}", *flags)
    assert status == 0, error
    model = RetrievalModel.from_pretrained(main.out / "best")
    assert set(model.input_norms) == {"pooled"}  # regions are not read
    assert "caption" in model.lexical.numbers
    again = tmp_path / "again.json"
    assert command(["evaluate", str(main.out), "--output", str(again)]) == 0
    assert metrics(again) == pytest.approx(metrics(main.out / "metrics.json", "test"))


def test_a_scan_folder_trains_and_is_evaluated(main, scan, tmp_path):
    assert main(f"--data_root={scan}", f"--region_files={scan}")[0] == 0
    trained = metrics(main.out / "metrics.json", "test")
    again = tmp_path / "again.json"
    assert command(["evaluate", str(main.out), "--output", str(again)]) == 0
    assert metrics(again) == pytest.approx(trained)
    # the same numbers, from another format
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train", "dev", "test"):
        source = scan / f"{name}_ims.npy"
        assert command(["convert", str(source), str(other / f"{name}.h5")]) == 0
    argv = ["evaluate", str(main.out), "--region_files", str(other), "--output", str(again)]
    assert command(argv) == 0
    assert metrics(again) == pytest.approx(trained)
    assert command(["evaluate", str(main.out), "--split=val", "--output", str(again)]) == 0
    assert metrics(again) == pytest.approx(metrics(main.out / "metrics.json", "val"))


@pytest.mark.parametrize("workers", [0, 2])
def test_karpathys_captions_and_a_tsv_of_any_counts(main, tmp_path, workers):
    entries, ids = [], []
    for number in range(12):
        split = "train" if number < 8 else "val" if number < 10 else "test"
        ids.append(str(number + 1))
        entries.append(
            {
                "filename": f"COCO_val2014_{number + 1:012d}.jpg", "filepath": "val2014",
                "cocoid": number + 1, "split": split,
                "sentences": [{"raw": f"number {number} said {k}"} for k in range(2)],
            }
        )  # fmt: skip
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    samples.write_tsv(tmp_path / "a.tsv", samples.features(ids, range(1, 13)))
    whole = tmp_path / "whole"
    whole.mkdir()
    for image_id in ids:
        name = f"COCO_val2014_{int(image_id):012d}.npy"
        np.save(whole / name, np.random.default_rng(0).normal(size=9))
    flags = [f"--data_root={tmp_path}", f"--region_files={tmp_path / 'a.tsv'}",
             f"--pooled_files={whole}", "--num_regions=8", f"--num_workers={workers}"]  # fmt: skip
    assert main(*flags)[0] == 0
    config = json.loads((main.out / "best" / "config.json").read_text())["image_encoder"]
    assert config == {"name": "region_files", "region_dim": 6, "pooled_dim": 9, "num_regions": 8}
    assert command(["evaluate", str(main.out)]) == 0


def test_what_does_not_fit_is_one_line(main, scan, tmp_path, capsys):
    data = [f"--data_root={scan}"]
    few = tmp_path / "few.tsv"
    samples.write_tsv(few, samples.features(["train0"], [3]))
    code, line = main(*data, f"--region_files={few}")
    assert code == 2
    assert "few.tsv: no features of image 'train1', and of 6 more of 8" in line
    code, line = main(*data, f"--region_files={tmp_path / 'none'}")
    assert code == 2 and "none: no such file or folder of region features" in line
    code, line = main(*data)
    assert code == 2 and "where features are in files, --region_files" in line

    assert main(*data, f"--region_files={scan}")[0] == 0
    narrow = tmp_path / "narrow.tsv"
    samples.write_tsv(narrow, samples.features(["test-0"], [3], dim=5))

    def told(*argv):
        assert command(["evaluate", *map(str, argv)]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "narrow.tsv: region_dim is 5, the model's 6" in told(main.out, "--region_files", narrow)
    assert "come from files: --region_files says which" in told(
        main.out / "best", "--data_root", scan
    )
