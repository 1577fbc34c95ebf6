"""Folders that `datasets` reads: files elsewhere, programs and odd formats are refused by name."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("datasets")
import datasets
from PIL import Image

from ascl_plugin.data.readers import read


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Tables read in a test are not left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def table(path, caption):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": ["a.png"], "caption": [caption], "image_id": ["1"]}
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return path


@pytest.mark.parametrize("spelled", ["absolute", "relative"])
def test_a_readme_names_no_file_outside_the_folder(tmp_path, spelled):
    secret = table(tmp_path / "private" / "x.parquet", "secret")
    root = table(tmp_path / "data" / "train.parquet", "own").parent
    named = str(secret) if spelled == "absolute" else "../private/x.parquet"
    head = "---\nconfigs:\n- config_name: default\n  data_files: {}\n---\n"
    (root / "README.md").write_text(head.format(named))
    with pytest.raises(ValueError, match=r"data cannot be read: README\.md names .*x\.parquet"):
        read(root)
    (root / "README.md").write_text(head.format("train.parquet"))
    assert read(root)["train"]["captions"][:] == [["own"]]


@pytest.mark.parametrize("name", ["data.py", "train.lance", "train.eval", "train.arrow"])
def test_what_cannot_be_read_is_an_error_of_the_folder(tmp_path, name):
    """A program is not run, and each library's own error becomes one."""
    root = tmp_path / "data"
    root.mkdir()
    (root / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="data cannot be read: "):
        read(root)
    assert not (tmp_path / "ran").exists()


def test_a_nul_in_a_path_is_named(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "b.png")
    line = {"file_name": "a\0b.png", "caption": "c"}
    (folder / "metadata.jsonl").write_text(json.dumps(line))
    with pytest.raises(ValueError, match=r"split train: path .*a\\x00b\.png' has a NUL in it"):
        read(tmp_path)
