"""Tuned towers go back to transformers: the same embeddings from its own classes."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("transformers")
import transformers
from PIL import Image

from ascl_plugin.adapters.towers.transformers_clip import attach
from ascl_plugin.adapters.towers.transformers_export import export


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_exported_towers_embed_as_the_tuned_ones(dual_encoder, tmp_path, kind):
    source = dual_encoder(kind)
    model = attach(source, tune="full", num_regions=4, dim=16, fusion={"num_heads": 2}).eval()
    for parameter in model.parameters():
        parameter += 0.01 * torch.randn_like(parameter)
    export(model, tmp_path / "tuned")
    whole = transformers.AutoModel.from_pretrained(tmp_path / "tuned").eval()
    before = transformers.AutoModel.from_pretrained(source)
    assert_close(whole.logit_scale, before.logit_scale)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "tuned")
    picture = Image.new("RGB", (40, 50), "red")
    pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
    found = whole.get_image_features(pixel_values=pixels).pooler_output
    close = {"rtol": 1e-5, "atol": 1e-5}
    own = model.image_encoder(model.image_encoder.preprocess(picture)[None]).pooled
    assert_close(found, own, **close)
    assert (found - before.get_image_features(pixel_values=pixels).pooler_output).abs().max() > 1e-3
    words = model.text_encoder
    tokens = words.tokenize(["a dog runs", "zebra"])
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "tuned")(["zebra"])["input_ids"][0]
    assert ids == tokens["input_ids"][1][: len(ids)].tolist()
    mask = None if words.unmasked else tokens["attention_mask"]
    texts = whole.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask)
    assert_close(texts.pooler_output, words.embed(**tokens), **close)


def test_other_encoders_and_two_models_are_refused(dual_encoder, tmp_path):
    model = attach(dual_encoder("clip"), num_regions=4, dim=16, fusion={"num_heads": 2})
    model.text_encoder.model_name = "another"
    with pytest.raises(ValueError, match=r"two models: images .*, texts another"):
        export(model, tmp_path / "x")
    model.text_encoder = torch.nn.Identity()
    with pytest.raises(TypeError, match=r"needs the encoders of attach.*, got .* and Identity"):
        export(model, tmp_path / "x")
