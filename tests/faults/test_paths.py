"""Inputs made to hurt: paths and links that lead out of the data root."""

from __future__ import annotations

import json

import datasets
import h5py
import pytest
from valid_files import karpathy, picture

from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.data.contests import read_contests
from ascl_plugin.data.readers import read, read_table


def test_a_link_out_of_the_data_root_is_refused(tmp_path):
    root, secret = tmp_path / "data", picture(tmp_path / "private" / "a.png")
    karpathy(root)
    (root / "images").mkdir()
    (root / "images" / "a.png").symlink_to(secret)
    with pytest.raises(ValueError, match=r"images\[0\]: path 'a.png' leaves .* by a link"):
        read(root)
    (root / "add_obj.json").write_text(
        json.dumps({"0": {"filename": "a.png", "caption": "a", "negative_caption": "b"}})
    )
    with pytest.raises(ValueError, match=r"entry '0': path 'a.png' leaves .* by a link"):
        read_contests(root / "add_obj.json", "sugarcrepe")
    karpathy(root, ("sub/a.png",))
    (root / "images" / "sub").symlink_to(secret.parent)
    with pytest.raises(ValueError, match="leaves"):
        read(root)
    karpathy(root, filepath="mine")
    (root / "mine").symlink_to(secret.parent)
    with pytest.raises(ValueError, match="'mine' leaves"):
        read(root)


def test_a_path_of_endless_length_is_refused_without_repeating_it(tmp_path):
    for field in ("filename", "filepath"):
        karpathy(tmp_path, **{field: "deep/" * 1000})
        with pytest.raises(ValueError, match="a path has 5000 characters, 1000 at most") as caught:
            read(tmp_path)
        assert "dataset_x.json" in str(caught.value) and len(str(caught.value)) < 500
    karpathy(tmp_path, filepath="a" * 300)  # which no file system has
    with pytest.raises(FileNotFoundError, match="not found in"):
        read(tmp_path)


def test_a_link_within_the_data_root_and_a_linked_folder_of_images_are_followed(tmp_path):
    picture(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "elsewhere" / "a.png").symlink_to("b.png")
    root = karpathy(tmp_path / "data")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    assert read(root)["train"][0]["image"]["path"] == str(root / "images" / "a.png")
    karpathy(root, filepath="val2014")
    (root / "images").unlink()
    (root / "val2014").symlink_to(tmp_path / "elsewhere")
    assert read(root)["train"][0]["image"]["path"] == str(root / "val2014" / "a.png")


def test_coco_json_and_2017_folders_follow_no_link_out(tmp_path):
    secret = picture(tmp_path / "private" / "a.jpg")
    root = tmp_path / "data"
    for folder in ("val2017", "annotations"):
        (root / folder).mkdir(parents=True)
    (root / "val2017" / "000000000007.jpg").symlink_to(secret)
    karpathy(root, ("COCO_val2014_7.jpg",), cocoid=7, filepath="val2014")
    with pytest.raises(ValueError, match=r"leaves .* by a link"):
        read(root)
    (root / "dataset_x.json").unlink()
    content = {
        "images": [{"id": 7, "file_name": "000000000007.jpg"}],
        "annotations": [{"image_id": 7, "caption": "a"}],
    }
    (root / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"leaves .* by a link"):
        read(root)


@pytest.mark.parametrize("kind", ["absolute", "link", "relative"])
def test_a_table_names_no_file_outside_its_folder(tmp_path, kind, monkeypatch):
    secret = picture(tmp_path / "private" / "a.png")
    root = tmp_path / "data"
    root.mkdir()
    (root / "link.png").symlink_to(secret)
    monkeypatch.chdir(tmp_path)
    path = {"absolute": str(secret), "link": str(root / "link.png"), "relative": "private/a.png"}
    columns = {"image": [{"path": path[kind], "bytes": None}], "caption": ["a"], "image_id": ["1"]}
    features = datasets.Features(
        {
            "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "caption": datasets.Value("string"),
            "image_id": datasets.Value("string"),
        }
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(root / "a.parquet")
    with pytest.raises(ValueError, match=r"leaves the data root, to .*private/a\.png"):
        read_table(root / "a.parquet")


def test_hdf5_reads_no_other_file(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(96)))
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        outside = [(str(tmp_path / "secret"), 0, 96)]
        file.create_dataset("features", (3, 2, 4), "f4", external=outside)
    with pytest.raises(ValueError, match=r"raw\.h5: features: its numbers lie in another file"):
        open_regions(tmp_path / "raw.h5")
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file.create_dataset("a", (2, 4), "f4", external=[(str(tmp_path / "secret"), 0, 32)])
    with pytest.raises(ValueError, match=r"one\.h5: image 'a': its numbers lie in another file"):
        open_regions(tmp_path / "one.h5")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["features"] = h5py.ExternalLink(str(tmp_path / "raw.h5"), "features")
    with pytest.raises(ValueError, match=r"link\.h5: 'features' is a link to another file"):
        open_regions(tmp_path / "link.h5")
    layout = h5py.VirtualLayout((3, 2, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "raw.h5"), "features", (3, 2, 4))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("features", layout)
    with pytest.raises(ValueError, match=r"virtual\.h5: features: its numbers lie in another"):
        open_regions(tmp_path / "virtual.h5")
