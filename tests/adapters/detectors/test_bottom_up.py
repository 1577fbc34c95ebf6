"""BottomUp: weights by name, the published preprocessing, the K best regions of a picture."""

from __future__ import annotations

import pickle
import re
import shlex
import subprocess
import sys

import pytest
import torch

pytest.importorskip("torchvision")
from PIL import Image
from torch import nn
from torchvision.ops import roi_pool

from ascl_plugin.adapters.detectors.bottom_up import BottomUp
from ascl_plugin.adapters.detectors.bottom_up_layers import (
    BottomUpNetwork,
    BoxPredictor,
    ConvNorm,
    cell_anchors,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")
TINY = {"width": 8, "blocks": (1, 2, 2, 1), "classes": 12}


def detector(**options):
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 96, "proposals": 20, "num_regions": 5}
    encoder = BottomUp(**{**TINY, **sizes, **options})
    if "weights" not in options:
        enliven(encoder.network)
    return encoder


def enliven(network):
    """Random weights under which regions and pictures differ, which the usual ones do not do."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, ConvNorm):
            layer.norm.weight.fill_(0.7)
    rpn, predictor = network.proposal_generator.rpn_head, network.roi_heads.box_predictor
    for layer, spread in (
        (rpn.objectness_logits, 0.1),
        (rpn.anchor_deltas, 0.002),
        (predictor.cls_score, 0.005),
    ):
        nn.init.normal_(layer.weight, std=spread)


def noise(width, height, seed=0):
    torch.manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


PICTURES = [noise(80, 60), noise(60, 80, 1), noise(90, 60, 2)]


# ---------------------------------------------------------------- weights


def published():
    """A file's tensors, random, with what files have beyond the network's."""
    torch.manual_seed(3)
    state = {name: torch.rand(x.shape) for name, x in BottomUpNetwork(**TINY).state_dict().items()}
    state["roi_heads.box_predictor.attr_score.bias"] = torch.zeros(6)
    state["roi_heads.box_predictor.bbox_pred.bias"] = torch.zeros(48)
    return state | {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
        for name in state
        if name.endswith("running_var")
    }


@pytest.mark.parametrize("form", ["as it is", "under model", "no anchors"])
def test_weights_load_by_name(tmp_path, form):
    state = published()
    anchors = "proposal_generator.anchor_generator.cell_anchors.0"
    if form == "no anchors":
        del state[anchors]
        state["pixel_mean"] = torch.zeros(3, 1, 1)
    path = str(tmp_path / "pytorch_model.bin")
    torch.save({"model": state} if form == "under model" else state, path)
    loaded = detector(weights=path).network.state_dict()
    own = cell_anchors((64, 128, 256, 512), (0.5, 1.0, 2.0))
    torch.testing.assert_close(loaded[anchors], state.get(anchors, own))
    same = [torch.equal(loaded[k], v) for k, v in state.items() if k in loaded]
    assert all(same)
    assert len(same) == len(loaded) - (form == "no anchors")


def test_a_pickle_is_refused_and_its_conversion_told(tmp_path, monkeypatch):
    """The command in the message makes a file that loads of detectron2's pickle of arrays."""
    state = {k: v for k, v in published().items() if "num_batches" not in k}
    path = tmp_path / "faster_rcnn from $caffe's attr.pkl"
    path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}, 2))
    with pytest.raises(ValueError, match=r"holds more than tensors.*source you trust") as refused:
        detector(weights=str(path))
    monkeypatch.chdir(tmp_path)
    told = re.search(r"python (-c .*)", str(refused.value))[1]
    subprocess.run([sys.executable, *shlex.split(told)], check=True)
    loaded = detector(weights="weights.pth").network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in loaded.items())


# ---------------------------------------------------------------- the encoder


def test_preprocessing_is_the_published_one():
    """Red is the last channel; 255 - 122.7717, 0 - 115.9465, 0 - 102.9801."""
    encoder = BottomUp(**TINY)
    canvas = encoder.preprocess(Image.new("RGB", (640, 480), "red"))
    assert canvas.shape == (4, 1000, 1000)
    pixel = torch.tensor([-102.9801, -115.9465, 255 - 122.7717])
    torch.testing.assert_close(canvas[:3, 599, 799], pixel)
    assert canvas[3].sum() == 600 * 800
    assert canvas[:, 600:].abs().sum() == canvas[:, :, 800:].abs().sum() == 0


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((640, 480), (800, 600)),
        ((500, 375), (800, 600)),
        ((375, 500), (600, 800)),
        ((500, 281), (1000, 562)),  # the longer side decides
        ((2000, 300), (1000, 150)),
        ((333, 500), (600, 901)),  # 900.9 is rounded
        ((1, 1), (600, 600)),
        ((1, 5000), (1, 1000)),
    ],
)
def test_sizes(size, resized):
    width, height = size
    assert BottomUp(**TINY)._resized_size((height, width)) == resized[::-1]


def test_regions():
    encoder = detector()
    out = encoder(torch.stack([encoder.preprocess(p) for p in PICTURES]))
    assert out.regions.shape == (3, 5, 256)
    assert out.pooled.shape == (3, 256)
    assert out.mask is None
    assert encoder.region_dim == encoder.pooled_dim == 256
    found = encoder.detect(PICTURES)
    for picture, one, regions in zip(PICTURES, found, out.regions, strict=True):
        torch.testing.assert_close(one.features, regions, atol=1e-3, rtol=1e-3)
        assert one.boxes.min() >= 0
        assert one.boxes[:, 0::2].max() <= picture.width + 1e-3
        assert one.boxes[:, 1::2].max() <= picture.height + 1e-3
        assert (one.scores.diff() <= 0).all()
        assert one.labels.max() < 12


def test_a_region_is_max_pooled_to_14_and_averaged():
    """Map 28 x 28, box of 27 x 27 cells of 16 pixels: Caffe counts both ends, so 14 x 14 windows of
    2 x 2, of which the largest is taken. res5 is left out."""
    encoder = detector(num_regions=1)
    encoder.network.roi_heads.res5 = nn.Identity()
    encoder.network.roi_heads.box_predictor = BoxPredictor(1, 12)
    cells = torch.randn(28, 28)
    anchor = torch.tensor([[0.0, 0.0, 432.0, 432.0]])
    found = encoder._of_one(
        cells[None, None], torch.zeros(1), torch.zeros(1, 4), anchor, (448, 448)
    )
    windows = cells.unfold(0, 2, 2).unfold(1, 2, 2).amax((2, 3))
    torch.testing.assert_close(found.features[0, 0], windows.mean())
    assert found.boxes.tolist() == anchor.tolist()
    whole = roi_pool(cells[None, None], [torch.tensor([[0.0, 0, 448, 448]])], 14, 1 / 16).mean()
    assert found.pooled.item() == whole != found.features.item()


def test_a_feature_belongs_to_its_box():
    encoder = detector()
    batch = encoder.preprocess(PICTURES[0])[None, :3, :64, :85]
    with torch.no_grad():
        found = encoder._regions(batch, [(64, 85)])[0]
        boxes = torch.cat([found.boxes, torch.tensor([[0.0, 0, 85, 64]])])
        cells = roi_pool(encoder.network.backbone(batch), [boxes], 14, 1 / 16)
        expected = encoder.network.roi_heads.res5(cells).mean((2, 3))
    # other batch sizes, other kernels: some CPUs round the last layers differently
    torch.testing.assert_close(found.features, expected[:-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.pooled, expected[-1], atol=1e-4, rtol=1e-4)
    assert found.features.std(0).mean() > 1


def test_the_last_class_is_the_background():
    encoder = detector()
    predictor = encoder.network.roi_heads.box_predictor
    predictor.cls_score.bias.data[3] = 100
    found = encoder.detect(PICTURES[:1])[0]
    assert found.labels.tolist() == [3] * len(found.labels)
    assert found.scores.min() > 0.99
    predictor.cls_score.bias.data[-1] = 200
    assert encoder.detect(PICTURES[:1])[0].scores.max() < 0.01


def test_without_proposals_the_picture_is_the_region():
    found = detector(min_proposal_side=1000.0).detect(PICTURES[:1])[0]
    assert found.boxes.tolist() == [[0, 0, 80, 60]]
    torch.testing.assert_close(found.features[0], found.pooled)


def test_fewer_than_k_are_masked():
    encoder = detector(min_regions=1, confidence=0.99)
    out = encoder(torch.stack([encoder.preprocess(p) for p in PICTURES[:2]]))
    assert out.mask.tolist() == [[True] + [False] * 4] * 2
    assert out.regions[:, 1:].abs().sum() == 0


def test_nothing_depends_on_the_batch():
    encoder = detector(images_at_once=2)
    canvases = torch.stack([encoder.preprocess(p) for p in [*PICTURES, PICTURES[0]]])
    together = encoder(canvases)
    for i, canvas in enumerate(canvases):
        alone = encoder(canvas[None])
        torch.testing.assert_close(together.regions[i], alone.regions[0], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.pooled[i], alone.pooled[0], atol=1e-3, rtol=1e-3)


def test_half_precision():
    full, half = detector(), detector(precision="bf16")
    canvas = full.preprocess(PICTURES[0])[None]
    assert half(canvas).regions.dtype == torch.float32
    assert not torch.equal(half(canvas).pooled, full(canvas).pooled)
    torch.testing.assert_close(half(canvas).pooled, full(canvas).pooled, atol=1, rtol=0.1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"min_regions": 6}, "min_regions must be from 1 to num_regions = 5, got 6"),
        ({"min_size": 0}, "at least 1"),
        ({"weights": "none.bin"}, None),
    ],
)
def test_wrong_options(option, message):
    with pytest.raises(ValueError if message else FileNotFoundError, match=message):
        detector(**option)
