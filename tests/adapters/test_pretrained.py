"""Promises of every pretrained encoder, whatever framework it comes from."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from ascl_plugin import registry

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights")

SMALL = {"min_size": 64, "max_size": 96, "num_regions": 5, "proposals": 20, "precision": "fp32"}
DETECTORS = {
    "faster_rcnn": {**SMALL, "model": "fasterrcnn_mobilenet_v3_large_fpn", "min_score": 0.0},
    "bottom_up": {**SMALL, "width": 8, "blocks": (1, 2, 2, 1), "classes": 12},
}
RESIZED = [{"num_regions": 4}, {"proposals": 9}, {"min_size": 65}, {"precision": "bf16"}]
# encoder -> framework, options, options that change the features
IMAGES = {
    "timm_grid": ("timm", {"model": "test_resnet"}, [{"num_regions": 9}]),
    "resnet": ("timm", {"model": "test_resnet"}, []),
    "transformers_clip": ("transformers", {"model": "clip"}, [{"num_regions": 4}]),
    "open_clip": ("open_clip", {"model": "tiny-vit"}, [{"num_regions": 4}]),
    "faster_rcnn": (
        "torchvision",
        DETECTORS["faster_rcnn"],
        [{"min_score": 0.1}, {"features": "c5"}, *RESIZED],
    ),
    "bottom_up": (
        "torchvision",
        DETECTORS["bottom_up"],
        [{"confidence": 0.4}, {"min_regions": 2}, *RESIZED],
    ),
}
CUT = [{"max_words": 5}, {"keep_special_tokens": False}]
TEXTS = {
    "bert": ("transformers", {"model": "bert"}, CUT),
    "transformers_clip": ("transformers", {"model": "clip"}, CUT),
    "open_clip": ("open_clip", {"model": "tiny-vit"}, CUT),
}
EVERY = [("image_encoder", name) for name in IMAGES] + [("text_encoder", name) for name in TEXTS]


@pytest.fixture
def build(request):
    """Return a function that builds an encoder with weights that depend on nothing but a seed."""

    def run(kind, name, **more):
        framework, options, _ = (IMAGES if kind == "image_encoder" else TEXTS)[name]
        pytest.importorskip(framework)
        options = {**options, **more}
        if options.get("model") in ("bert", "clip"):
            options["model"] = request.getfixturevalue(options["model"])
        if name == "open_clip":
            request.getfixturevalue("clips")
        torch.manual_seed(0)
        return registry.build(kind, name, **options)

    return run


def outputs(encoder):
    if hasattr(encoder, "tokenize"):
        return [encoder(**encoder.tokenize(["a dog runs", "cat"])).words]
    pixels = encoder.preprocess(Image.linear_gradient("L").convert("RGB").resize((50, 40)))
    found = encoder(torch.stack([pixels, pixels]))
    return [found.regions, found.pooled]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_frozen_never_leaves_evaluation(build, kind, name):
    encoder = build(kind, name)
    encoder.train()
    assert encoder.frozen and not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    first, second = outputs(encoder), outputs(encoder)
    assert all(
        torch.equal(a, b) and not a.requires_grad for a, b in zip(first, second, strict=True)
    )
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize(("kind", "name"), [e for e in EVERY if e[1] not in DETECTORS])
def test_every_trained_parameter_has_a_part_in_the_features(build, kind, name):
    """An idle one would stop distributed training. Found also where nothing is recorded."""
    with torch.no_grad():
        encoder = build(kind, name, tune="full")
        assert not any(x.requires_grad for x in outputs(encoder))
    assert encoder.training and not encoder.frozen
    sum(x.square().mean() for x in outputs(encoder)).backward()
    assert any(p.requires_grad for p in encoder.parameters())
    for key, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_fingerprint_tells_apart_what_gives_other_features(build, kind, name):
    encoder = build(kind, name)
    print_ = encoder.fingerprint()
    assert json.loads(json.dumps(print_)) == print_
    if name != "open_clip":  # open_clip draws its weights from a generator of its own
        assert print_ == build(kind, name).fingerprint()
    for option in (IMAGES if kind == "image_encoder" else TEXTS)[name][2]:
        other = build(kind, name, **option).fingerprint()
        assert {**other, "weights": 0} != {**print_, "weights": 0}, option
    with torch.no_grad():
        next(encoder.parameters()).add_(0.01)
    assert encoder.fingerprint()["weights"] != print_["weights"]


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2), (7, 5)])
def test_detectors_take_any_size(build, name, size):
    encoder, picture = build("image_encoder", name), Image.new("RGB", size, "red")
    out = encoder(encoder.preprocess(picture)[None])
    assert out.regions.isfinite().all() and out.pooled.isfinite().all()
    boxes = encoder.detect([picture])[0].boxes
    assert boxes.min() >= 0 and (boxes <= torch.tensor([*size, *size])).all()


@pytest.mark.parametrize(("kind", "name"), [e for e in EVERY if e[1] not in DETECTORS])
def test_options_out_of_range_are_refused(build, kind, name):
    with pytest.raises(ValueError, match=r"tune must be one of frozen, .*full, got 'half'"):
        build(kind, name, tune="half")
    if kind == "text_encoder":
        with pytest.raises(ValueError, match=r"max_words must be at least 3 .*got 2"):
            build(kind, name, max_words=2)
    elif name != "resnet":
        for wrong in (0, -4, 35, 2):
            with pytest.raises(ValueError, match=f"num_regions must be a square .*got {wrong}"):
                build(kind, name, num_regions=wrong)


@pytest.mark.parametrize("name", TEXTS)
def test_special_tokens_can_be_masked(build, name):
    encoder = build("text_encoder", name, keep_special_tokens=False)
    mask = encoder(**encoder.tokenize(["a dog runs", "a"])).mask
    assert mask.int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]


@pytest.mark.parametrize("name", TEXTS)
def test_long_texts_are_cut_and_counted(build, name):
    """Start, words, end: two words fit four tokens, three do not; the end stays."""
    encoder = build("text_encoder", name, max_words=4)
    texts = ["a dog", "a dog runs", "a cat", "", "two cats runs a dog"]
    tokens = encoder.tokenize(texts)
    ids = tokens["input_ids"]
    assert ids.shape == (5, 4) and (ids[[1, 4], -1] == ids[0, -1]).all()
    assert ids[1, :3].tolist() == ids[0, :3].tolist()
    assert tokens["attention_mask"].sum(1).tolist() == [4, 4, 4, 2, 4]
    assert encoder.count_cut(texts) == 2
    assert build("text_encoder", name).count_cut(texts) == 0


FRAMEWORKS = [
    ("towers/timm_grid", "timm", "timm"),
    ("towers/transformers_base", "transformers", "recipes"),
    ("towers/open_clip_half", "open_clip", "open-clip"),
    ("detectors/faster_rcnn", "torchvision", "detection"),
    ("detectors/bottom_up", "torchvision", "detection"),
    ("losses/metric_learning", "pytorch_metric_learning", "metric-learning"),
    ("losses/hf_trainer", "transformers", "recipes"),
    ("losses/sentence_transformers", "sentence_transformers", "sentence-transformers"),
    ("towers/onnx_export", "onnx", "onnx"),
    ("regions/hdf5", "h5py", "regions"),
]


@pytest.mark.parametrize(("adapter", "framework", "extra"), FRAMEWORKS)
def test_without_the_framework_the_extra_is_named(import_again, adapter, framework, extra):
    expected = rf"{framework} is not installed: .*ascl-plugin\[{extra}\]"
    with pytest.raises(ImportError, match=expected):
        import_again(adapter, framework, None)


@pytest.mark.parametrize(("adapter", "framework", "extra"), FRAMEWORKS[:5])
def test_torchvision_of_another_torch_is_named_with_the_cure(
    import_again, adapter, framework, extra
):
    fault = "raise RuntimeError('operator torchvision::nms does not exist')"
    with pytest.raises(ImportError, match=r"nms does not exist.*another torch.*builds that match"):
        import_again(adapter, framework, fault)
