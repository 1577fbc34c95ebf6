"""What goes to a hub, held against a hub that is not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("huggingface_hub", reason="extra `recipes`")
from huggingface_hub import hub_mixin

from ascl_plugin import RetrievalModel


@pytest.fixture
def hub(monkeypatch):
    """{name of a repository: {file: bytes}} that `push_to_hub` fills."""
    pushed = {}

    class Api:
        def __init__(self, **options):
            pass

        def create_repo(self, repo_id, **options):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, repo_id, folder_path, **options):
            pushed[repo_id] = {f.name: f.read_bytes() for f in Path(folder_path).iterdir()}

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    return pushed


def test_a_model_is_pushed_with_the_card_of_its_run_until_it_is_trained_on(hub, tmp_path):
    """Weights, options and the card with its figures; other weights have other figures."""
    torch.manual_seed(0)
    text = {"name": "transformer", "vocabulary": ["a"], "width": 16, "num_heads": 2}
    model = RetrievalModel({"name": "grid", "width": 16}, text, {"name": "late"}, 8)
    best = tmp_path / "run" / "best"
    model.save_pretrained(best)
    (best / "README.md").write_text("Rsum 300.0")
    loaded = RetrievalModel.from_pretrained(tmp_path / "run")
    loaded.push_to_hub("me/mine")
    assert set(hub["me/mine"]) == {"README.md", "config.json", "model.safetensors"}
    assert hub["me/mine"]["README.md"] == b"Rsum 300.0"
    for name, data in hub["me/mine"].items():
        assert data == (best / name).read_bytes()
    with torch.no_grad():
        next(loaded.parameters()).add_(1)
    loaded.push_to_hub("me/tuned")
    assert b"300.0" not in hub["me/tuned"]["README.md"]
    assert hub["me/tuned"]["model.safetensors"] != hub["me/mine"]["model.safetensors"]
