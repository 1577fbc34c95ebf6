"""Region features packed into one HDF5 file: byte for byte, and on from where it stopped."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("h5py", reason="extra `regions`")

from ascl_plugin.adapters.regions import convert as convert_module
from ascl_plugin.adapters.regions.reader import RegionReader
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.commands.main import main

IDS = ["139", "b 2", "000000000285", "train-4"]
convert = partial(convert_module.convert, progress=False)


@pytest.fixture
def images(samples):
    return samples.features(IDS, [3, 1, 4, 2])


@pytest.fixture
def source(samples, tmp_path, images):
    samples.write_folder(tmp_path / "source", images)
    return tmp_path / "source"


def assert_same(path, images):
    reader = open_regions(path)
    assert sorted(reader.ids) == sorted(images)
    for image_id, (values, boxes) in images.items():
        found = reader.regions(image_id)
        assert found.features.dtype == values.dtype
        assert found.features.tobytes() == values.tobytes()
        assert (found.boxes is None) == (boxes is None)
        assert boxes is None or found.boxes.tobytes() == boxes.tobytes()


def stop_at(monkeypatch, entry):
    read = RegionReader.read

    def stopped(self, number, limit=None):
        if number == entry:
            raise KeyboardInterrupt
        return read(self, number, limit)

    monkeypatch.setattr(RegionReader, "read", stopped)


@pytest.mark.parametrize(("dtype", "boxes"), [("<f4", True), ("<f2", False), ("<f8", True)])
def test_the_same_byte_for_byte(samples, tmp_path, dtype, boxes):
    images = samples.features(IDS, [3, 1, 4, 2], boxes=boxes, dtype=np.dtype(dtype))
    samples.write_folder(tmp_path / "source", images)
    assert convert(tmp_path / "source", tmp_path / "x.h5") == 4
    assert_same(tmp_path / "x.h5", images)
    assert not list(tmp_path.glob("*.part*"))
    assert convert(tmp_path / "x.h5", tmp_path / "y.hdf5") == 4
    assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.hdf5").read_bytes()


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_conversion_goes_on(tmp_path, monkeypatch, source, images, stop):
    """And a part that was cut short in between is found."""
    target, part = tmp_path / "x.h5", tmp_path / "x.h5.part"
    convert(source, tmp_path / "whole.h5")
    with monkeypatch.context() as patched:
        stop_at(patched, stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, target)
    assert not target.exists()
    begun = part.read_bytes()
    for size in (0, 10, len(begun) // 2, len(begun) - 1):
        part.write_bytes(begun[:size])
        with pytest.raises(ValueError, match=r"x\.h5\.part is cut short .*remove it and"):
            convert(source, target)
    part.write_bytes(begun)
    assert convert(source, target) == 4 - stop
    assert target.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_nothing_is_overwritten_nor_mixed(tmp_path, monkeypatch, source):
    target, part = tmp_path / "x.h5", tmp_path / "x.h5.part"
    target.touch()
    with pytest.raises(FileExistsError, match="is there already"):
        convert(source, target)
    target.unlink()
    part.touch()
    with pytest.raises(FileExistsError, match=r"x\.h5\.part is there, x\.h5\.part\.json is not"):
        convert(source, target)
    part.unlink()
    with monkeypatch.context() as patched:
        stop_at(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            convert(source, target)
    with pytest.raises(FileExistsError, match=r"was begun from .* with other options"):
        convert(source, target, num_regions=1)
    (tmp_path / "x.h5.part.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        convert(source, target)


def test_a_damaged_entry_stops_it_and_is_named(samples, tmp_path, images):
    images["b 2"][0][0, 0] = np.inf
    samples.write_hdf5(tmp_path / "a.h5", images)
    with pytest.raises(ValueError, match=r"a\.h5: image 'b 2' has features that are not finite"):
        convert(tmp_path / "a.h5", tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_the_command(samples, tmp_path, images, capsys):
    samples.write_tsv(tmp_path / "a.tsv", images)
    source, target = str(tmp_path / "a.tsv"), str(tmp_path / "b.h5")
    assert main(["convert", source, target, "--num_regions", "1"]) == 0
    assert capsys.readouterr().out == f"wrote {target}, 4 images\n"
    assert open_regions(target).regions("139").features.shape == (1, 6)
    for argv, told in (
        ([source, target], "is there already"),
        ([source, str(tmp_path / "b.xyz")], "ends with .h5 or .hdf5"),
        ([source, str(tmp_path / "no" / "b.h5")], "no such folder to write to"),
        ([str(tmp_path / "none.tsv"), str(tmp_path / "c.h5")], "no such file"),
        ([source, str(tmp_path / "c.h5"), "--num_regions=0"], "at least 1"),
    ):
        assert main(["convert", *argv]) == 2
        assert told in capsys.readouterr().err.strip().splitlines()[-1]
