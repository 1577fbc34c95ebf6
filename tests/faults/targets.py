"""The parsers of files that others wrote: valid files, a way to spoil one, a way to read them."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import datasets
import h5py
import numpy as np
import torch
from PIL import Image
from spoiling import npy_bytes, npz_bytes, safetensors_bytes, spoilt_json, tokens
from valid_files import karpathy, picture

from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.adapters.state_files import read_state
from ascl_plugin.commands.score_files import read_array, read_caption_to_image, write_reranked
from ascl_plugin.data.images import FORMATS, load_image
from ascl_plugin.data.readers import caption_to_image, read, read_table
from ascl_plugin.data.shards import Shards
from ascl_plugin.data.store import FeatureStore
from ascl_plugin.data.sugarcrepe import read_sugarcrepe
from ascl_plugin.experiments.plan import read_plan
from ascl_plugin.report.read import read_folders
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.scoring import matrix_file
from ascl_plugin.training.checkpoint import load_checkpoint, save_checkpoint
from ascl_plugin.training.parsing import parse_options


class Target(NamedTuple):
    """One parser.

    Attributes:
        file: name of the file that is spoilt, below the folder that `make` fills.
        make: fills a folder with valid files.
        read: opens the folder's files and reads all of them.
        spoil: the bytes of the file and a source of chance -> other bytes.
    """

    file: str
    make: Callable
    read: Callable
    spoil: Callable


# captions and pictures


def split(folder):
    karpathy(folder, ("0.png", "1.png"), ("a cat", "a dog"), cocoid=7)
    content = json.loads((folder / "dataset_x.json").read_text())
    content["images"][1] |= {"split": "val", "filepath": "val2014", "cocoid": 8}
    content["images"][1]["sentences"][0]["sentid"] = 3
    (folder / "dataset_x.json").write_text(json.dumps(content))
    for name in ("0.png", "1.png"):
        picture(folder / "images" / name)


def read_splits(folder):
    for rows in read(folder).values():
        caption_to_image(rows)
        for row in rows:
            assert row["image"] is None or str(folder) in row["image"]["path"]


COCO = Path("annotations") / "captions_val2017.json"


def coco(folder):
    images = [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)]
    captions = [{"id": 9 + i, "image_id": i, "caption": f"c {i}"} for i in (1, 2, 1)]
    for image in images:
        picture(folder / "val2017" / image["file_name"])
    (folder / "annotations").mkdir()
    (folder / COCO).write_text(json.dumps({"images": images, "annotations": captions}))


def sugarcrepe(folder):
    picture(folder / "a.png")
    entry = {"filename": "a.png", "caption": "a cat", "negative_caption": "a dog"}
    (folder / "add_obj.json").write_text(json.dumps({str(i): entry for i in range(3)}))


def scan(folder):
    np.save(folder / "train_ims.npy", np.arange(24, dtype=np.float32).reshape(3, 2, 4))
    (folder / "train_caps.txt").write_text("".join(f"caption {i}\n" for i in range(6)))
    (folder / "train_ids.txt").write_text("a\nb\nc\n")


def parquet(folder):
    columns = {
        "image": [{"path": None, "bytes": pictures()[0]}] * 3, "image_id": list("abc"),
        "captions": [["a cat", "a dog"], ["a"], ["b"]], "split": ["train", "val", "test"],
    }  # fmt: skip
    datasets.Dataset.from_dict(columns).to_parquet(folder / "rows.parquet")


def tar(folder):
    with tarfile.open(folder / "a.tar", "w") as tar:
        first = {"a.png": pictures()[0], "a.json": b'{"captions": ["a cat"]}'}
        for name, content in {**first, "b.jpg": pictures()[0], "b.txt": b"a dog"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def read_tar(folder):
    list(Shards(folder / "a.tar").share())


def read_parquet(folder):
    for rows in read_table(folder / "rows.parquet").values():
        list(rows)


@cache
def pictures():
    """Return small pictures of all formats and modes, animated where the format allows."""
    made = []
    for name, mode in product(FORMATS, ("L", "RGB", "CMYK", "P", "I;16", "RGBA")):
        many = name in ("GIF", "PNG", "WEBP", "TIFF") and mode == "RGB"
        frames = {"save_all": True, "append_images": [Image.new(mode, (9, 7))]} if many else {}
        file = io.BytesIO()
        try:
            Image.effect_noise((9, 7), 50).convert(mode).save(file, name, **frames)
        except (OSError, ValueError, KeyError):  # a format without such pictures
            continue
        made.append(file.getvalue())
    return made


def picture_bytes(_, draw):
    heads = (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff", b"IHDR", b"acTL")
    return tokens(*heads)(draw.choice(pictures()), draw)


# arrays


def read_regions(folder):
    reader = open_regions(folder)
    for image_id in list(reader.ids)[:20]:
        found = reader.regions(image_id)
        assert np.isfinite(found.features).all() and found.features.shape[1] == reader.dim


def tsv(folder):
    values = [base64.b64encode(np.ones((2, n), "<f4").tobytes()).decode() for n in (4, 3)]
    lines = ["\t".join([str(i), "640", "480", "2", *values]) for i in range(3)]
    (folder / "a.tsv").write_text("\n".join(lines) + "\n")


def arrays(folder):
    for name in "ab":
        np.save(folder / f"{name}.npy", np.ones((2, 4), np.float32))


def zips(folder):
    both = {"features": np.ones((2, 4), np.float32), "bbox": np.ones((2, 4), np.float32)}
    for name in "ab":
        np.savez(folder / f"{name}.npz", **both)


def hdf5(folder):
    ones = np.ones((3, 2, 4), "f4")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("features", data=ones, chunks=(1, 2, 4), compression=9)
        file["bbox"], file["num_bbx"], file["image_ids"] = ones, [2, 1, 2], list("abc")


def hdf5_images(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        for name in "abc":
            file[f"{name}_features"] = file[f"{name}_boxes"] = np.ones((2, 4), "f4")


def scores(suffix, folder):
    made = write_reranked(folder / f"sims{suffix}", {"sim": np.eye(4, dtype=np.float32)})
    made[0].rename(folder / f"sims{suffix}")


def read_scores(folder):
    np.asarray(read_array(next(folder.glob("sims.*")), "sim").sum())


def owners(folder):
    (folder / "owner.txt").write_text("0\n0\n1\n")


def read_owners(folder):
    assert read_caption_to_image(folder / "owner.txt").dtype == np.int64


INPUTS = {"shape": [3, 4], "images": "x", "texts": "y", "scorer": "z"}


def matrix(folder):
    matrix_file.begin(folder / "m.npy", INPUTS)


def read_matrix(folder):
    matrix(folder)
    matrix_file.missing(matrix_file.open_matrix(folder / "m.npy"))


# runs


def store(folder):
    store = FeatureStore(folder, {"encoder": "fuzz"})
    store.add([(key, {"words": torch.ones(2, 3), "w": torch.ones(1)}) for key in "abc"])


def read_store(folder):
    store = FeatureStore(folder, {"encoder": "fuzz"})
    for key in filter(store.__contains__, "abc"):
        store[key]


def checkpoint(folder):
    state = {"step": 3, "optimizer": {"state": {0: torch.ones(3)}}, "options": {"dim": 4}}
    path = save_checkpoint(folder, 3, {"a": torch.ones(2, 2)}, state)
    (path / "SHA256SUMS").unlink()  # else nothing spoilt would get as far as the parsers


def weights(folder):
    torch.save({"state_dict": {"a": torch.ones(2, 2)}}, folder / "w.pth")


def model(folder):
    words = {"name": "transformer", "vocabulary": ["a", "b"], "width": 8}
    image = {"name": "grid", "width": 8, "grid": 2}
    RetrievalModel(image, words, {"num_heads": 2}, dim=8).save_pretrained(folder)


def read_model(folder):
    RetrievalModel.from_pretrained(str(folder))


def plans(folder):
    (folder / "run.yaml").write_text("dim: 8\nloss: ascl\nimage_encoder: {name: grid, a: 1}\n")
    (folder / "study.yaml").write_text(
        "models:\n  a: {dim: 8}\n  b:\nseeds: [0, 1]\nexperiments:\n  main: {models: [a]}\n"
    )


def read_options(folder):
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            parse_options(["--config", str(folder / "run.yaml")])
    except SystemExit:
        raise ValueError(f"{folder}: {printed.getvalue().splitlines()[-1]}") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def read_study(folder):
    plan = read_plan(folder / "study.yaml")
    for name in plan.experiments:
        plan.models_of(name)


def run(folder):
    facts = {"name": "initial", "leaks": "", "transductive": False}
    row = {**facts, "metrics": {"r1": 1.0, "rsum": 3.0}, "intervals": {"r1": [0, 1]}}
    test = {"protocol": "full", "rows": [row]}
    content = {"test": test, "seed": 0, "command": "x", "best": {"rsum": 3}}
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "config.yaml").write_text("dim: 8\nseed: 0\n")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')


def read_run(folder):
    read_folders([folder])


PICKLE = tokens(b"cos\nsystem\n", b"R.", b"PK")
YAML = tokens(
    b"&a ", b"*a", b"<<: *a", b"- ", b"{", b"[", b"[" * 2000, b": ", b"? ", b"!!int ''",
    b"!!float ''", b"!!timestamp x", b"2020-13-45", b"!!bool x", b"9" * 5000, b"!!binary x",
    b"1:1" + b":1" * 3000,
    b"!!python/object/apply:os.system [id]", b"\n  ", b"---\n", b"0x" + b"f" * 9, b"a: &a [*a]\n",
)  # fmt: skip
OWNER = tokens(b"\n", b"9" * 30, b"9" * 5000)
NPY, NPZ, TENSORS = npy_bytes, npz_bytes, safetensors_bytes
CHECKPOINT = "checkpoint-0000003/"


def read_checkpoint(folder):
    load_checkpoint(folder / CHECKPOINT)


TARGETS = {
    "Karpathy's JSON": Target("dataset_x.json", split, read_splits, spoilt_json),
    "COCO's JSON": Target(str(COCO), coco, read_splits, spoilt_json),
    "SugarCrepe's JSON": Target("add_obj.json", sugarcrepe, read_sugarcrepe, spoilt_json),
    "SCAN captions": Target("train_caps.txt", scan, read_splits, tokens(b"\n", b"\r", b"\x0c")),
    "SCAN ids": Target("train_ids.txt", scan, read_splits, tokens(b"\n", b"a\n", b"\xff")),
    "SCAN features, npy": Target("train_ims.npy", scan, read_regions, NPY),
    "Parquet": Target("rows.parquet", parquet, read_parquet, tokens(b"PAR1")),
    "tar": Target("a.tar", tar, read_tar, tokens(b"ustar", b"0000", b"L", b"x", b"{", b"\xff")),
    "pictures": Target(
        "a.jpg",
        lambda folder: (folder / "a.jpg").write_bytes(pictures()[0]),
        lambda folder: load_image({"path": str(folder / "a.jpg"), "bytes": None}, "7"),
        picture_bytes,
    ),
    "regions, TSV": Target("a.tsv", tsv, read_regions, tokens(b"\t", b"\n", b"==", b"0")),
    "regions, npy": Target("a.npy", arrays, read_regions, NPY),
    "regions, npz": Target("a.npz", zips, read_regions, NPZ),
    "regions, HDF5": Target("a.h5", hdf5, read_regions, tokens(b"HDF", b"OHDR")),
    "regions, HDF5 by image": Target("a.h5", hdf5_images, read_regions, tokens(b"SNOD")),
    "scores, npy": Target("sims.npy", partial(scores, ".npy"), read_scores, NPY),
    "scores, npz": Target("sims.npz", partial(scores, ".npz"), read_scores, NPZ),
    "scores, safetensors": Target(
        "sims.safetensors", partial(scores, ".safetensors"), read_scores, TENSORS
    ),
    "caption's image, text": Target("owner.txt", owners, read_owners, OWNER),
    "score matrix": Target("m.npy.part", matrix, read_matrix, NPY),
    "score matrix's record": Target("m.npy.json", matrix, read_matrix, spoilt_json),
    "feature cache": Target("", store, read_store, TENSORS),
    "checkpoint's weights": Target(
        f"{CHECKPOINT}model.safetensors", checkpoint, read_checkpoint, TENSORS
    ),
    "checkpoint's state": Target(
        f"{CHECKPOINT}training.pt", checkpoint, read_checkpoint, PICKLE
    ),
    "weights, pth": Target(
        "w.pth", weights, lambda folder: read_state(str(folder / "w.pth")), PICKLE
    ),
    "model's config.json": Target("config.json", model, read_model, spoilt_json),
    "model's weights": Target("model.safetensors", model, read_model, TENSORS),
    "options, yaml": Target("run.yaml", plans, read_options, YAML),
    "study, yaml": Target("study.yaml", plans, read_study, YAML),
    "report: metrics.json": Target("metrics.json", run, read_run, spoilt_json),
    "report: config.yaml": Target("config.yaml", run, read_run, YAML),
    "report: log.jsonl": Target("log.jsonl", run, read_run, tokens(b"\n", b"{", b"[1]", b"NaN")),
}  # fmt: skip


def file_of(target, folder):
    """Return the file that is spoilt."""
    return folder / target.file if target.file else next(folder.rglob("shard-*"))
