"""Files that list pictures, as their publishers write them: each layout, with pictures near by."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("datasets")
import pyarrow as pa
import pyarrow.parquet as pq

from ascl_plugin.data.readers import read, require_splits

SPLITS = ("train", "val", "test")
FLAT = [(f"{k}.png", f"caption {n} of {k}") for k in "abc" for n in range(2)]
EXPECTED = {f"{k}.png": [f"caption {n} of {k}" for n in range(2)] for k in "abc"}


def found(splits, name="train"):
    return dict(zip(splits[name]["image_id"][:], splits[name]["captions"][:], strict=True))


def text(header, sep=","):
    return "\n".join([sep.join(header), *(sep.join(row) for row in FLAT), ""])


TABLES = {  # name -> content
    "captions.txt": text(("image", "caption")),
    "table.csv": text(("filepath", "title")),
    "table.tsv": text(("file_name", "text"), "\t"),
    "results.csv": "image_name| comment_number| comment\n"
    + "".join(f"{k}| {n % 2}| {c}\n" for n, (k, c) in enumerate(FLAT[:-1]))
    + f"c.png| 1   {FLAT[-1][1]}\n",  # as one line of Flickr30K's is
    "Flickr8k.token.txt": "".join(f"{k}#{n % 2}\t{c}\n" for n, (k, c) in enumerate(FLAT)),
    "x_20130124.token": "".join(f"{k}#{n % 2}\t{c}\r\n" for n, (k, c) in enumerate(FLAT)),
    "lines.jsonl": "\n".join(json.dumps({"image": k, "captions": c}) for k, c in EXPECTED.items()),
    "list.json": json.dumps([{"image": k, "caption": c} for k, c in EXPECTED.items()]),
    "TABLE.CSV": text(("Image", "Caption"), ";"),
    "numbered.csv": "image,caption_0,caption_1,caption_2\n"
    + "".join(f"{k},{a},{b},\n" for k, (a, b) in EXPECTED.items()),
    "lists.csv": "image,raw\n"
    + "".join(f'{k},"{json.dumps(c)}"\n'.replace('"caption', '""caption').replace('a",', 'a"",')
              .replace('b",', 'b"",').replace('c",', 'c"",').replace('"]"', '""]"')
              for k, c in EXPECTED.items()),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, png):
    (tmp_path / "d" / "pictures").mkdir(parents=True)
    for n in range(20):  # more pictures than tables
        (tmp_path / "d" / "pictures" / f"{'abcdefghijklmnopqrst'[n]}.png").write_bytes(png(n % 4))
    return tmp_path / "d"


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("bom", [False, True])
def test_a_table_beside_its_pictures(folder, name, bom):
    """The folder, the file itself, and the file named by `annotations`; pictures here or there."""
    (folder / name).write_text(TABLES[name], encoding="utf-8-sig" if bom else "utf-8")
    for splits in (read(folder), read(folder / name), read(folder, annotations=name)):
        assert found(splits) == EXPECTED
        assert splits["train"][0]["image"]["path"] == str(folder / "pictures" / "a.png")
    (folder / "alone").mkdir()
    shutil.move(folder / name, folder / "alone" / name)
    elsewhere = read(folder / "alone", image_root=folder / "pictures")
    assert elsewhere["train"][2]["image"]["path"] == str(folder / "pictures" / "c.png")
    with pytest.raises(FileNotFoundError, match=r"image 'a\.png' not found in .*image_root= says"):
        read(folder / "alone")


def test_a_parquet_table_of_names(folder):
    columns = {"image": list(EXPECTED), "captions": list(EXPECTED.values()), "image_id": [1, 2, 3]}
    pq.write_table(pa.table(columns), folder / "val.parquet")
    assert found(read(folder), "val") == dict(zip("123", EXPECTED.values(), strict=True))


def test_splits_of_files_folders_columns_and_lists(folder):
    for split in SPLITS:
        (folder / f"x_karpathy_{split}.json").write_text(TABLES["list.json"])
    assert {k: found(v_) for k, v_ in ((s, {"train": v}) for s, v in read(folder).items())} == {
        split: EXPECTED for split in SPLITS
    }
    for split in SPLITS:
        (folder / f"x_karpathy_{split}.json").unlink()
    rows = [{"image": f"{k}.png", "caption": "x", "split": s} for k, s in zip("abc", SPLITS)]  # noqa: B905
    (folder / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert {k: v["image_id"][:] for k, v in read(folder).items()} == {
        "train": ["a.png"], "val": ["b.png"], "test": ["c.png"],
    }  # fmt: skip
    (folder / "all.jsonl").unlink()
    (folder / "Flickr8k.token.txt").write_text(TABLES["Flickr8k.token.txt"])
    for split, k in zip(("train", "dev", "test"), "abc", strict=True):
        (folder / f"Flickr_8k.{split}Images.txt").write_text(f"{k}.png\n")
    assert {k: v["image_id"][:] for k, v in read(folder).items()} == {
        "train": ["a.png"], "val": ["b.png"], "test": ["c.png"],
    }  # fmt: skip


def test_names_in_folders_of_splits_are_of_different_pictures(tmp_path, png):
    for n, split in enumerate(SPLITS):
        (tmp_path / split).mkdir()
        (tmp_path / split / "0.png").write_bytes(png(n))
        (tmp_path / split / "metadata.csv").write_text("file_name,caption\n0.png,x\n")
    assert {k: v["image_id"][:] for k, v in read(tmp_path).items()} == {
        split: [f"{split}/0.png"] for split in SPLITS
    }


def test_data_of_one_split_is_divided_by_a_hash_of_the_id(folder):
    """Of 20 images shares near 1/4 each; the split of an image does not depend on the others."""
    rows = [f"{k}.png,x" for k in "abcdefghijklmnopqrst"]
    (folder / "captions.txt").write_text("image,caption\n" + "\n".join(rows))
    splits = read(folder, val_fraction=0.25, test_fraction=0.25)
    where = {i: k for k, v in splits.items() for i in v["image_id"]}
    assert list(splits) == ["train", "val", "test"] and len(where) == 20
    assert splits["val"]["split"][:] == ["val"] * len(splits["val"])
    (folder / "captions.txt").write_text("image,caption\n" + "\n".join(rows[:15]))
    fewer = read(folder, val_fraction=0.25, test_fraction=0.25)
    assert all(where[i] == k for k, v in fewer.items() for i in v["image_id"])
    with pytest.raises(ValueError, match="no val split; it has train; --val_fraction and --test"):
        require_splits(read(folder), ["train", "val"], folder)
    for fractions in ((0.6, 0.4), (-0.1, 0.2)):
        with pytest.raises(ValueError, match="sum is below 1"):
            read(folder, val_fraction=fractions[0], test_fraction=fractions[1])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "image,caption,image_id\na.png,x,1\nb.png,y,\n", "row 1: image_id: the id is mi"),
        ("a.csv", "image,caption,image_id\na.png,x,1\nb.png,y,1\n", r"'1' is of picture 'b\.png'"),
        ("a.csv", "image,caption\na.png,x\nb.png\n", "line 3 has 1 cells, its header 2"),
        ("a.csv", "image,caption\na.png,\n", r"image a\.png: caption 0 is empty"),
        ("a.jsonl", '{"image": "a.png", "caption": "x"}\n{"image"\n', "line 2 is not JSON"),
        ("a.jsonl", '{"image": "a.png", "caption": "x"}\n{"image": "b.png"}\n', "row 1: no capt"),
        ("a.jsonl", '{"image": "a.png", "caption": "x"}\n{"caption": "y"}\n', "row 1: no name of"),
        ("a.csv", "image,caption\n../a.png,x\n", "leaves the data root"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_row(folder, name, content, said):
    (folder / name).write_text(content)
    with pytest.raises((ValueError, KeyError), match=said):
        read(folder)


def test_ids_of_a_csv_keep_zeros_and_lose_the_point_of_a_gap(folder):
    (folder / "a.csv").write_text("image,caption,image_id\na.png,x,007\nb.png,y,7.0\n")
    assert read(folder)["train"]["image_id"][:] == ["007", "7"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"image,caption\na.png,a, dog\n", "line 2 has 3 cells, its header 2"),
        (b"image,caption\na.png,caf\xe9\n", "byte 23 is no UTF-8"),
        (b"image,score\na.png,3\n", "no caption; it has image, score"),
        (b"name,caption\na.png,a dog\n", "no name of a picture; it has name, caption"),
    ],
)
def test_a_table_that_is_no_list_is_not_read_otherwise(folder, content, told):
    """`datasets` would take a.png for an index, and "a" for the picture."""
    (folder / "captions.csv").write_bytes(content)
    for source in (folder, folder / "captions.csv"):
        with pytest.raises((ValueError, KeyError), match=rf"captions\.csv.*{told}"):
            read(source)


def test_texts_beside_pictures_are_told_what_to_become(tmp_path, png):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(0))
        (tmp_path / f"{name}.txt").write_text("a dog")
    with pytest.raises(ValueError, match=r"`tar --sort=name -cf train\.tar -C .* \.`"):
        read(tmp_path)
