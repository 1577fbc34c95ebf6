"""open_clip's own trainer on a folder of pictures, with our loss, as the example runs it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("open_clip", reason="extra `open-clip`")
pytest.importorskip("webdataset", reason="open_clip_torch[training]")
pytest.importorskip("pandas", reason="open_clip_torch[training]")
import forked
import open_clip
from PIL import Image

EXAMPLE = Path(__file__).parents[3] / "examples" / "open_clip_training.py"
COLORS = ["red", "green", "blue", "white", "black", "orange", "pink", "gray"]
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.mark.recipe
def test_the_trainer_trains_with_our_loss(tmp_path):
    """Eight colours and their names: sixty steps of eight pairs bring the loss down.

    Without knowledge it is ln 8 = 2.1 and more, since generated negatives compete. The checkpoint
    is open_clip's and loads there.
    """
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filepath", "title"])
        for color in COLORS:
            path = tmp_path / f"{color}.png"
            Image.new("RGB", (40, 40), color).save(path)
            rows.writerow([path, f"a {color} square"])
    flags = [
        "--model", f"local-dir:{tmp_path}", "--train-data",
        tmp_path / "pairs.csv", "--csv-separator", ",", "--batch-size", "8", "--epochs", "60",
        "--lr", "1e-3", "--warmup", "1", "--workers", "0", "--device", "cpu", "--logs", tmp_path,
        "--name", "run", "--save-frequency", "60", "--precision", "fp32", "--aug-cfg",
        "scale=(0.9, 1.0)",
    ]  # fmt: skip
    code, printed = forked.run(EXAMPLE, flags, tmp_path / "output.txt")
    assert code == 0, printed[-3000:]
    losses = [float(x) for x in re.findall(r"Asymmetry_loss: ([\d.]+)", printed)]
    totals = [float(x) for x in re.findall(r" Loss: ([\d.]+)", printed)]
    assert losses and losses == totals  # what the trainer sums is what we gave it
    assert losses[0] > 2 and losses[-1] < 0.5 * losses[0]
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch_60.pt"
    model = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    open_clip.load_checkpoint(model, str(checkpoint), weights_only=True)
    assert torch.isfinite(model.visual.proj).all()
