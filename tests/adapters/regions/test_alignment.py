"""Every format: regions held against boxes as a whole, entries against images that want them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("tqdm", reason="extra `regions`")
pytest.importorskip("h5py", reason="extra `regions`")
import h5py

from ascl_plugin.adapters.regions.convert import convert
from ascl_plugin.adapters.regions.inputs import RegionInputs
from ascl_plugin.adapters.regions.region_files import open_regions

DIM = 7


def arrays(count=5, seed=0):
    draw = np.random.default_rng(seed)
    return draw.random((count, DIM), np.float32), draw.random((count, 4), np.float32)


def write(folder, kind, images):
    """Arrays as they come, of {id: (features, boxes)}, in one format; the path to open."""
    if kind == "npz":
        for image_id, (values, boxes) in images.items():
            np.savez(folder / f"{image_id}.npz", x=values, bbox=boxes)
        return folder
    with h5py.File(folder / "a.h5", "w") as file:
        if kind == "hdf5-images":
            for image_id, (values, boxes) in images.items():
                file[f"{image_id}_features"], file[f"{image_id}_boxes"] = values, boxes
        else:
            file["features"] = np.stack([values for values, _ in images.values()])
            file["bbox"] = np.stack([boxes for _, boxes in images.values()])
            file["image_ids"] = list(images)
    return folder / "a.h5"


KINDS = ["npz", "hdf5", "hdf5-images"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boxes_too", [False, True])
@pytest.mark.parametrize("limit", [3, 7, 36])
def test_arrays_stored_the_other_way_round(tmp_path, kind, boxes_too, limit):
    """(7, 5) beside boxes (5, 4) or (4, 5): five regions of width 7, whatever is taken of them."""
    images = {"1": arrays(seed=1), "2": arrays(seed=2)}
    turned = {k: (v.T, b.T if boxes_too else b) for k, (v, b) in images.items()}
    with pytest.warns(UserWarning, match="read the other way round") as said:
        reader = open_regions(write(tmp_path, kind, turned))
        for image_id, (values, boxes) in images.items():
            found = reader.regions(image_id, limit)
            np.testing.assert_array_equal(found.features, values[:limit])
            np.testing.assert_array_equal(found.boxes, boxes[:limit])
    assert reader.dim == DIM and len(said) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_boxes_of_different_counts(tmp_path, kind):
    """Cut to 3 both would fit."""
    values, boxes = arrays()
    path = write(tmp_path, kind, {"1": (values, boxes[:4]), "2": (values, boxes[:4])})
    with pytest.raises(ValueError, match=r"features of shape \(5, 7\), boxes of shape \(4, 4\)"):
        open_regions(path).regions("1", 3)


def test_a_tsv_whose_boxes_are_of_another_count(tmp_path, samples):
    values, boxes = arrays()
    (tmp_path / "a.tsv").write_text(samples.tsv_line("1", values, boxes[:4]))
    with pytest.raises(ValueError, match="64 bytes are no float32 rows of 5 boxes"):
        open_regions(tmp_path / "a.tsv").regions("1", 3)


def test_counts_in_an_npz(tmp_path):
    """Two of five are real; more than there are, or a count that fits the width alone: refused."""
    values, boxes = arrays()
    np.savez(tmp_path / "1.npz", x=values, bbox=boxes, num_bbox=2)
    assert open_regions(tmp_path).regions("1").features.shape == (2, DIM)
    np.savez(tmp_path / "1.npz", x=values, num_bbox=9)
    with pytest.raises(ValueError, match="9 regions are claimed"):
        open_regions(tmp_path)
    np.savez(tmp_path / "1.npz", x=values.T, num_bbox=5)
    with pytest.raises(ValueError, match=r"5 regions are claimed.*\(7, 5\)"):
        open_regions(tmp_path)


def test_many_narrow_regions_without_boxes_are_pointed_out(tmp_path):
    np.save(tmp_path / "1.npy", np.zeros((64, 9), np.float32))
    with pytest.warns(UserWarning, match="64 regions of width 9: is it stored the other way"):
        RegionInputs(tmp_path)


def test_regions_of_all_images_end_to_end(tmp_path):
    values, boxes = arrays()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image_features"], file["image_bb"] = values, boxes
    with pytest.raises(ValueError, match="are regions of all images end to end"):
        open_regions(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["image_features"], file["pos_boxes"] = values, np.array([[0, 2], [2, 5]])
    with pytest.raises(ValueError, match="end to end, as pos_boxes says"):
        open_regions(tmp_path / "b.h5")


def test_a_pickle_of_boxes_beside_features_is_no_image(tmp_path):
    (tmp_path / "a").mkdir()
    for image_id in ("1", "2"):
        np.save(tmp_path / "a" / f"{image_id}.npy", arrays()[0])
        info = np.array({"bbox": 1}, dtype=object)
        np.save(tmp_path / "a" / f"{image_id}_info.npy", info, allow_pickle=True)
    assert convert(tmp_path / "a", tmp_path / "b.h5", progress=False) == 2
    assert open_regions(tmp_path / "b.h5").ids == ["1", "2"]


# ---------------------------------------------------------------- one entry, one image


def row(image_id, path=None):
    return {"image_id": image_id, "image": None if path is None else {"path": path}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (row("p1/view1.jpg", "/d/p1/view1.jpg"), row("p2/view1.jpg", "/d/p2/view1.jpg")),
        (row("x", "/d/view1.jpg"), row("y", "/d/view1.png")),
        (row("7"), row("007")),
        (row("7.jpg"), row("COCO_val2014_000000000007.jpg")),
    ],
)
def test_two_images_with_one_entry(tmp_path, kind, one, other):
    """In one split, in two that are prepared one after the other, and in a batch of a stream."""
    images = {"view1": arrays(), "7": arrays()}
    path = write(tmp_path, kind, images)
    named = f"images {one['image_id']!r} and {other['image_id']!r} are both entry"
    with pytest.raises(ValueError, match=named):
        RegionInputs(path).prepare([one, other], 2)
    inputs = RegionInputs(path)
    inputs.prepare([one], 2)
    inputs.prepare([one], 2)  # the same image again
    with pytest.raises(ValueError, match=named):
        inputs.prepare([other], 2)
    with pytest.raises(ValueError, match=named):
        RegionInputs(path)([one, other])


@pytest.mark.parametrize("kind", KINDS)
def test_two_pictures_of_one_id(tmp_path, kind):
    """Of two splits, or of two shards of a stream."""
    path = write(tmp_path, kind, {"0": arrays(), "1": arrays()})
    inputs = RegionInputs(path)
    inputs.prepare([row("0", "/d/train/0.jpg")], 2)
    with pytest.raises(ValueError, match=r"images '/d/train/0.jpg' and '/d/val/0.jpg' are both en"):
        inputs.prepare([row("0", "/d/val/0.jpg")], 2)


def test_an_id_that_is_another_images_name(tmp_path):
    """Numbers counted through, beside features named by COCO's ids."""
    path = write(tmp_path, "npz", {"9": arrays(), "391895": arrays()})
    with pytest.raises(ValueError, match="is entry '9' by its id and '391895' by its file name"):
        RegionInputs(path).prepare([row("9", "/d/COCO_val2014_000000391895.jpg")], 2)


@pytest.mark.parametrize("ids", [np.array([1.0, 2.0]), np.array([1, 2])])
def test_ids_of_hdf5_that_became_floats(tmp_path, ids):
    path = write(tmp_path, "hdf5", {"1": arrays(), "2": arrays()})
    with h5py.File(path, "a") as file:
        del file["image_ids"]
        file["image_ids"] = ids
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_regions(path).ids == ["1", "2"]
    with h5py.File(path, "a") as file:
        del file["image_ids"]
        file["image_ids"] = np.array([1.0, np.nan])
    with pytest.raises(ValueError, match=r"image_ids\[1\]: the id is missing"):
        open_regions(path)
