"""Towers in ONNX embed as the model's own, in onnxruntime, any number of items."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize, pad
from torch.testing import assert_close

pytest.importorskip("onnx", reason="extra `onnx`")
pytest.importorskip("onnxruntime", reason="extra `onnx`")
import onnxruntime
from PIL import Image

from ascl_plugin import RetrievalModel
from ascl_plugin.adapters.towers.onnx_export import export_onnx


@pytest.fixture
def attached(request):
    """Return a function from a kind to a model on both towers of such a model."""

    def attach(kind):
        if kind in ("clip", "siglip"):
            from ascl_plugin.adapters.towers.transformers_clip import attach

            return attach(request.getfixturevalue("dual_encoder")(kind), tune="full")
        pytest.importorskip("open_clip", reason="extra `open-clip`")
        from ascl_plugin.adapters.towers.open_clip import attach

        return attach(kind, request.getfixturevalue("clips")[kind])

    return attach


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("clip", ["input_ids", "attention_mask"]),
        ("siglip", ["input_ids"]),
        ("tiny-vit", ["input_ids"]),
    ],
)
@torch.no_grad()
def test_exported_towers_embed_as_the_model(attached, tmp_path, kind, names):
    model = attached(kind)
    export_onnx(model, tmp_path / "onnx")
    model.eval()
    images, texts = (
        onnxruntime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx")
        for name in ("image", "text")
    )
    encoder, words = model.image_encoder, model.text_encoder
    shades = ("red", "green", "blue")
    pixels = torch.stack([encoder.preprocess(Image.new("RGB", (50, 40), c)) for c in shades])
    (found,) = images.run(None, {"pixel_values": pixels.numpy()})
    close = {"rtol": 1e-5, "atol": 1e-5}
    assert_close(torch.tensor(found), normalize(encoder(pixels).pooled, dim=1), **close)
    assert abs(found[0] @ found[1]) < 1 - 1e-6
    tokens = words.tokenize(["a dog runs", "two cats", "a", "a cat sleeps"])
    own = normalize(words.embed(**tokens), dim=1)
    assert [node.name for node in texts.get_inputs()] == names
    short = (0, words.context - tokens["input_ids"].shape[1])
    whole = {name: pad(tokens[name].long(), short).numpy() for name in names}  # padding is id 0
    assert_close(torch.tensor(texts.run(None, whole)[0]), own, **close)


def test_encoders_without_embeddings_are_refused(tmp_path):
    model = RetrievalModel({"name": "grid"}, {"name": "transformer", "vocabulary": ["a"]})
    with pytest.raises(TypeError, match=r"needs the encoders of attach.*, got "):
        export_onnx(model, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
