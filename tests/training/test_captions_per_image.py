"""Whole runs with several captions an image and with mirrored views; what cannot be combined."""

from __future__ import annotations

import json
import runpy
from functools import wraps

import pytest
import torch
from torch import nn

pytest.importorskip("accelerate", reason="extra `recipes`")
import processes_ranks as program
from accelerate import Accelerator

from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs
from ascl_plugin.retrieval.views import MirroredRows
from ascl_plugin.training.models import check_targets
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve

SEVERAL = [
    "--loss=processes_ranks:SeveralCaptions", "--captions_per_image=3", "--captions_per_epoch=3",
    "--mirror_views=True", "--average_views=True", "--gradient_accumulation_steps=1",
]  # fmt: skip


@pytest.mark.recipe
def test_a_run_with_all_of_it(tmp_path, monkeypatch):
    """Two epochs of a pass of 16 images, two batches of seven: three texts an image, in the second
    epoch with positives and negatives; val and test are scored with both views.
    """
    monkeypatch.setattr(Accelerator, "end_training", lambda self: None)
    main = runpy.run_path(str(program.RECIPE))["main"]
    encoded, plain = [], Evaluator.encode_images
    monkeypatch.setattr(
        Evaluator, "encode_images", lambda self, rows: encoded.append(rows) or plain(self, rows)
    )
    seen, loss = [], program.SeveralCaptions.forward

    @wraps(loss)
    def recorded(self, sim, **others):
        blocks = {"sim": sim, **others}
        seen.append({name: tuple(block.shape) for name, block in blocks.items()})
        return loss(self, **blocks)

    monkeypatch.setattr(program.SeveralCaptions, "forward", recorded)
    assert main([*program.OPTIONS, *SEVERAL, f"--output_dir={tmp_path / 'a'}"]) == 0
    captions = {"sim": (7, 21), "targets": (21,)}
    generated = {n: (7, 21) for n in ("negative_sim", "positive_sim", "positive_negative_sim")}
    assert seen == [captions] * 2 + [captions | generated] * 2
    mirrored = [isinstance(rows, MirroredRows) for rows in encoded]
    assert mirrored[:4] == [False, True] * 2
    # the blind scores of val and test are of the mean of first views
    assert mirrored.count(False) == mirrored.count(True) + 2
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["best"]["step"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--captions_per_image=2", "--cached_chunk=8"], "captions_per_image.*cached_chunk"),
        (
            ["--captions_per_image=2", "--train_stream=x", "--max_steps=1"],
            "captions_per_image.*train_stream",
        ),
        (["--mirror_views=True", "--region_files=x.npy"], "mirror_views.*region_files"),
        (["--average_views=True", "--region_files=x.npy"], "average_views.*region_files"),
    ],
)
def test_combinations_that_are_refused(options, message):
    with pytest.raises(ValueError, match=f"--{message}"):
        resolve(parse_options(options))


def test_a_loss_that_knows_pairs_alone_is_refused():
    class Diagonal(nn.Module):
        def forward(self, sim, negative_sim=None):
            return sim.diagonal().mean()

    check_targets(Diagonal(), 1)
    check_targets(program.SeveralCaptions(), 5)
    with pytest.raises(ValueError, match="is 5, but Diagonal takes no `targets`"):
        check_targets(Diagonal(), 5)


def test_scores_of_both_views_are_averaged(tmp_path):
    """S and pairs are the means of those of the picture and of its mirror image."""
    from ascl_plugin.data import scenes
    from ascl_plugin.retrieval.inputs import TextInputs

    rows = scenes.make("val", 4, 0)
    texts = [row["captions"][0] for row in rows]
    model = program.make({"num_heads": 2}).eval()
    images, words = ImageInputs(model.image_encoder), TextInputs(model.text_encoder)
    both = Evaluator(model, images, words, average_views=True)
    one = Evaluator(model, images, words)
    mirrored = [{**row, "mirrored": True} for row in rows]
    first, second = one.score(rows, texts), one.score(mirrored, texts)
    assert (first - second).abs().max() > 1e-4
    with torch.no_grad():
        torch.testing.assert_close(both.score(rows, texts), (first + second) / 2)
        pairs = both.pairs(rows, texts)
    torch.testing.assert_close(pairs, ((first + second) / 2).diagonal(), atol=1e-5, rtol=0)
