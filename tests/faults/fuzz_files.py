"""Valid files of every kind that others write, how to spoil them, how to read them whole."""

from __future__ import annotations

import base64
import io
import json
import random
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import fuzz_mutation as mutation
import numpy as np
import torch

Spoil = Callable[[bytes, random.Random], bytes]


def tokens(*tokens: bytes) -> Spoil:
    return lambda raw, draw: mutation.mutate_bytes(raw, draw, tokens)


def spoilt_json(raw: bytes, draw: random.Random) -> bytes:
    return mutation.json_bytes(json.loads(raw), draw)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


# ------------------------------------------------------------------ captions

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def karpathy(folder: Path) -> None:
    entries = []
    for number, split in enumerate(("train", "train", "val", "test")):
        write(folder / "images" / f"{number}.png", PNG)
        sentences = [{"raw": f"caption {k}", "sentid": 5 * number + k} for k in range(2)]
        entries.append(
            {"filename": f"{number}.png", "split": split, "sentences": sentences, "cocoid": number}
        )
    entries[1]["filepath"] = "val2014"
    write(folder / "dataset_x.json", {"images": entries})


def coco(folder: Path) -> None:
    for i in (1, 2):
        write(folder / "val2017" / f"{i}.png", PNG)
    write(
        folder / "annotations" / "captions_val2017.json",
        {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in (1, 2)],
            "annotations": [{"id": 9 + i, "image_id": i, "caption": f"c {i}"} for i in (1, 2, 1)],
        },
    )


def read_splits(folder: Path) -> None:
    from ascl_plugin.data.readers import caption_to_image, read

    for split in read(folder).values():
        caption_to_image(split)
        for row in split:
            assert row["image"] is None or str(folder) in row["image"]["path"]


def read_ids(folder: Path) -> None:
    from ascl_plugin.data.annotations import read_coco_captions

    name = "ids.npy" if (folder / "ids.npy").exists() else "ids.txt"
    read_coco_captions(folder / "annotations" / "captions_val2017.json", ids=folder / name)


def ids_npy(folder: Path) -> None:
    coco(folder)
    np.save(folder / "ids.npy", np.array([2, 1]))


def ids_txt(folder: Path) -> None:
    coco(folder)
    write(folder / "ids.txt", "2\n1\n")


def sugarcrepe(folder: Path) -> None:
    write(folder / "a.png", PNG)
    entry = {"filename": "a.png", "caption": "a cat", "negative_caption": "a dog"}
    write(folder / "add_obj.json", {str(i): entry for i in range(3)})


def read_sugarcrepe(folder: Path) -> None:
    from ascl_plugin.data.sugarcrepe import read_sugarcrepe

    read_sugarcrepe(folder)


def scan(folder: Path) -> None:
    np.save(folder / "train_ims.npy", np.arange(24, dtype=np.float32).reshape(3, 2, 4))
    write(folder / "train_caps.txt", "".join(f"caption {i}\n" for i in range(6)))
    write(folder / "train_ids.txt", "a\nb\nc\n")


def parquet(folder: Path) -> None:
    import datasets

    columns = {
        "image": [{"path": None, "bytes": PNG}] * 3, "image_id": list("abc"),
        "captions": [["a cat", "a dog"], ["a"], ["b"]], "split": ["train", "val", "test"],
    }  # fmt: skip
    datasets.Dataset.from_dict(columns).to_parquet(folder / "rows.parquet")


def read_parquet(folder: Path) -> None:
    from ascl_plugin.data.readers import read_table

    for split in read_table(folder / "rows.parquet").values():
        list(split)


# ------------------------------------------------------------------ region features


def read_regions(folder: Path) -> None:
    from ascl_plugin.adapters.region_files import open_regions

    reader = open_regions(folder)
    for image_id in list(reader.ids)[:20]:
        found = reader.regions(image_id)
        assert np.isfinite(found.features).all() and found.features.shape[1] == reader.dim


def tsv(folder: Path) -> None:
    lines = [
        b"\t".join(
            [str(i).encode(), b"640", b"480", b"2"]
            + [base64.b64encode(np.ones((2, n), "<f4").tobytes()) for n in (4, 3)]
        )
        for i in range(3)
    ]
    write(folder / "a.tsv", b"\n".join(lines) + b"\n")


def tsv_index(folder: Path) -> None:
    tsv(folder)
    read_regions(folder)


def npy_folder(folder: Path) -> None:
    for name in "ab":
        np.save(folder / f"{name}.npy", np.ones((2, 4), np.float32))


def npz_folder(folder: Path) -> None:
    for name in "ab":
        both = {"features": np.ones((2, 4), np.float32), "bbox": np.ones((2, 4), np.float32)}
        np.savez(folder / f"{name}.npz", **both)


def npz_bytes(raw: bytes, draw: random.Random) -> bytes:
    """A zip of spoilt arrays, or any bytes changed."""
    if draw.randint(0, 1):
        return mutation.mutate_bytes(raw, draw, (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"))
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutation.npy_bytes(content, draw) if draw.randint(0, 1) else content)
    return made.getvalue()


def hdf5(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        shape = (3, 2, 4)
        file.create_dataset("features", data=np.ones(shape, "f4"), chunks=(1, 2, 4), compression=9)
        file["bbox"], file["num_bbx"] = np.ones((3, 2, 4), "f4"), [2, 1, 2]
        file["image_ids"] = list("abc")


def hdf5_images(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        for name in "abc":
            file[f"{name}_features"] = np.ones((2, 4), "f4")
            file[f"{name}_boxes"] = np.ones((2, 4), "f4")


# ------------------------------------------------------------------ scores and weights


def read_scores(folder: Path) -> None:
    from ascl_plugin.rerank.files import read_array

    path = next(p for p in sorted(folder.iterdir()) if p.name.startswith("sims."))
    np.asarray(read_array(path, "sim").sum())


def scores(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from ascl_plugin.rerank.files import write_reranked

        made = write_reranked(folder / f"sims{suffix}", {"sim": np.eye(4, dtype=np.float32)})
        made[0].rename(folder / f"sims{suffix}")

    return make


def read_owners(folder: Path) -> None:
    from ascl_plugin.rerank.files import read_caption_to_image

    name = "owner.json" if (folder / "owner.json").exists() else "owner.txt"
    assert read_caption_to_image(folder / name).dtype == np.int64


def owners_json(folder: Path) -> None:
    write(folder / "owner.json", [0, 0, 1])


def owners_text(folder: Path) -> None:
    write(folder / "owner.txt", "0\n0\n1\n")


def matrix(folder: Path) -> None:
    from ascl_plugin.retrieval.matrix_file import begin

    begin(folder / "m.npy", INPUTS)


def read_matrix(folder: Path) -> None:
    from ascl_plugin.retrieval.matrix_file import begin, missing, open_matrix

    begin(folder / "m.npy", INPUTS)
    missing(open_matrix(folder / "m.npy"))


INPUTS = {"shape": [3, 4], "images": "x", "texts": "y", "scorer": "z"}


def store(folder: Path) -> Any:
    from ascl_plugin.data.store import FeatureStore

    store = FeatureStore(folder, {"encoder": "fuzz"})
    if not len(store):
        store.add([(key, {"words": torch.ones(2, 3), "w": torch.ones(1)}) for key in "abc"])
        made = next(store.path.glob("shard-*"))
        made.rename(store.path / "shard-0.safetensors")
    return store


def read_store(folder: Path) -> None:
    from ascl_plugin.data.store import FeatureStore

    store = FeatureStore(folder, {"encoder": "fuzz"})
    for key in "abc":
        if key in store:
            store[key]


def checkpoint(folder: Path) -> None:
    from ascl_plugin.training.checkpoint import save_checkpoint

    state = {"step": 3, "optimizer": {"state": {0: torch.ones(3)}}, "options": {"dim": 4}}
    path = save_checkpoint(folder, 3, {"a": torch.ones(2, 2)}, state)
    (path / "SHA256SUMS").unlink()  # else nothing spoilt would get as far as the parsers


def read_checkpoint(folder: Path) -> None:
    from ascl_plugin.training.checkpoint import load_checkpoint

    load_checkpoint(folder / "checkpoint-0000003")


PICKLE = tokens(b"cos\nsystem\n", b"R.", b"PK")


def weights(folder: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2, 2)}}, folder / "w.pth")


def read_weights(folder: Path) -> None:
    from ascl_plugin.adapters.state_files import read_state

    read_state(str(folder / "w.pth"))


def model(folder: Path) -> None:
    from ascl_plugin.retrieval.model import RetrievalModel

    words = {"name": "transformer", "vocabulary": ["a", "b"], "width": 8}
    image = {"name": "grid", "width": 8, "grid": 2}
    with redirect_stdout(io.StringIO()):
        RetrievalModel(image, words, {"num_heads": 2}, dim=8).save_pretrained(folder)


def read_model(folder: Path) -> None:
    from ascl_plugin.retrieval.model import RetrievalModel

    with redirect_stdout(io.StringIO()):
        RetrievalModel.from_pretrained(str(folder))


# ------------------------------------------------------------------ yaml, reports, pictures

YAML = tokens(
    b"&a ", b"*a", b"<<: *a", b"- ", b"{", b"[", b"[" * 2000, b": ", b"? ", b"!!int ''",
    b"!!float ''", b"!!timestamp x", b"2020-13-45", b"!!bool x", b"9" * 5000, b"!!binary x",
    b"1:1" + b":1" * 3000,
    b"!!python/object/apply:os.system [id]", b"\n  ", b"---\n", b"0x" + b"f" * 9, b"a: &a [*a]\n",
)  # fmt: skip


def run_yaml(folder: Path) -> None:
    write(folder / "run.yaml", "dim: 8\nloss: ascl\nimage_options: '{a: 1}'\n")


def study_yaml(folder: Path) -> None:
    models = "models:\n  a: {dim: 8}\n  b:\n"
    write(folder / "study.yaml", f"{models}seeds: [0, 1]\nexperiments:\n  main: {{models: [a]}}\n")


def read_options(folder: Path) -> None:
    from ascl_plugin.training.arguments import parse_options
    from ascl_plugin.yaml_file import mapping

    told = io.StringIO()
    try:
        with redirect_stderr(told):
            options = parse_options(["--config", str(folder / "run.yaml")])
        mapping(options.model.image_options)
    except SystemExit:
        raise ValueError(f"{folder}: {told.getvalue().splitlines()[-1]}") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def read_study(folder: Path) -> None:
    from ascl_plugin.experiments.plan import read_plan

    plan = read_plan(folder / "study.yaml")
    for name in plan.experiments:
        plan.models_of(name)


def run_folder(folder: Path) -> None:
    row = {"r1": 1.0, "rsum": 3.0}
    test = {
        "initial": row,
        "asymmetry": {"recognition": 50.0},
        "intervals": {"initial": {"r1": [0, 1]}},
    }
    write(folder / "metrics.json", {"test": test, "seed": 0, "command": "x", "best": {"rsum": 3}})
    write(folder / "config.yaml", "dim: 8\nseed: 0\n")
    write(folder / "log.jsonl", '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')


def read_run(folder: Path) -> None:
    from ascl_plugin.report.read import read_folders

    read_folders([folder])


@cache
def pictures() -> list[bytes]:
    """Small pictures of all formats and modes, animated where the format has that."""
    from PIL import Image

    from ascl_plugin.data.images import FORMATS

    made = []
    for name, mode in product(FORMATS, ("L", "RGB", "CMYK", "P", "I;16", "RGBA")):
        many = name in ("GIF", "PNG", "WEBP", "TIFF") and mode == "RGB"
        frames = {"save_all": True, "append_images": [Image.new(mode, (9, 7))]} if many else {}
        file = io.BytesIO()
        try:
            Image.effect_noise((9, 7), 50).convert(mode).save(file, name, **frames)
        except (OSError, ValueError, KeyError):  # a format that has no such pictures
            continue
        made.append(file.getvalue())
    return made


def picture(folder: Path) -> None:
    write(folder / "a.jpg", pictures()[0])


def picture_bytes(raw: bytes, draw: random.Random) -> bytes:
    heads = (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff", b"IHDR", b"acTL")
    return mutation.mutate_bytes(draw.choice(pictures()), draw, heads)


def read_picture(folder: Path) -> None:
    from ascl_plugin.data.images import load_image

    path = folder / "a.jpg"
    load_image({"path": str(path), "bytes": None}, "7")
