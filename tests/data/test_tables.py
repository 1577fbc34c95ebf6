"""Tables and folders that `datasets` reads; files elsewhere, programs, odd formats are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("datasets")
import datasets

from ascl_plugin.data import tables
from ascl_plugin.data.readers import ROW, read, read_table


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Tables read in a test are not left in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def table(path: Path, columns: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns).to_parquet(path)
    return path


def test_imagefolder_with_metadata(tmp_path, png):
    for split in ("train", "test"):
        (tmp_path / "d" / split).mkdir(parents=True)
        for n in range(2):
            (tmp_path / "d" / split / f"{n}.png").write_bytes(png(n))
        lines = [{"file_name": f"{n}.png", "captions": ["a", "b", "c"][: n + 1]} for n in range(2)]
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / "d" / split / "metadata.jsonl").write_text(text)
    splits = read(tmp_path / "d")
    assert list(splits) == ["train", "test"]
    assert splits["test"].features == ROW
    assert splits["test"][1] == {
        "image_id": "test/1.png",
        "image": {"bytes": None, "path": str(tmp_path / "d" / "test" / "1.png")},
        "captions": ["a", "b"],
        "caption_ids": ["test/1.png#0", "test/1.png#1"],
        "split": "test",
    }


def test_flat_rows_are_grouped_by_image_id_with_embedded_bytes(tmp_path, png):
    """Rows a b a c: each image once, in the order of its first row."""
    cells = [{"bytes": png(n), "path": None} for n in (0, 1, 0, 3)]
    table(
        tmp_path / "d" / "validation.parquet",
        {"jpg": cells, "caption": list("xyzw"), "img_id": list("abac"), "sentid": [5, 6, 7, 8]},
    )
    rows = read(tmp_path / "d")["val"]
    assert rows["image_id"][:] == ["a", "b", "c"]
    assert rows["captions"][:] == [["x", "z"], ["y"], ["w"]]
    assert rows["caption_ids"][:] == [["5", "7"], ["6"], ["8"]]
    assert [c["bytes"] for c in rows["image"]] == [png(0), png(1), png(3)]


def test_embedded_images_without_id_are_never_grouped(tmp_path, png):
    """Both were called image.jpg once; that makes them no one image."""
    cells = [{"bytes": png(n), "path": "image.jpg"} for n in range(2)]
    path = table(tmp_path / "x.parquet", {"image": cells, "text": ["x", "y"]})
    rows = read(path)["train"]
    assert rows["captions"][:] == [["x"], ["y"]]
    assert rows["image_id"][:] == ["train-0", "train-1"]


def test_a_split_column_decides(tmp_path, png):
    """As hub copies of Flickr30K have it: one file, the split in a column, restval too."""
    path = table(
        tmp_path / "d" / "test.parquet",
        {
            "image": [{"bytes": png(0), "path": None}] * 4,
            "caption": [["a"], ["b", "c"], ["d"], ["e"]],
            "sentids": [["0"], ["1", "2"], ["3"], ["4"]],
            "split": ["test", "train", "restval", "train"],
            "filename": ["1", "2", "3", "4"],
        },
    )
    splits = read_table(path.parent)
    assert splits["train"]["image_id"][:] == ["2", "4", "3"]
    assert set(splits["train"]["split"][:]) == {"train"}
    assert splits["test"]["image_id"][:] == ["1"]
    assert splits["train"]["caption_ids"][:] == [["1", "2"], ["4"], ["3"]]


def test_paths_in_a_table_start_at_its_folder(tmp_path):
    where = tmp_path / "pictures" / "a.png"
    path = table(tmp_path / "x.parquet", {"image": ["pictures/a.png"], "captions": [["x"]]})
    assert read(path)["train"][0]["image"] == {"path": str(where), "bytes": None}
    path = table(tmp_path / "y.parquet", {"image": ["../a.png"], "captions": [["x"]]})
    with pytest.raises(ValueError, match=r"y.parquet, split train: row 0: path '../a.png' leaves"):
        read(path)


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"photo": ["a"], "caption": ["x"]}, KeyError, "no column for images; it has photo"),
        ({"image": ["a"], "words": ["x"]}, KeyError, "no column for captions; it has image, words"),
        ({"image": ["a"], "caption": [" "]}, ValueError, "image .*: caption 0 is empty"),
        ({"image": ["a", "b"], "captions": [["x"], []]}, ValueError, "has no captions"),
        ({"image": ["a", "b"], "captions": [["x"]] * 2, "id": [1, 1]}, ValueError, "'1' occurs"),
        ({"image": ["a"], "caption": ["x"], "split": ["foo"]}, ValueError, "unknown split 'foo'"),
    ],
)  # fmt: skip
def test_table_faults(tmp_path, columns, error, words):
    with pytest.raises(error, match=words):
        read(table(tmp_path / "x.parquet", columns))


def test_nothing_to_read(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: neither a folder or Parquet file"):
        read(tmp_path / "empty")

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub")

    monkeypatch.setattr(tables.datasets, "load_dataset_builder", unreachable)
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing: neither .*Couldn't reach"):
        read("nobody/nothing")


def test_damaged_parquet(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(ValueError, match=r"x.parquet cannot be read: .*Parquet magic bytes"):
        read(tmp_path / "x.parquet")


def one(caption):
    return {"image": ["a.png"], "caption": [caption], "image_id": ["1"]}


@pytest.mark.parametrize("spelled", ["absolute", "relative"])
def test_a_readme_names_no_file_outside_the_folder(tmp_path, spelled):
    secret = table(tmp_path / "private" / "x.parquet", one("secret"))
    root = table(tmp_path / "data" / "train.parquet", one("own")).parent
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


def test_a_nul_in_a_path_is_named(tmp_path, png):
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "b.png").write_bytes(png(0))
    line = {"file_name": "a\0b.png", "caption": "c"}
    (folder / "metadata.jsonl").write_text(json.dumps(line))
    with pytest.raises(ValueError, match=r"path .*a\\x00b\.png' has a NUL in it"):
        read(tmp_path)


def test_columns_that_are_numbered(tmp_path, png):
    cells = [{"bytes": png(n), "path": None} for n in range(2)]
    columns = {f"caption_{k}": [f"{k} of 0", None if k else "0 of 1"] for k in range(11)}
    table(tmp_path / "d" / "train.parquet", {"image": cells, **columns})
    rows = read(tmp_path / "d")["train"]
    assert rows["captions"][:] == [[f"{k} of 0" for k in range(11)], ["0 of 1"]]


def test_pictures_alone_are_sent_to_what_takes_them(tmp_path, png):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(0))
    with pytest.raises(KeyError, match=r"no column for captions.*ascl demo MODEL --image_root DIR"):
        read(tmp_path)
