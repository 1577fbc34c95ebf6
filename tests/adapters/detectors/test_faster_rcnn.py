"""FasterRCNN: torchvision's boxes, a feature each, whatever the picture and whatever its batch."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch

pytest.importorskip("torchvision")
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model_weights
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

from ascl_plugin.registry import resolve
from ascl_plugin.retrieval.inputs import ImageInputs

FasterRCNN = resolve("image_encoder", "faster_rcnn")
SMALL = "fasterrcnn_mobilenet_v3_large_fpn"
pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")


def detector(model=SMALL, **options):
    """Random weights give every class 1/91, below the usual least score."""
    torch.manual_seed(0)
    size = {"min_size": 64, "max_size": 96, "proposals": 30}
    return FasterRCNN(model, **{"num_regions": 5, "min_score": 0.0, **size, **options})


def enlivened(encoder):
    """Random weights under which regions and pictures differ, which the usual ones do not do."""
    backbone, heads = encoder.model.backbone, encoder.model.roi_heads
    backbone.train()
    for layer in backbone.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        backbone(torch.randn(8, 3, 96, 96))
        torch.nn.init.normal_(heads.box_predictor.cls_score.weight, std=0.3)
        torch.nn.init.normal_(encoder.model.rpn.head.cls_logits.weight, std=0.3)
    backbone.eval()
    return encoder


def noise(width, height, seed=0):
    torch.manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


@pytest.fixture(scope="module")
def small():
    with pytest.warns(UserWarning, match="random weights"):
        return enlivened(detector())


PICTURES = [noise(80, 60), noise(60, 80, 1), noise(90, 60, 2)]


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize(
    ("name", "features", "region_dim", "pooled_dim"),
    [
        (SMALL, "box_head", 1024, 960),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "c5", 960, 960),
        ("fasterrcnn_resnet50_fpn_v2", "c5", 2048, 2048),
    ],
)
def test_shapes(name, features, region_dim, pooled_dim):
    encoder = detector(name, features=features)
    out = encoder(torch.stack([encoder.preprocess(p) for p in PICTURES[:2]]))
    assert (encoder.region_dim, encoder.pooled_dim) == (region_dim, pooled_dim)
    assert out.regions.shape == (2, 5, region_dim)
    assert out.pooled.shape == (2, pooled_dim)
    assert out.mask is None
    assert out.regions.isfinite().all()


@pytest.mark.parametrize("picture", PICTURES)
def test_boxes_are_those_of_torchvision(small, picture):
    """The model itself, called with one picture, against ours: resizing, padding, NMS, scaling."""
    pixels = torch.tensor(list(picture.tobytes())).view(picture.height, picture.width, 3)
    small.model.transform.min_size, small.model.transform.max_size = (64,), 96
    with torch.no_grad():
        expected = small.model([pixels.permute(2, 0, 1) / 255])[0]
    found = small.detect([picture])[0]
    assert len(found.boxes) == 5
    assert found.features.std(0).mean() > 0.005  # else no comparison here says anything
    torch.testing.assert_close(found.boxes, expected["boxes"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.scores, expected["scores"])
    assert found.labels.tolist() == expected["labels"].tolist()


def test_a_feature_is_what_the_box_head_makes_of_the_box(small):
    picture = noise(96, 64)  # needs no resizing and no padding
    found = small.detect([picture])[0]
    pixels = small.preprocess(picture)[None, :3, :64, :96]
    heads = small.model.roi_heads
    with torch.no_grad():
        maps = small.model.backbone(pixels)
        expected = heads.box_head(heads.box_roi_pool(maps, [found.boxes], [(64, 96)]))
    torch.testing.assert_close(found.features, expected, atol=1e-4, rtol=1e-3)


def test_c5_is_averaged_over_boxes_and_over_the_picture():
    """A last map that is its column number: 96 pixels, 3 columns of 32, centres at 16, 48, 80.

    Interpolated between centres and constant beyond, its mean over the picture is 1, over the left
    half less, over the right half as much more.
    """
    from ascl_plugin.adapters.detectors.faster_rcnn import _mean_over

    c5 = torch.arange(3.0).expand(1, 1, 2, 3)
    boxes = torch.tensor([[0.0, 0, 96, 64], [0, 0, 48, 64], [48, 0, 96, 64], [40, 10, 56, 20]])
    means = _mean_over(c5, [boxes], torch.zeros(1, 3, 64, 96))[:, 0]
    torch.testing.assert_close(means[0], torch.tensor(1.0))
    torch.testing.assert_close(means[1] + means[2], torch.tensor(2.0))
    torch.testing.assert_close(means[3], torch.tensor(1.0))
    assert means[1] < 0.5


def test_nothing_depends_on_the_batch(small):
    """Alone, together, one at a time, through `detect`: the same features."""
    canvases = torch.stack([small.preprocess(p) for p in PICTURES])
    together = small(canvases)
    found = small.detect(PICTURES)
    for i, canvas in enumerate(canvases):
        alone = small(canvas[None])
        torch.testing.assert_close(together.regions[i], alone.regions[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(together.pooled[i], alone.pooled[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(found[i].features, alone.regions[0], atol=1e-4, rtol=1e-3)


# ---------------------------------------------------------------- fewer boxes than K


def keep_first(monkeypatch, encoder, count):
    """The detector finds `count` boxes, or of a picture's size, no more."""
    heads = encoder.model.roi_heads
    original = heads.postprocess_detections

    def fewer(*args):
        most = count(args[3][0]) if callable(count) else count
        return tuple([x[:most] for x in part] for part in original(*args))

    monkeypatch.setattr(heads, "postprocess_detections", fewer)


def test_a_mask_says_how_many_there_are(small, monkeypatch):
    keep_first(monkeypatch, small, 2)
    out = small(torch.stack([small.preprocess(p) for p in PICTURES[:2]]))
    assert out.mask.tolist() == [[True, True, False, False, False]] * 2
    assert out.regions[:, 2:].abs().sum() == 0
    assert len(small.detect(PICTURES[:1])[0].boxes) == 2


def test_the_cache_keeps_what_is_real(small, monkeypatch, tmp_path):
    """Two boxes of the first picture, four of the second: padded to four, and the mask says so."""
    # the first picture is wider than high
    keep_first(monkeypatch, small, lambda size: 2 if size[0] < size[1] else 4)
    rows = []
    for number, picture in enumerate(PICTURES[:2]):
        picture.save(tmp_path / f"{number}.png")
        cell = {"path": str(tmp_path / f"{number}.png"), "bytes": None}
        rows.append({"image": cell, "image_id": str(number)})
    expected = small(ImageInputs(small)(rows)["pixel_values"])
    inputs = ImageInputs(small, tmp_path / "cache")
    inputs.prepare(rows, batch_size=2, progress=False)
    batch = inputs(rows)
    assert batch["region_mask"].tolist() == [[True, True, False, False], [True] * 4]
    torch.testing.assert_close(batch["regions"], expected.regions[:, :4], atol=1e-3, rtol=1e-3)
    assert expected.mask.sum() == 6
    assert "region_mask" not in inputs(rows[1:])


def test_where_nothing_is_found_the_picture_is_the_region():
    found = detector(min_score=0.9).detect([PICTURES[0]])[0]
    assert found.boxes.tolist() == [[0, 0, 80, 60]]
    assert (found.scores.tolist(), found.labels.tolist()) == ([0], [0])
    assert found.features.isfinite().all()


def test_a_canvas_is_expected(small):
    with pytest.raises(ValueError, match=r"must be \(I, 4, S, S\).*got \(1, 3, 8, 8\)"):
        small(torch.zeros(1, 3, 8, 8))


# ---------------------------------------------------------------- precision, freezing, fingerprint


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_half_precision_leaves_boxes_exact(small, where):
    half = detector(precision="bf16" if where == "inside" else "fp32")
    half.model = small.model
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "outside"):
        found = half.detect(PICTURES[:1])[0]
    expected = small.detect(PICTURES[:1])[0]
    assert found.features.dtype == found.boxes.dtype == torch.float32
    assert not torch.equal(found.pooled, expected.pooled)
    torch.testing.assert_close(found.pooled, expected.pooled, atol=0.05, rtol=0.1)
    # halves and eighths of a pixel of bf16 would show
    assert (found.boxes * 8 % 1).abs().max() > 1e-3


# ---------------------------------------------------------------- options and weights


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"model": "fasterrcnn_resnet50_fnp"}, "did you mean 'fasterrcnn_resnet50_fpn'"),
        ({"model": "maskrcnn_resnet50_fpn"}, "torchvision has no 'maskrcnn_resnet50_fpn'"),
        ({"features": "c4"}, "features must be one of box_head, c5, got 'c4'"),
        ({"precision": "half"}, "precision must be one of fp32, bf16, fp16, got 'half'"),
        ({"num_regions": 0}, "num_regions.*at least 1, got 0"),
    ],
)
def test_wrong_options(option, message):
    with pytest.raises(ValueError, match=message):
        detector(**option)


def weights(classes=3):
    torch.manual_seed(5)
    model = fasterrcnn_mobilenet_v3_large_fpn(weights_backbone=None, num_classes=classes)
    return model.state_dict()


@pytest.mark.parametrize("form", ["w.pth", "w.safetensors", "nested.pt", "without counters.pth"])
def test_checkpoints(tmp_path, form):
    state = weights()
    stored = dict(state)
    if form.startswith("without"):
        stored = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / form
    if form.endswith("safetensors"):
        save_file(stored, path)
    else:
        torch.save({"model": stored} if form.startswith("nested") else stored, path)
    encoder = detector(weights=str(path), num_classes=3)
    loaded = encoder.model.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items() if "num_batches" not in k)


def test_checkpoints_that_do_not_fit(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(weights(), path)
    with pytest.raises(ValueError, match=r"w.pth does not fit the model: size mismatch for .*cls"):
        detector(weights=str(path))  # 91 classes
    state = weights()
    del state["rpn.head.bbox_pred.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, path)
    lacks = r"lacks 1 tensors \(rpn.head.bbox_pred.bias\) and also has 1 tensors \(extra\)"
    with pytest.raises(ValueError, match=lacks):
        detector(weights=str(path), num_classes=3)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="no state dict"):
        detector(weights=str(path))
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*none.pth"):
        detector(weights=str(tmp_path / "none.pth"))


def test_published_weights(monkeypatch):
    """Asked for with a checksum and as tensors alone; a server out of reach is named."""
    asked = {}
    enum = get_model_weights(SMALL)

    def answer(self, **options):
        asked.update(options)
        return weights(91)

    monkeypatch.setattr(enum, "get_state_dict", answer)
    encoder = detector(weights="pretrained")
    assert asked == {"check_hash": True, "weights_only": True}
    assert torch.equal(encoder.model.state_dict()["rpn.head.bbox_pred.bias"], torch.zeros(60))

    def silence(self, **options):
        raise URLError("no route")

    monkeypatch.setattr(enum, "get_state_dict", silence)
    with pytest.raises(OSError, match=r"cannot be fetched from https.*no route.*weights="):
        detector(weights="pretrained")


def test_batch_norm_of_the_first_resnet_has_no_epsilon(monkeypatch):
    """torchvision says so of the published weights, and sets it only when it loads them itself."""
    name = "fasterrcnn_resnet50_fpn"
    state = detector(name).model.state_dict()
    monkeypatch.setattr(get_model_weights(name), "get_state_dict", lambda self, **_: state)
    encoder = detector(name, weights="pretrained")
    norms = [m for m in encoder.model.backbone.modules() if hasattr(m, "running_mean")]
    assert {m.eps for m in norms} == {0.0}
