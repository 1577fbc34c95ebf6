"""``ascl evaluate`` on models of other libraries, as they are: their own figures."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

pytest.importorskip("open_clip", reason="extra `open-clip`")
pytest.importorskip("transformers", reason="extra `recipes`")
import open_clip
import transformers

from ascl_plugin.commands.main import main

TEXTS = ("a dog runs", "a cat", "two cats")
COLORS = ("red", "green", "blue", "white")


@torch.no_grad()
def own_scores(library, path, pictures):
    """The cosines (images, texts) that the library itself gives."""
    if library == "transformers":
        model = transformers.AutoModel.from_pretrained(path).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(path)
        tokens = transformers.AutoTokenizer.from_pretrained(path)(
            list(TEXTS), return_tensors="pt", padding=True
        )
        v = model.get_image_features(**processor(images=pictures, return_tensors="pt"))
        w = model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        v, w = v.pooler_output, w.pooler_output
    else:
        name, weights = path.split(",")
        model, _, transform = open_clip.create_model_and_transforms(name, pretrained=weights)
        v = model.eval().encode_image(torch.stack([transform(p) for p in pictures]))
        w = model.encode_text(open_clip.get_tokenizer(name)(list(TEXTS)))
    return torch.nn.functional.normalize(v, dim=1) @ torch.nn.functional.normalize(w, dim=1).T


@pytest.mark.parametrize("library", ["transformers", "open_clip"])
def test_zero_shot_figures_are_the_library_s_own(library, clip, clips, tmp_path, capsys):
    path = str(clip) if library == "transformers" else f"tiny-vit,{clips['tiny-vit']}"
    pictures = [Image.linear_gradient("L").convert("RGB").rotate(90 * n) for n in range(4)]
    pictures = [
        Image.blend(p, Image.new("RGB", p.size, c), 0.5)
        for p, c in zip(pictures, COLORS, strict=True)
    ]
    entries = []
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
        right, wrong, other = (TEXTS[(number + k) % 3] for k in range(3))
        texts = {"caption": right, "caption2": other, "negative_caption": wrong}
        entries.append({"filename": f"{number}.png", **texts})
    (tmp_path / "swap_att.json").write_text(json.dumps(entries))
    output = tmp_path / "out.json"
    words = ["--suite", "sugarcrepe", "--path", str(tmp_path), "--output", str(output)]
    assert main(["evaluate", f"{library}:{path}", *words]) == 0
    scores = own_scores(library, path, pictures)
    right = sum(float(scores[n, n % 3] > scores[n, (n + 1) % 3]) for n in range(4))
    assert json.loads(output.read_text())["contests"]["swap_att"]["accuracy"] == 25 * right
    assert "| swap_att" in capsys.readouterr().out


def test_a_model_that_the_library_does_not_know(tmp_path, capsys):
    words = ["--suite", "sugarcrepe", "--path", str(tmp_path)]
    (tmp_path / "1.png").write_bytes(b"")
    entry = {"filename": "1.png", "caption": "a", "negative_caption": "b"}
    (tmp_path / "x.json").write_text(json.dumps([entry]))
    assert main(["evaluate", "open_clip:ViT-B-33", *words]) == 2
    assert "ViT-B-33" in capsys.readouterr().err
