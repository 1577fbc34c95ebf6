"""Inputs made to hurt: little files that ask for much, and files that ask to be run."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from outcomes import limits

from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.commands.score_files import read_array
from ascl_plugin.data.images import load_image
from ascl_plugin.experiments.plan import read_plan
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.yaml_file import MAX_BYTES, parse_yaml, read_yaml


def _png(width, height):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10**5, 10**5), (2**31 - 1, 2**31 - 1), (20_000, 5_000)])
def test_a_picture_of_too_many_pixels_is_refused(size):
    with limits(60), pytest.raises(ValueError, match=r"image 7 .* does not decode: "):
        load_image({"path": None, "bytes": _png(*size)}, "7")
    with pytest.raises(ValueError, match="10000 x 10000 pixels, more than"):  # Pillow only warns
        load_image({"path": None, "bytes": _png(10_000, 10_000)}, "7")


def test_eps_is_no_picture(tmp_path):
    """Pillow reads EPS by running Ghostscript on it."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n"
    (tmp_path / "a.jpg").write_bytes(program)
    with pytest.raises(ValueError, match="does not decode: cannot identify"):
        load_image({"path": str(tmp_path / "a.jpg"), "bytes": None}, "7")


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with limits(60), pytest.raises(ValueError, match="no regular file"):
        load_image({"path": str(tmp_path / "a.jpg"), "bytes": None}, "7")


def _doubling(value):
    """Eight lines, each with ten aliases of the one before."""
    pairs = zip("abcdefgh", "bcdefghi", strict=True)
    lines = (f"{new}: &{new} {value.format(','.join([f'*{old}'] * 10))}\n" for old, new in pairs)
    return "".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + _doubling("[{}]"),
        "a: &a {x: 1}\n" + _doubling("{{<<: [{}]}}"),
        "a: &a [*a]",
        "[" * 1_000,
        "dim: " + "9" * 10_000,
        "dim: 1" + ":1" * 50_000,
        "dim: !!int ''",
        "dim: !!bool x",
        "dim: 2020-13-45",
        "dim: !!python/object/apply:os.system ['touch ran']",
        "\0",
    ],
    ids=[
        "laughs", "merges", "itself", "deep", "digits", "sexagesimal", "empty", "bool", "date",
        "python", "nul",
    ],
)  # fmt: skip
def test_yaml_bombs_are_refused(tmp_path, text, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with limits(60):
        for reader in (read_yaml, read_plan):
            with pytest.raises(ValueError, match=r"a\.yaml is not yaml") as caught:
                reader(path)
            assert len(str(caught.value)) < 1000
        with pytest.raises(SystemExit):
            parse_options(["--config", str(path)])
    assert "a.yaml is not yaml" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_yaml_that_people_write_is_read(tmp_path):
    text = "a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: 1e-3\nd: 5_000\ne: 12:30\n"
    assert parse_yaml(text, "here")["b"] == {"x": 2, "y": [1, 2]}
    (tmp_path / "b.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ValueError, match="larger than"):
        read_yaml(tmp_path / "b.yaml")


def test_a_value_of_endless_length_is_not_repeated(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("dim: a" + "b" * 10_000)
    with pytest.raises(SystemExit):
        parse_options(["--config", str(tmp_path / "a.yaml")])
    assert "a.yaml: dim has more than 4000 characters" in capsys.readouterr().err


def test_a_zip_that_unpacks_to_much_more_is_refused(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (300000, 1000), }\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    (tmp_path / "f").mkdir()
    with zipfile.ZipFile(tmp_path / "f" / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", start + bytes(2**27))
    with limits(60), pytest.raises(ValueError, match=r"a\.npz: features\.npy unpacks to 134"):
        open_regions(tmp_path / "f")
    with limits(60), pytest.raises(ValueError, match=r"a\.npz: features\.npy: cut short"):
        read_array(tmp_path / "f" / "a.npz", "sim")


@pytest.mark.parametrize(
    "shape", ["(10**12,)", "(1000000000000, 0)", "(-5, 3)", "(4,) + (1,) * 40"]
)
def test_headers_that_lie_are_refused(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(96)
    for name in ("x_ims.npy", "sims.npy"):
        (tmp_path / name).write_bytes(raw)
    with limits(60):
        with pytest.raises(ValueError, match=r"x_ims\.npy: "):
            open_regions(tmp_path / "x_ims.npy")
        with pytest.raises(ValueError, match=r"sims\.npy: "):
            read_array(tmp_path / "sims.npy", "sim")


def test_hdf5_that_claims_more_images_than_bytes_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (10**12, 1, 4), "f4", chunks=(1, 1, 4))
    with limits(60), pytest.raises(ValueError, match=r"a\.h5 claims 1000000000000 images"):
        open_regions(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("features", (3, 2**16, 2048), "f4", chunks=(1, 2**16, 2048))
    with (
        limits(60),
        pytest.raises(ValueError, match=r"b\.h5: features: chunks of more than 256 MB"),
    ):
        open_regions(tmp_path / "b.h5")


class _Program:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("name", ["x_ims.npy", "f/a.npz", "sims.npy", "sims.npz", "w.pth", "t.pt"])
def test_no_pickle_is_run(tmp_path, name, monkeypatch):
    from ascl_plugin.adapters.state_files import read_state

    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    bomb = np.array([_Program()], dtype=object)
    if path.suffix == ".npy":
        np.save(path, bomb, allow_pickle=True)
    elif path.suffix == ".npz":
        np.savez(path, features=bomb)
    elif name == "w.pth":
        path.write_bytes(pickle.dumps({"a": _Program()}))
    else:
        torch.save({"a": _Program()}, path)
    read_it = read_array if name.startswith("sims") else None
    with pytest.raises(ValueError, match=Path(name).name.replace(".", r"\.")):
        if path.suffix in (".pt", ".pth"):
            read_state(str(path))
        elif read_it:
            read_it(path, "sim")
        else:
            open_regions(path.parent if path.suffix == ".npz" else path)
    assert not (tmp_path / "ran").exists()
