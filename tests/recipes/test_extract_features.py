"""Pictures -> a detector -> files -> training in the papers' setup -> metrics, as the docs say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
pytest.importorskip("h5py", reason="extra `regions`")
pytest.importorskip("timm", reason="extra `timm`")
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import get_model

from ascl_plugin import registry
from ascl_plugin.adapters.regions.inputs import RegionInputs
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.commands.main import main as command
from ascl_plugin.data.readers import read

pytestmark = [pytest.mark.recipe, pytest.mark.filterwarnings("ignore:.*random weights")]

RECIPES = Path(__file__).parents[2] / "recipes"
SPLITS = {"train": 6, "val": 2, "test": 2}
DETECTOR = {
    "model": "fasterrcnn_mobilenet_v3_large_fpn", "features": "c5", "min_score": 0.0,
    "proposals": 20, "min_size": 48, "max_size": 64,
}  # fmt: skip
EXTRACT = [
    "--detector=faster_rcnn", f"--detector_options={json.dumps(DETECTOR)}", "--num_regions=5",
    "--pooled_model=test_resnet", "--cpu", "--num_threads=1",
]  # fmt: skip
TRAIN = ["--cpu=True", "--num_threads=1", "--log_with=none", "--dim=16", "--batch_size=3",
         "--epochs=2"]  # fmt: skip


def load(name):
    return runpy.run_path(str(RECIPES / f"{name}.py"))["main"]


@pytest.fixture
def root(tmp_path):
    """Ten pictures of any shape, in Karpathy's layout."""
    entries = []
    folder = tmp_path / "root"
    folder.mkdir()
    for split, count in SPLITS.items():
        for number in range(count):
            name = f"{split}{number}.png"
            random = np.random.default_rng(len(entries))
            pixels = random.integers(0, 256, (40 + 8 * number, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
            sentences = [{"raw": f"picture {number} of {split} said {k}"} for k in range(2)]
            # as Karpathy's files of COCO name images
            entries.append(
                {"filename": name, "split": split, "sentences": sentences, "cocoid": len(entries)}
            )
    (folder / "dataset_coco.json").write_text(json.dumps({"images": entries}))
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT of width 8."""
    path = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "picture", "of", "said", "train"]
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(path)
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(path)
    return str(path)


def modified(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.np?")}


def test_pictures_to_metrics(root, bert, tmp_path, capsys):
    extract, train = load("extract_features"), load("ascl_coco")
    assert extract([f"--data_root={root}", *EXTRACT]) == 0
    assert "10 images, 0 of them done; processes: 1" in capsys.readouterr().out
    regions, pooled = open_regions(root / "regions"), open_regions(root / "pooled")
    assert (len(regions), regions.dim, regions.has_boxes) == (10, 960, True)
    assert len(pooled) == 10 and regions.count(0) == 5 and pooled.count(0) == 1

    # again, with some lacking: those alone are made, and they are the same
    kept = regions.regions("1").features
    (root / "regions" / "1.npz").unlink()
    before = modified(root / "regions")
    assert extract([f"--data_root={root}", *EXTRACT]) == 0
    assert "10 images, 9 of them done" in capsys.readouterr().out
    after = modified(root / "regions")
    assert {name for name in after if after[name] != before.get(name)} == {"1.npz"}
    np.testing.assert_allclose(
        open_regions(root / "regions").regions("1").features, kept, rtol=1e-5, atol=1e-6
    )

    run = tmp_path / "run"
    flags = [f"--config={RECIPES / 'configs' / 'coco_acf.yaml'}", f"--text_encoder.model={bert}"]
    assert train([f"--data_root={root}", *flags, *TRAIN, f"--output_dir={run}"]) == 0
    assert set(json.loads((run / "metrics.json").read_text())) >= {"val", "test"}
    config = json.loads((run / "best" / "config.json").read_text())["image_encoder"]
    assert (config["name"], config["region_dim"]) == ("region_files", 960)

    # and from one HDF5 file, the same numbers
    assert command(["convert", str(root / "regions"), str(tmp_path / "regions.h5")]) == 0
    again = tmp_path / "again.json"
    flags = ["--region_files", str(tmp_path / "regions.h5"), "--output", str(again)]
    assert command(["evaluate", str(run), *flags]) == 0
    written = json.loads((run / "metrics.json").read_text())["test"]["rows"][0]
    assert json.loads(again.read_text())["rows"][0]["metrics"] == pytest.approx(written["metrics"])


def test_two_processes_make_what_one_makes(root, tmp_path, run_ranks_of):
    """Regions of a grid."""
    options = ["--detector=timm_grid", "--detector_options={model: test_vit}", "--cpu",
               "--num_regions=4", "--num_threads=1", "--image_root", str(root)]  # fmt: skip
    recipe = RECIPES / "extract_features.py"
    ranks = run_ranks_of(recipe, *options, f"--output_dir={tmp_path / 'two'}")
    codes, printed, errors = zip(*ranks, strict=True)
    assert codes == (0, 0), errors
    assert "".join(printed).count("10 images, 0 of them done; processes: 2") == 1
    assert "| 5/5 [" in "".join(errors)  # half of them each
    assert load("extract_features")([*options, f"--output_dir={tmp_path / 'one'}"]) == 0
    assert load("extract_features")([*options, f"--output_dir={tmp_path / 'one'}"]) == 0  # no work
    one, two = (open_regions(tmp_path / name / "regions") for name in ("one", "two"))
    assert sorted(one.ids) == sorted(two.ids) and len(one) == 10
    for image_id in one.ids:
        np.testing.assert_allclose(
            one.regions(image_id).features, two.regions(image_id).features, rtol=1e-4, atol=1e-5
        )


def test_bad_pictures_and_options_are_one_line(root, tmp_path, capsys):
    main = load("extract_features")
    small = ["--pooled_model=test_vit", "--cpu", "--num_threads=1", f"--data_root={root}"]

    def told(*argv):
        assert main(list(map(str, argv))) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    (root / "val0.png").write_bytes(b"no picture")
    line = told(*small)
    assert line.startswith("error: image ") and "val0.png) does not decode" in line
    bad = tmp_path / "bad.txt"
    assert main([*small, f"--skip_bad={bad}"]) == 0
    assert len(bad.read_text().splitlines()) == 1 and "val0.png" in bad.read_text()
    assert len(open_regions(root / "pooled")) == 9
    assert "holds features of another encoder" in told(*small, "--dtype=float16")
    assert "give --detector, --pooled_model" in told(f"--data_root={root}")
    assert "give --data_root, or --image_root and --output_dir" in told(*small[:-1])
    assert "expected options as yaml" in told(*small, "--pooled_options=pretrained")
    assert "did you mean 'faster_rcnn'" in told(*small, "--detector=fast_rcnn")


def test_pictures_in_folders_have_features_in_folders(tmp_path, capsys, png):
    """Of one name in train/ and test/; other endings of one name are refused before any work."""
    for split in ("train", "test"):
        (tmp_path / "d" / split).mkdir(parents=True)
        (tmp_path / "d" / split / "0.png").write_bytes(png(len(split)))
        (tmp_path / "d" / split / "metadata.csv").write_text(f"file_name,text\n0.png,{split}\n")
    grid = ["--detector_options={model: test_vit}", "--num_regions=4", "--cpu", "--num_threads=1"]
    main, out = load("extract_features"), tmp_path / "out"
    for source in (f"--data_root={tmp_path}/d", f"--image_root={tmp_path}/d"):
        assert main([source, f"--output_dir={out}", "--detector=timm_grid", *grid]) == 0
    assert "2 images, 2 of them done" in capsys.readouterr().out
    assert open_regions(out / "regions").ids == ["test/0.png", "train/0.png"]
    inputs = RegionInputs(out / "regions")
    for rows in read(tmp_path / "d").values():
        inputs.prepare(rows, 1)
    (tmp_path / "d" / "test" / "0.jpg").write_bytes(png(1))
    pictures = [f"--image_root={tmp_path}/d", f"--output_dir={out}", *grid[2:]]
    assert main([*pictures, "--detector=timm_grid"]) == 2
    assert "in test/0.jpg and test/0.png" in capsys.readouterr().err
    (tmp_path / "d" / "test" / "0.jpg").unlink()
    assert main([*pictures, "--detector=grid"]) == 2
    assert "GridEncoder is not frozen, it learns with the model" in capsys.readouterr().err


@pytest.fixture
def made(root):
    """Features of the pictures that no network made, where the presets look."""
    for path in list(root.glob("*.png")):
        for name, shape in (("regions", (4, 24)), ("pooled", (10,))):
            (root / name).mkdir(exist_ok=True)
            values = np.random.default_rng(int(path.stem[-1])).normal(size=shape)
            np.save(root / name / f"{path.stem}.npy", values.astype(np.float32))
        path.unlink()  # no picture is asked for
    return root


def test_the_papers_preset_takes_two_steps(made, bert, tmp_path):
    """On features that are there; `test_pictures_to_metrics` trains the other one."""
    preset = RECIPES / "configs" / "flickr30k_acf_code.yaml"
    flags = [f"--config={preset}", f"--text_encoder.model={bert}",
             "--max_steps=2", f"--cache_dir={tmp_path / 'cache'}"]  # fmt: skip
    run = tmp_path / "run"
    assert load("ascl_coco")([f"--data_root={made}", *flags, *TRAIN, f"--output_dir={run}"]) == 0
    assert json.loads((run / "metrics.json").read_text())["best"]["step"] == 2
    config = json.loads((run / "best" / "config.json").read_text())["image_encoder"]
    assert config == {"name": "region_files", "region_dim": 24, "pooled_dim": 10, "num_regions": 36}
    assert command(["evaluate", str(run)]) == 0


def test_a_preset_says_what_it_lacks_and_does_without(root, bert, capsys):
    main = load("ascl_coco")
    flags = [
        f"--config={RECIPES / 'configs' / 'coco_acf.yaml'}",
        f"--text_encoder.model={bert}",
        *TRAIN,
    ]
    out = root / "run"
    assert main([f"--data_root={root}", f"--output_dir={out}", *flags]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{root / 'regions'}: no such file or folder of region features" in line
    grid = ["--region_files=none", "--image_encoder={name: timm_grid, model: test_vit}",
            f"--cache_dir={root / 'cache'}", "--max_steps=1"]  # fmt: skip
    assert main([f"--data_root={root}", f"--output_dir={out}", *flags, *grid]) == 0
    config = json.loads((out / "best" / "config.json").read_text())["image_encoder"]
    assert config["name"] == "timm_grid"


def lively_weights(path):
    """Random ones, under which pictures differ: statistics of noise, larger predictions."""
    torch.manual_seed(0)
    model = get_model(DETECTOR["model"], weights=None, weights_backbone=None)
    layers = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        model.backbone.train()(torch.randn(8, 3, 96, 96))
        torch.nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.3)
        torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.3)
    save_file(model.state_dict(), path)
    return path


def test_a_detector_as_the_image_encoder_of_a_run(root, tmp_path):
    """Any number of regions; pictures have as many as pass `min_score`, which are cached."""
    options = {name: DETECTOR[name] for name in ("features", "proposals", "min_size", "max_size")}
    weights = lively_weights(tmp_path / "weights.safetensors")
    flags = ["--image_encoder=faster_rcnn", f"--image_encoder.model={DETECTOR['model']}",
             f"--image_encoder.weights={weights}", "--image_encoder.num_regions=7",
             *(f"--image_encoder.{name}={value}" for name, value in options.items()),
             "--image_encoder.min_score=0.04", "--text_encoder.width=16", "--max_steps=2",
             "--align_epochs=0", "--eval_batch_size=4",
             f"--cache_dir={tmp_path}", f"--output_dir={tmp_path / 'run'}"]  # fmt: skip
    assert load("ascl_coco")([f"--data_root={root}", *flags, *TRAIN]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["best"]["step"] == 2
    shards = [load_file(path) for path in tmp_path.glob("*/shard-*.safetensors")]
    counts = torch.cat([shard["regions.offsets"].diff() for shard in shards])
    assert len(counts) == 10 and counts.max() <= 7 and len(counts.unique()) > 1, counts
    assert command(["evaluate", str(tmp_path / "run")]) == 0


def test_the_worked_example_of_the_docs_trains(root, tmp_path, monkeypatch):
    """What docs/own_encoder.md asks of an encoder is all that a recipe asks for."""
    page = (RECIPES.parent / "docs" / "own_encoder.md").read_text()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    exec(page.split("```python\n")[1].split("```")[0], {"__name__": "snippet"})
    flags = ["--image_encoder={name: quarters, side: 3}", "--text_encoder=hashed",
             "--max_steps=2", f"--cache_dir={tmp_path}"]  # fmt: skip
    out = f"--output_dir={tmp_path / 'run'}"
    assert load("ascl_coco")([f"--data_root={root}", *flags, *TRAIN, out]) == 0
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert config["image_encoder"] == {"name": "quarters", "side": 3}
