"""Conversion between formats of region features: byte for byte, and on from where it stopped."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("h5py", reason="extra `regions`")

from ascl_plugin.adapters.regions import convert as convert_module
from ascl_plugin.adapters.regions.convert import FORMATS, convert
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.commands.main import main

NAMES = {
    "hdf5": "x.h5", "hdf5-images": "x.hdf5", "tsv": "x.tsv", "scan": "x_ims.npy", "folder": "x",
}  # fmt: skip
IDS = ["139", "b 2", "000000000285", "train-4"]


def images_for(samples, *formats, dtype=np.float32):
    """What all the formats can hold: boxes and any count, but for scan."""
    plain = "scan" in formats
    counts = [3] * 4 if plain else [3, 1, 4, 2]
    return samples.features(IDS, counts, boxes=not plain, dtype=dtype)


def source_of(samples, folder, images):
    folder.mkdir()
    samples.write_folder(folder / "first", images)
    return folder / "first"


def run(source, target, **options):
    notes = []
    count = convert(source, target, say=notes.append, progress=False, **options)
    assert not list(target.parent.glob("*.part*"))
    return count, notes


def assert_same(path, images):
    reader = open_regions(path)
    assert sorted(reader.ids) == sorted(images)
    for image_id, (values, boxes) in images.items():
        found = reader.regions(image_id)
        assert found.features.dtype == values.dtype
        assert found.features.tobytes() == values.tobytes()
        assert (found.boxes is None) == (boxes is None)
        assert boxes is None or found.boxes.tobytes() == boxes.tobytes()


@pytest.mark.parametrize(("a", "b"), itertools.permutations(FORMATS, 2))
def test_there_and_back_is_the_same_byte_for_byte(samples, tmp_path, a, b):
    images = images_for(samples, a, b)
    first = source_of(samples, tmp_path / "first", images)
    paths = [tmp_path / f"{i}" / NAMES[f] for i, f in enumerate((a, b, a))]
    for source, target, kind in zip([first, *paths], paths, (a, b, a), strict=False):
        target.parent.mkdir()
        assert run(source, target, format=kind)[0] == 4
        assert_same(target, images)
    if paths[0].is_file():
        assert paths[0].read_bytes() == paths[2].read_bytes()


@pytest.mark.parametrize("kind", [f for f in FORMATS if f != "tsv"])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_stay_as_they_are(samples, tmp_path, kind, dtype):
    images = images_for(samples, kind, dtype=dtype)
    source = source_of(samples, tmp_path / "first", images)
    run(source, tmp_path / NAMES[kind], format=kind)
    assert_same(tmp_path / NAMES[kind], images)


def test_what_a_format_cannot_hold_is_said(samples, tmp_path):
    images = samples.features(IDS, [3] * 4)
    source = source_of(samples, tmp_path / "first", images)
    assert run(source, tmp_path / "x_ims.npy")[1] == ["scan holds no boxes: they are left out"]
    assert run(source, tmp_path / "x.h5")[1] == []
    (height,) = run(source, tmp_path / "x.tsv")[1]
    assert "widths and heights" in height
    half = source_of(samples, tmp_path / "half", samples.features(["1"], [2], 6, False, np.float16))
    notes = run(half, tmp_path / "half.tsv")[1]
    assert "has no boxes" in notes[0] and "float16 is widened" in notes[2]
    double = source_of(samples, tmp_path / "double", samples.features(["1"], [2], dtype=float))
    with pytest.raises(ValueError, match="features are float64: tsv holds float32"):
        run(double, tmp_path / "double.tsv")
    uneven = source_of(samples, tmp_path / "uneven", samples.features(["1", "2"], [4, 2]))
    with pytest.raises(ValueError, match="image '2' has 2 regions, another 4: scan holds as many"):
        run(uneven, tmp_path / "uneven_ims.npy")
    assert run(uneven, tmp_path / "uneven_ims.npy", num_regions=2)[0] == 2
    assert open_regions(tmp_path / "uneven_ims.npy").regions("1").features.shape == (2, 6)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_conversion_goes_on(samples, tmp_path, monkeypatch, kind, stop):
    """Killed in the middle of a write: what it noted stands, what it did not is done again."""
    images = images_for(samples, kind)
    source = source_of(samples, tmp_path / "first", images)
    target, whole = tmp_path / NAMES[kind], tmp_path / "whole"
    whole.mkdir()
    run(source, whole / NAMES[kind], format=kind)
    monkeypatch.setattr(convert_module, "SAVE_EVERY", 0)
    writer = convert_module._writer(kind)
    write, calls = writer.write, []

    def killed(self, entry, regions):
        write(self, entry, regions)
        calls.append(entry)
        if len(calls) > stop:  # written, and not noted; of a TSV, half a line more
            if kind == "tsv":
                with open(self.part, "ab") as file:
                    file.write(b"half a li")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writer, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(source, target, kind, progress=False)
    assert not target.exists()
    count, _ = run(source, target, format=kind)
    assert count == 4 - stop
    assert_same(target, images)
    if target.is_file():
        assert target.read_bytes() == (whole / NAMES[kind]).read_bytes()


@pytest.mark.parametrize("kind", ["tsv", "hdf5", "hdf5-images", "scan"])
def test_a_part_cut_short_after_the_stop_is_found(samples, tmp_path, monkeypatch, kind):
    images = images_for(samples, kind)
    source, target = source_of(samples, tmp_path / "first", images), tmp_path / NAMES[kind]
    writer = convert_module._writer(kind)
    write = writer.write

    def stopped(self, entry, regions):
        if entry == 2:
            raise KeyboardInterrupt
        write(self, entry, regions)

    with monkeypatch.context() as patched:
        patched.setattr(writer, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            convert(source, target, kind, say=lambda _: None, progress=False)
    part = tmp_path / f"{target.name}.part"
    whole = part.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        part.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{part.name} is cut short .*remove it and"):
            convert(source, target, kind, say=lambda _: None, progress=False)
    part.write_bytes(whole)
    assert run(source, target, format=kind)[0] == 2
    assert_same(target, images)


def test_nothing_is_overwritten_nor_mixed(samples, tmp_path, monkeypatch):
    source = source_of(samples, tmp_path / "first", images_for(samples))
    target = tmp_path / "x.tsv"
    target.touch()
    with pytest.raises(FileExistsError, match="is there already"):
        convert(source, target)
    target.unlink()
    (tmp_path / "x.tsv.part").touch()
    with pytest.raises(FileExistsError, match=r"x\.tsv\.part is there, x\.tsv\.part\.json is not"):
        convert(source, target)
    (tmp_path / "x.tsv.part").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(convert_module.TsvWriter, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(source, target, progress=False)
    with pytest.raises(FileExistsError, match=r"was begun from .* with other options"):
        convert(source, target, num_regions=1, progress=False)
    (tmp_path / "x.tsv.part.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        convert(source, target, progress=False)


@pytest.mark.parametrize("kind", ["folder", "hdf5-images"])
@pytest.mark.parametrize("name", ["../out", "/out", "a\\b", ".hidden", "a\x00b"])
def test_an_id_that_would_leave_the_folder_is_refused(samples, tmp_path, kind, name):
    samples.write_tsv(tmp_path / "a.tsv", samples.features([name], [2]))
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        convert(tmp_path / "a.tsv", tmp_path / "deep", kind, progress=False)
    assert not (tmp_path / "out.npz").exists()


def test_a_damaged_entry_stops_it_and_is_named(samples, tmp_path):
    images = images_for(samples)
    images["b 2"][0][0, 0] = np.inf
    samples.write_hdf5(tmp_path / "a.h5", images)
    with pytest.raises(ValueError, match=r"a\.h5: image 'b 2' has features that are not finite"):
        convert(tmp_path / "a.h5", tmp_path / "x.tsv", progress=False)
    assert not (tmp_path / "x.tsv").exists()


def test_the_command(samples, tmp_path, capsys):
    samples.write_tsv(tmp_path / "a.tsv", images_for(samples))
    source, target = str(tmp_path / "a.tsv"), str(tmp_path / "b.h5")
    assert main(["convert", source, target, "--num_regions", "1"]) == 0
    assert capsys.readouterr().out == f"wrote {target}, 4 images\n"
    assert open_regions(target).regions("139").features.shape == (1, 6)
    assert main(["convert", source, str(tmp_path / "b_ims.npy"), "--num_regions=1"]) == 0
    assert "note: scan holds no boxes" in capsys.readouterr().out
    for argv, told in (
        ([source, target], "is there already"),
        ([source, str(tmp_path / "b.xyz")], "the suffix tells no format"),
        ([source, str(tmp_path / "no" / "b.tsv")], "no such folder to write to"),
        ([str(tmp_path / "none.tsv"), str(tmp_path / "c.tsv")], "no such file"),
        ([source, str(tmp_path / "c.npy"), "--format=scan"], "ends with _ims.npy"),
        ([source, str(tmp_path / "c.tsv"), "--num_regions=0"], "at least 1"),
    ):
        assert main(["convert", *argv]) == 2
        assert told in capsys.readouterr().err.strip().splitlines()[-1]
