"""Inputs made to hurt: bombs, links, code, markup, odd and endless text."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

for needed in ("datasets", "h5py", "transformers"):
    pytest.importorskip(needed, reason="extras `recipes` and `regions`")
sys.path.insert(0, str(Path(__file__).parent))

import datasets  # noqa: E402
import h5py  # noqa: E402
from fuzz_outcome import limits  # noqa: E402
from PIL import Image  # noqa: E402

from ascl_plugin.adapters.region_files import open_regions  # noqa: E402
from ascl_plugin.data.images import load_image  # noqa: E402
from ascl_plugin.data.readers import caption_to_image, read, read_table  # noqa: E402
from ascl_plugin.data.sugarcrepe import read_sugarcrepe  # noqa: E402
from ascl_plugin.experiments.plan import read_plan  # noqa: E402
from ascl_plugin.rerank.files import read_array  # noqa: E402
from ascl_plugin.retrieval.encoders import WordTransformer  # noqa: E402
from ascl_plugin.training.arguments import parse_options  # noqa: E402
from ascl_plugin.yaml_file import MAX_BYTES, parse_yaml, read_yaml  # noqa: E402


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def karpathy(folder, names=("a.png",), captions=("a cat",), **more):
    folder.mkdir(parents=True, exist_ok=True)
    sentences = [{"raw": text} for text in captions]
    entries = [{"filename": n, "split": "train", "sentences": sentences} | more for n in names]
    (folder / "dataset_x.json").write_text(json.dumps({"images": entries}))
    return folder


# ---------------------------------------------------------------- paths and links


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
        read_sugarcrepe(root / "add_obj.json")
    karpathy(root, ("sub/a.png",))
    (root / "images" / "sub").symlink_to(secret.parent)
    with pytest.raises(ValueError, match="leaves"):
        read(root)
    karpathy(root, filepath="mine")
    (root / "mine").symlink_to(secret.parent)
    with pytest.raises(ValueError, match="'mine' leaves"):
        read(root)


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


# ---------------------------------------------------------------- bombs


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


def test_one_long_id_does_not_make_the_index_of_a_tsv_large(tmp_path):
    """numpy would give every id the room of the longest."""
    values = base64.b64encode(np.ones(2, "<f4").tobytes()).decode()
    lines = [f"{i}\t1\t1\t1\t\t{values}\n" for i in ("x" * 1024, *range(20_000))]
    (tmp_path / "a.tsv").write_text("".join(lines))
    for _ in range(2):  # made, then read back
        assert len(open_regions(tmp_path / "a.tsv")) == 20_001
    assert (tmp_path / "a.tsv.index.npz").stat().st_size < 10**6


# ---------------------------------------------------------------- code


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


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a" * 10_000_000, "has 10000000 characters, 100000 at most"),
        ("half \ud800 a pair", "character 5 is half a surrogate pair"),
        ({"raw": "a" * 10**6}, "expected a string"),
    ],
    ids=["long", "surrogate", "object"],
)
def test_a_caption_that_is_refused_is_named(tmp_path, text, told):
    picture(tmp_path / "images" / "a.png")
    with (
        limits(60),
        pytest.raises(ValueError, match=r"dataset_x\.json: image a\.png: caption 1") as caught,
    ):
        read(karpathy(tmp_path, captions=("a cat", text)))
    assert told in str(caught.value) and len(str(caught.value)) < 500


ODD = (
    "nul \0 in it", "\u202ertl \u05d0\u05d1\u05d2", "e\u0301\u0301\u0301", "zero\u200bwidth",
    "\u200b", "line\u2028parts\x85of\x0cit", "🧑‍🚀🏳️‍🌈", "x" * 100_000,
    "a " * 50_000, "<script>alert(1)</script>",
)  # fmt: skip


def test_unusual_captions_come_through_as_they_are(tmp_path):
    picture(tmp_path / "images" / "a.png")
    found = read(karpathy(tmp_path, captions=ODD))["train"][0]["captions"]
    assert found == [text.strip() for text in ODD]


def test_a_caption_file_has_lines_that_end_with_a_newline_alone(tmp_path):
    np.save(tmp_path / "train_ims.npy", np.ones((2, 1, 4), np.float32))
    (tmp_path / "train_caps.txt").write_text("one\u2028and\x0cone\r\ntwo\x85and two\n", newline="")
    assert [row["captions"] for row in read(tmp_path)["train"]] == [
        ["one\u2028and\x0cone"], ["two\x85and two"],
    ]  # fmt: skip


ANY = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(texts=st.lists(st.one_of(ANY, st.sampled_from(ODD)), min_size=1, max_size=5))
def test_any_captions_have_a_word_each(texts):
    tokens = WordTransformer(["a", "cat"], width=8).tokenize(texts)
    assert tokens["attention_mask"].any(1).all() and tokens["input_ids"].shape[1] <= 64


def test_two_hundred_thousand_captions_of_one_image(tmp_path):
    picture(tmp_path / "images" / "a.png")
    karpathy(tmp_path, captions=[f"caption {i}" for i in range(200_000)])
    with limits(60):
        split = read(tmp_path)["train"]
        texts, owner = caption_to_image(split)
    assert len(texts) == len(owner) == 200_000 and not owner.any()


# ---------------------------------------------------------------- markup


MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\" ' {{7*7}} &lt;"


def test_a_report_shows_markup_as_text(tmp_path):
    jinja = pytest.importorskip("jinja2", reason="extra `report`")
    assert jinja
    from ascl_plugin.report.document import Document, Section, Table
    from ascl_plugin.report.markdown import markdown_page
    from ascl_plugin.report.page import html_page

    item = {"text": MARKUP, "picture": None, "alt": MARKUP, "label": MARKUP}
    answer = {**item, "right": True, "score": 1.0}
    case = {
        "title": MARKUP, "query": item,
        "lists": [{"model": MARKUP, "stage": MARKUP, "answers": [answer], "note": MARKUP}],
    }  # fmt: skip
    table = Table(MARKUP, [{MARKUP: MARKUP}])
    section = Section(
        MARKUP, facts={MARKUP: MARKUP, "command": MARKUP}, tables=[table],
        notes=[MARKUP], cases=[case], folder=tmp_path, files={MARKUP: tmp_path / "<b>.json"},
    )  # fmt: skip
    document = Document(MARKUP, MARKUP, [section])
    page = html_page(document, tmp_path)
    assert "&lt;script&gt;" in page and "{{7*7}}" in page
    assert not any(bad in page for bad in ("<script", "<img src=x", "<b>.json"))
    text = markdown_page(document, tmp_path)
    assert "<script" not in text.replace(f"` {MARKUP} `", "").replace(f"`{MARKUP}`", "")


def test_pictures_of_every_shape_are_bounded_by_their_pixels():
    """An animation of many frames costs one frame."""
    frames = [Image.new("P", (300, 300), i % 256) for i in range(200)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with limits(60):
        assert load_image({"path": None, "bytes": file.getvalue()}, "7").size == (300, 300)
