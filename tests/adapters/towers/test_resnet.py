"""PooledImage: one feature a picture, torchvision's numbers from torchvision's weights."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("timm")
import timm
import torchvision

from ascl_plugin.registry import resolve

PooledImage = resolve("image_encoder", "resnet")


def test_a_file_of_torchvisions_weights_gives_torchvisions_features(tmp_path):
    """The classifier's input, which the average pool gives."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).eval()
    with torch.no_grad():
        for layer in theirs.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(std=0.1)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = PooledImage("resnet18", str(tmp_path / "resnet18.pth"))
    theirs.fc = torch.nn.Identity()
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(pixels)
    found = ours(pixels)
    torch.testing.assert_close(found.pooled, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.regions, found.pooled[:, None]) and found.mask is None
    assert not found.pooled.requires_grad
    assert (ours.region_dim, ours.pooled_dim) == (512, 512)


def test_resnet152_is_named_as_torchvisions():
    with torch.device("meta"):
        ours = timm.create_model("resnet152").state_dict()
        theirs = torchvision.models.resnet152(weights=None).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert theirs["fc.weight"].shape[1] == 2048


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_any_timm_model(name):
    encoder = PooledImage(name, tune="full")
    found = encoder(torch.randn(2, *encoder.data_config["input_size"]))
    assert found.pooled.shape == (2, encoder.pooled_dim) and found.pooled.requires_grad
    assert encoder.fingerprint()["encoder"] == "PooledImage"
