"""Score matrices in a file: an interrupted run continues, other inputs are refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, LateInteraction
from ascl_plugin.scoring.matrix import score_matrix


class Killed(LateInteraction):
    """Dies at a call; `calls` and `killed_at` do not belong to what it scores."""

    def __init__(self, at=None):
        super().__init__()
        self._at, self._pairs = at, 0

    def forward(self, images, texts):
        if self._at == 0:
            raise KeyboardInterrupt
        if self._at is not None:
            self._at -= 1
        self._pairs += len(images) * len(texts)
        return super().forward(images, texts)


@pytest.mark.parametrize("tile", [(2, 4), (5, 3)])
def test_a_run_continues_with_what_is_missing_and_then_is_read(features, tmp_path, tile):
    """Also in other blocks than it began with; in the same, nothing is scored twice."""
    v, w = features(6, 8)
    path = tmp_path / "deep" / "sims.npy"
    whole = LateInteraction()(v, w)
    with pytest.raises(KeyboardInterrupt):
        score_matrix(Killed(3), v, w, (2, 4), path=path)
    part = np.load(path.with_name("sims.npy.part"), mmap_mode="r")
    before = int(np.isfinite(part).sum())
    assert 0 < before <= 24 and not path.exists()

    again = Killed()
    found = score_matrix(again, v, w, tile, path=path)
    if tile == (2, 4):
        assert again._pairs == 48 - before
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)
    assert sorted(p.name for p in path.parent.iterdir()) == ["sims.npy", "sims.npy.json"]
    written = np.load(path)
    assert written.dtype == np.float32 and np.array_equal(written, found.numpy())

    found[0, 0] = 99  # the caller's copy
    read = score_matrix(Killed(0), v, w, path=path)
    assert read[0, 0] == written[0, 0]


def test_a_process_that_is_killed_leaves_what_it_had(tmp_path):
    """No handler runs, nothing is closed. A function is known by its name."""
    v = ImageFeatures(torch.arange(4.0)[:, None, None])
    w = TextFeatures(torch.arange(6.0)[:, None, None])
    calls = []

    def scorer(v, w):
        calls.append(0)
        if len(calls) == 3:
            os._exit(9)
        return v.regions[:, 0, :1] + 100 * w.words[:, 0, :1].T

    child = os.fork()
    if not child:
        try:
            score_matrix(scorer, v, w, (2, 3), path=tmp_path / "sims.npy")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    sim = score_matrix(scorer, v, w, (2, 3), path=tmp_path / "sims.npy")
    assert len(calls) == 2 and sim[3, 5] == 503


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("finished", [False, True])
def test_scores_of_other_inputs_are_refused(features, tmp_path, finished):
    head, (v, w) = CrossModalFusion(4, 2), features(6, 8)
    path = tmp_path / "sims.npy"
    if finished:
        score_matrix(head, v, w, path=path)
    else:
        head.forward = stop
        with pytest.raises(KeyboardInterrupt):
            score_matrix(head, v, w, path=path)
        del head.forward
    before = sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())

    def refused(message, *inputs, **options):
        with pytest.raises(ValueError, match=message):
            score_matrix(*inputs, path=path, **options)
        assert before == sorted((p.name, p.read_bytes()) for p in tmp_path.iterdir())

    name = r"sims\.npy" if finished else r"sims\.npy\.part"
    refused(rf"{name} holds scores of shape \[6, 8\], not \[5, 8\]; delete it", head, v[:5], w)
    regions = v.regions.clone()
    regions[5, 2, 3] += 1e-6
    refused("of other images", head, ImageFeatures(regions, None, v.pooled), w)
    mask = w.mask.clone()
    mask[7] = ~mask[7]
    refused("of other texts", head, v, TextFeatures(w.words, mask))
    other = CrossModalFusion(4, 2)
    other.load_state_dict(head.state_dict())
    with torch.no_grad():
        other.gate.bias[0] += 1
    refused("of another scorer", other, v, w)
    refused("of another scorer", CrossModalFusion(4, 2, local_weight=0.5), v, w)
    refused("of another scorer", LateInteraction(), v, w)
    assert score_matrix(head.eval(), v, w, path=path).shape == (6, 8)  # the mode is no option


def test_unknown_and_damaged_files_are_refused(features, tmp_path):
    head, (v, w) = LateInteraction(), features(6, 8)
    path = tmp_path / "sims.npy"
    score_matrix(head, v, w, path=path)
    record = tmp_path / "sims.npy.json"
    text = record.read_text()

    def refused(message):
        with pytest.raises(ValueError, match=message):
            score_matrix(head, v, w, path=path)

    record.unlink()
    refused("without sims.npy.json, so its inputs are unknown")
    record.write_text("{")
    refused("damaged; delete both")
    record.write_text("[]")
    refused("damaged; delete both")
    record.write_text(text)
    np.save(path, np.zeros((2, 2), np.float32))
    refused(r"damaged: shape \[2, 2\], its record says \[6, 8\]")
    path.write_bytes(path.read_bytes()[:100])
    refused("damaged; delete both")


def test_other_files_and_nothing_to_score_are_refused(features, tmp_path):
    v, w = features(6, 8)
    with pytest.raises(ValueError, match=r"sims.npz: scores are written as .npy"):
        score_matrix(LateInteraction(), v, w, path=tmp_path / "sims.npz")
    with pytest.raises(ValueError, match=r"nothing to score, \(images, texts\) is \[0, 8\]"):
        score_matrix(LateInteraction(), v[:0], w, path=tmp_path / "sims.npy")
    assert not list(tmp_path.iterdir())
