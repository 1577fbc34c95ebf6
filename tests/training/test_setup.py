"""What options become: files of features, and the options of an image encoder."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers", reason="extra `recipes`")

from ascl_plugin import registry
from ascl_plugin.retrieval.encoders import GridEncoder
from ascl_plugin.training.arguments import parse_options
from ascl_plugin.training.models import make_loss, make_model
from ascl_plugin.training.setup import find_files
from ascl_plugin.yaml_file import mapping


def files(*argv):
    options = parse_options(list(argv))
    find_files(options)
    return options.data.region_files, options.data.pooled_files


def test_feature_files_are_looked_for_in_the_data_root_first(tmp_path, monkeypatch):
    root, here = tmp_path / "root", tmp_path / "here"
    here.mkdir()
    (root / "regions").mkdir(parents=True)
    monkeypatch.chdir(here)
    (here / "regions").touch()
    (here / "pooled").touch()
    flags = [f"--data_root={root}", "--region_files=regions"]
    assert files(*flags, "--pooled_files=pooled") == (str(root / "regions"), "pooled")
    # neither: the one that a preset means is named in the error
    assert files(*flags, "--pooled_files=none.h5")[1] == str(root / "none.h5")
    assert files(*flags, f"--pooled_files={here}/pooled")[1] == f"{here}/pooled"


def test_none_is_none(tmp_path):
    flags = [f"--data_root={tmp_path}", "--pooled_files=b"]
    assert files(*flags, "--region_files=none") == files(*flags) == (None, None)
    both = [f"--data_root={tmp_path}", "--region_files=a", "--pooled_files=none"]
    assert files(*both) == (str(tmp_path / "a"), None)


def test_options_on_one_line(tmp_path):
    assert mapping(None) == {}
    assert mapping("{min_size: 400, features: c5}") == {"min_size": 400, "features": "c5"}
    config = tmp_path / "a.yaml"
    config.write_text("image_options:\n  grid: 3\n  fast: true\n")
    options = parse_options([f"--config={config}"])
    assert mapping(options.model.image_options) == {"grid": 3, "fast": True}
    for text in ("min_size", "[1]", "{1: 2}", "{a: [}"):
        with pytest.raises(ValueError, match=r"expected options as yaml, .*, got"):
            mapping(text)


@pytest.mark.parametrize(
    ("encoder", "flags", "expected"),
    [
        ("faster_rcnn", ["--image_model=m"], {"model": "m", "num_regions": 7}),
        ("faster_rcnn", ["--image_options={fill: true, num_regions: 9}"],
         {"fill": True, "num_regions": 9}),
        ("bottom_up", [], {"num_regions": 7}),
        ("resnet", ["--image_model=m", "--freeze_encoders=False"],
         {"model": "m", "tune": "full"}),
        ("timm_grid", [], {"num_regions": 7, "tune": "frozen"}),
        ("mine", [], {}),
    ],
)  # fmt: skip
def test_an_encoder_gets_the_options_it_takes(monkeypatch, encoder, flags, expected):
    got = {}

    class Recorded(GridEncoder):
        def __init__(self, **options):
            super().__init__(width=8)
            got.update(options)

    monkeypatch.setattr(registry, "_registered", {("image_encoder", encoder): Recorded})
    flags = [f"--image_encoder={encoder}", "--num_regions=7", "--dim=16", *flags]
    model = make_model(parse_options(flags), [["a word"]])
    weights = {"weights": None} if encoder != "mine" else {}
    assert got == {**weights, **expected}
    assert model.image_encoder.region_dim == 8


@pytest.mark.parametrize("encoder", ["open_clip", "transformers_clip"])
def test_a_dual_encoder_must_be_named(encoder):
    options = parse_options([f"--image_encoder={encoder}"])
    with pytest.raises(ValueError, match=f"image_encoder {encoder}: --image_model says which"):
        make_model(options, [["a word"]])


def test_a_loss_that_learns_is_refused(monkeypatch):
    """Nobody would train its temperature."""

    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))

    monkeypatch.setattr(registry, "_registered", {("loss", "learned"): Learned})
    with pytest.raises(ValueError, match="--loss learned learns 'logit_scale', and only the model"):
        make_loss(parse_options(["--loss=learned"]).loss)
