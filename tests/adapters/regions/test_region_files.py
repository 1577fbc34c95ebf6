"""Region features as people have them: each format read back, and damaged files named."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
import torch

pytest.importorskip("tqdm", reason="extra `regions`")

from ascl_plugin.adapters.regions import tsv as region_tsv
from ascl_plugin.adapters.regions.inputs import RegionInputs
from ascl_plugin.adapters.regions.npy import save_record
from ascl_plugin.adapters.regions.reader import RegionRecord, normal_id
from ascl_plugin.adapters.regions.region_files import SeveralFiles, open_regions

IDS = ["139", "COCO_val2014_000000000285.jpg", "a b", "9" * 12]
COUNTS = [3, 5, 1, 5]
WITH_BOXES = ["tsv", "lxmert", "hdf5", "hdf5-images", "folder"]


def write(samples, kind, folder, images):
    """The images in a format; what to open."""
    if kind in ("hdf5", "hdf5-images"):
        pytest.importorskip("h5py", reason="extra `regions`")
    path = folder / {"tsv": "a.tsv", "lxmert": "a.tsv", "hdf5": "a.h5", "hdf5-images": "a.hdf5",
                     "folder": "a", "scan": "a"}[kind]  # fmt: skip
    if kind in ("tsv", "lxmert"):
        samples.write_tsv(path, images, lxmert=kind == "lxmert")
    elif kind == "scan":
        samples.write_scan(path, "train", images)
    else:
        getattr(samples, f"write_{kind.replace('-', '_')}")(path, images)
    return path


def same(reader, images):
    assert sorted(reader.ids) == sorted(images) and len(reader) == len(images)
    for image_id, (values, boxes) in images.items():
        found = reader.regions(image_id)
        assert found.features.dtype == values.dtype and reader.dim == values.shape[1]
        np.testing.assert_array_equal(found.features, values)
        if boxes is None:
            assert found.boxes is None
        else:
            np.testing.assert_array_equal(found.boxes, boxes)
        short = reader.regions(image_id, limit=2)
        np.testing.assert_array_equal(short.features, values[:2])
        assert boxes is None or len(short.boxes) == min(2, len(values))


PLAIN = [(kind, False) for kind in ("hdf5-images", "folder", "scan")]


@pytest.mark.parametrize(("kind", "boxes"), [*((kind, True) for kind in WITH_BOXES), *PLAIN])
def test_each_format_is_read(samples, tmp_path, kind, boxes):
    images = samples.features(IDS, COUNTS if boxes else [4] * 4, boxes=boxes)
    reader = open_regions(write(samples, kind, tmp_path, images))
    assert reader.has_boxes is boxes
    same(reader, images)


@pytest.mark.parametrize("kind", [*WITH_BOXES, "scan"])
def test_a_reader_works_in_another_process(samples, tmp_path, kind):
    images = samples.features(IDS, [2] * 4, boxes=kind != "scan")
    reader = open_regions(write(samples, kind, tmp_path, images))
    same(reader, images)  # whatever it opens is open
    same(pickle.loads(pickle.dumps(reader)), images)
    # fork, and read at both ends
    loader = torch.utils.data.DataLoader(list(images), num_workers=1, collate_fn=lambda b: b)
    inputs = [{"image_id": i, "image": None} for (i,) in loader]
    made = RegionInputs(reader.path)
    made.regions = reader
    forked = torch.utils.data.DataLoader(inputs, 2, num_workers=2, collate_fn=made)
    for _ in range(2):
        regions = torch.cat([batch["regions"] for batch in forked])
        np.testing.assert_array_equal(regions, np.stack([v for v, _ in images.values()]))
        same(reader, images)


def test_ids_are_found_in_any_of_cocos_spellings(samples, tmp_path):
    reader = open_regions(write(samples, "tsv", tmp_path, samples.features(IDS, COUNTS)))
    for spelling in ("285", "000000000285", "COCO_train2014_000000000285", "000000000285.jpg"):
        assert spelling in reader
        assert len(reader.regions(spelling).features) == 5
    assert normal_id("1000268201_693b08cb0e.jpg") == "1000268201_693b08cb0e"
    assert normal_id("train-007") == "train-007"
    with pytest.raises(KeyError, match=r"a\.tsv: no features of image '286'"):
        reader.regions("286")
    twice = samples.features(["139", "COCO_val2014_000000000139.jpg"], [1, 1])
    with pytest.raises(ValueError, match="two entries for one image, '139' and 'COCO_val2014"):
        open_regions(write(samples, "tsv", tmp_path, twice))


@pytest.mark.parametrize("suffix", ["tsv", "h5", "hdf5"])
def test_images_spread_over_many_files(samples, tmp_path, suffix):
    """As by the last digit of an id, or by the GPU that made them; the rule does not matter."""
    images = samples.features([str(i) for i in range(30, 41)], range(1, 12))
    for digit in range(3):
        part = {k: v for k, v in images.items() if int(k) % 3 == digit}
        name = {"tsv": f"x.tsv.{digit}", "h5": f"x{digit}.h5", "hdf5": f"x_{digit}.hdf5"}[suffix]
        if suffix == "tsv":
            samples.write_tsv(tmp_path / name, part)
        else:
            pytest.importorskip("h5py", reason="extra `regions`")
            writer = samples.write_hdf5 if suffix == "h5" else samples.write_hdf5_images
            writer(tmp_path / name, part)
    reader = open_regions(tmp_path)
    assert isinstance(reader, SeveralFiles)
    same(reader, images)
    assert "x" in reader.where(3) and "'31'" in reader.where(reader.ids.index("31"))
    if suffix == "tsv":
        samples.write_tsv(tmp_path / "x.tsv.7", samples.features(["31"], [1]))
        with pytest.raises(ValueError, match="two entries for one image, '31' and '31'"):
            open_regions(tmp_path)
        samples.write_tsv(tmp_path / "x.tsv.7", samples.features(["99"], [1], dim=5))
        with pytest.raises(ValueError, match=r"x\.tsv\.7: features of float32, width 5"):
            open_regions(tmp_path)


def test_scan_rows_come_once_or_five_times(samples, tmp_path):
    images = samples.features(list("abcd"), [3] * 4, boxes=False)
    for repeat in (1, 5):
        folder = tmp_path / str(repeat)
        samples.write_scan(folder, "dev", images, repeat=repeat)
        same(open_regions(folder), images)
        same(open_regions(folder / "dev_ims.npy"), images)
    # one caption an image is as many rows as captions, and no repetition
    many = samples.features([str(i) for i in range(10)], [3] * 10, boxes=False)
    samples.write_scan(tmp_path / "one", "dev", many, captions=1)
    same(open_regions(tmp_path / "one"), many)
    # ids a line a caption
    (folder / "dev_ids.txt").write_text("".join(f"{i}\n" * 5 for i in images))
    same(open_regions(folder), images)
    # ids of captions name no image
    (folder / "dev_ids.txt").write_text("".join(f"{i}\n" for i in range(20)))
    with pytest.warns(UserWarning, match="names captions"):
        assert open_regions(folder).ids == ["dev-0", "dev-1", "dev-2", "dev-3"]
    (folder / "dev_caps.txt").write_text("one\n" * 3)
    with pytest.raises(ValueError, match="3 captions for"):
        open_regions(folder)


def test_scan_folders_hold_splits_and_testall_comes_before_test(samples, tmp_path):
    every = samples.features(list("abcdef"), [2] * 6, boxes=False)
    parts = {"train": "ab", "dev": "cd", "test": "e", "testall": "ef"}
    for name, ids in parts.items():
        samples.write_scan(tmp_path, name, {i: every[i] for i in ids}, ids=name != "dev")
    reader = open_regions(tmp_path)
    assert sorted(reader.ids) == ["a", "b", "dev-0", "dev-1", "e", "f"]
    np.testing.assert_array_equal(reader.regions("f").features, every["f"][0])


def test_one_vector_an_image_is_one_region(samples, tmp_path):
    """As whole-image features come."""
    h5py = pytest.importorskip("h5py", reason="extra `regions`")
    vectors = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float16)
    np.save(tmp_path / "x_ims.npy", vectors)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = vectors
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["x-1"] = vectors[1]
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / "x-1.npy", vectors[1])
    for name in ("x_ims.npy", "x.h5", "y.h5", "f"):
        found = open_regions(tmp_path / name).regions("x-1")
        np.testing.assert_array_equal(found.features, vectors[1:2])


def test_inputs_pad_mask_and_average(samples, tmp_path):
    images = samples.features(["1", "2", "3"], [2, 5, 3])
    path = write(samples, "tsv", tmp_path, images)
    rows = [
        {"image_id": "x", "image": {"path": "images/COCO_val2014_000000000001.jpg"}},
        {"image_id": "2", "image": None},
        {"image_id": "0003", "image": None},
    ]
    inputs = RegionInputs(path, num_regions=4)
    batch = inputs(rows)
    assert batch["regions"].shape == (3, 4, 6) and inputs.region_dim == inputs.pooled_dim == 6
    assert batch["region_mask"].sum(1).tolist() == [2, 4, 3]
    for row, (values, _) in enumerate(images.values()):
        taken = torch.from_numpy(values[:4])
        torch.testing.assert_close(batch["regions"][row, : len(taken)], taken)
        torch.testing.assert_close(batch["pooled"][row], taken.mean(0))
    assert (batch["regions"][~batch["region_mask"]] == 0).all()
    assert "region_mask" not in RegionInputs(path, num_regions=2)(rows)
    wide = write(samples, "folder", tmp_path, samples.features(["1", "2", "3"], [1] * 3, dim=9))
    both = RegionInputs(path, wide, 4)
    assert both.pooled_dim == 9 and both(rows)["pooled"].shape == (3, 9)
    both.prepare(rows, 2)
    with pytest.raises(KeyError, match=r"no features of image '7', and of 1 more of 3"):
        both.prepare([*rows[:1], *({"image_id": i, "image": None} for i in "78")], 2)


# what is wrong is said, with file and image


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_regions(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="no region features"):
        open_regions(tmp_path)
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match=r"expected \.npy"):
        open_regions(tmp_path / "x.txt")


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("kind", [*WITH_BOXES, "scan"])
def test_a_file_cut_short_is_named(samples, tmp_path, kind):
    images = samples.features(IDS, [4] * 4, dim=600, boxes=kind != "scan")
    path = write(samples, kind, tmp_path, images)
    broken = path / "train_ims.npy" if kind == "scan" else path
    if kind == "folder":
        broken = path / f"{IDS[1]}.npz"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size * 7 // 10])
    with pytest.raises((ValueError, KeyError)) as caught:
        reader = open_regions(path)
        for image_id in IDS:
            reader.regions(image_id)
    assert broken.name.removesuffix(".npz") in str(caught.value)


@pytest.mark.parametrize("kind", [*WITH_BOXES, "scan"])
def test_features_that_are_not_finite_are_named(samples, tmp_path, kind):
    images = samples.features(IDS, [4] * 4, boxes=kind != "scan")
    images[IDS[2]][0][1, 3] = np.nan
    reader = open_regions(write(samples, kind, tmp_path, images))
    reader.regions(IDS[1])
    with pytest.raises(ValueError, match="'a b' has features that are not finite"):
        reader.regions(IDS[2])


@pytest.mark.parametrize("array", [np.zeros((2, 3), int), np.zeros((2, 3, 4, 5), np.float32),
                                   np.asfortranarray(np.ones((2, 3, 4)))])  # fmt: skip
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "x_ims.npy", array)
    with pytest.raises(ValueError, match=r"x_ims\.npy: (expected|column-major)"):
        open_regions(tmp_path / "x_ims.npy")


def test_hdf5_that_lies_is_named(samples, tmp_path):
    h5py = pytest.importorskip("h5py", reason="extra `regions`")
    path = tmp_path / "a.h5"
    samples.write_hdf5(path, samples.features(["1", "2"], [2, 3]))
    with h5py.File(path, "r+") as file:
        file["num_bbx"][1] = 9
    with pytest.raises(ValueError, match=r"a\.h5: image '2' claims 9 regions"):
        open_regions(path).regions("2")
    with h5py.File(path, "w") as file:  # declares what is not there
        file.create_dataset("features", (2, 10**9, 2048), "f4", chunks=(1, 36, 2048))
    with pytest.raises(ValueError, match="'a-0' has 1000000000 regions"):
        open_regions(path).regions("a-0")
    with h5py.File(path, "w") as file:
        file["1"] = np.ones((2, 3), np.float32)
        file["2"] = np.ones((2, 4), np.float32)
        file["3"] = "text"
    reader = open_regions(path)
    with pytest.raises(ValueError, match=r"a\.h5: image '2' has features of shape \(2, 4\)"):
        reader.regions("2")
    with pytest.raises(ValueError, match=r"a\.h5: image '3': expected floats"):
        reader.regions("3")
    (tmp_path / "b.h5").write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match=r"b\.h5: not HDF5"):
        open_regions(tmp_path / "b.h5")


# the TSV


def test_a_line_twice_is_one_image_unless_it_differs(samples, tmp_path):
    path = tmp_path / "a.tsv"
    images = samples.features(["1", "2", "3"], [2, 2, 2])
    lines = [samples.tsv_line(i, *both) for i, both in images.items()]
    path.write_text("".join([*lines, lines[0], "\n"]))
    same(open_regions(path), images)
    other = samples.tsv_line("1", *images["2"])
    path.write_text("".join([*lines, other]))
    with pytest.raises(ValueError, match=r"a\.tsv, line 4: image '1' a second time"):
        open_regions(path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1\t2\t3", "line 2: 3 columns, expected 6 or 10"),
        ("1\t2\t3\tx\tAAAA\tAAAA", "line 2: num_boxes is b'x'"),
        ("1\t2\t3\t0\tAAAA\tAAAA", "line 2: num_boxes is b'0'"),
        ("1\t2\t3\t999999999999\tAAAA\tAAAA", "line 2: num_boxes is b'999999999999'"),
        ("1\t2\t3\t99999\tAAAA\tAAAA", "line 2: 3 bytes are no float32 features of 99999 boxes"),
        ("1\t2\t3\t1\t\tAAA", "line 2: 0 bytes are no float32 features of 1 boxes"),
        ("1\t2\t3\t1\t\tAA AAA==", "image '1', features: not base64"),
        ("1\t2\t3\t1\t\t", "line 2: 0 bytes are no"),
        ("1\t2\t3\t1\tAAAAAA==\tAAAAAAAAAAA=", "expected (1, 6)"),
        ("\t2\t3\t1\t\tAAAAAA==", "an image id of 0 bytes"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_line_that_does_not_parse_is_named(samples, tmp_path, line, told):
    path = tmp_path / "a.tsv"
    first = samples.features(["0"], [2])["0"]
    path.write_text(samples.tsv_line("0", *first) + line + "\n")
    with pytest.raises((ValueError, KeyError)) as caught:
        open_regions(path).regions("1")
    assert told in str(caught.value) and "a.tsv" in str(caught.value)


def test_lines_that_hold_no_image_are_left_out_unless_asked_for(samples, tmp_path):
    """One cut in the middle and run into the next, one of no boxes; 2 follows whole."""
    path, images = tmp_path / "a.tsv", samples.features(["1", "2"], [2, 3])
    one, two = (samples.tsv_line(name, *both) for name, both in images.items())
    path.write_text(one[: len(one) // 2] + two + "3\t640\t480\t0\t\t\n" + two + one + two[:-30])
    told = (
        r"a\.tsv; 3 line\(s\) left out: line 1: .* columns, .*, line 2: num_boxes is b'0', .*, lin"
    )
    with pytest.warns(UserWarning, match=told):
        reader = open_regions(path)
    same(reader, {name: images[name] for name in ("2", "1")})
    with pytest.raises(KeyError, match=r"no features of image '3'; 3 line\(s\) left out: line 1"):
        reader.regions("3")
    with pytest.warns(UserWarning), pytest.raises(KeyError, match=r"'3'.*left out: line 1"):
        RegionInputs(path).prepare([{"image_id": "3", "image": None}], 1)
    path.write_text("a text\nand another\n")
    with pytest.raises(ValueError, match=r"no images in it; 2 line\(s\) left out: line 1: 1 col"):
        open_regions(path)


def test_ids_with_a_slash_are_files_in_folders(samples, tmp_path):
    images = samples.features(["train/0.jpg", "test/0.jpg"], [2, 3])
    for image_id, (values, boxes) in images.items():
        (tmp_path / "a" / image_id).parent.mkdir(parents=True)
        save_record(tmp_path / "a" / f"{image_id}.npz", RegionRecord(values, boxes))
    same(open_regions(tmp_path / "a"), images)


def test_a_line_without_end_is_given_up_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(region_tsv, "MAX_LINE", 2**16)
    path = tmp_path / "a.tsv"
    with open(path, "wb") as file:
        file.truncate(2**30)  # a hole on the disk: one gigabyte without a line's end
    tracemalloc.start()
    with pytest.raises(ValueError, match="line 1: the line is longer"):
        open_regions(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
