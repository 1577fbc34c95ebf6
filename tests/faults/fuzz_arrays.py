"""Valid files of region features and scores, and how to read them whole."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz_captions import write


def read_regions(folder: Path) -> None:
    from ascl_plugin.adapters.regions.region_files import open_regions

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


def read_scores(folder: Path) -> None:
    from ascl_plugin.commands.score_files import read_array

    path = next(p for p in sorted(folder.iterdir()) if p.name.startswith("sims."))
    np.asarray(read_array(path, "sim").sum())


def scores(suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from ascl_plugin.commands.score_files import write_reranked

        made = write_reranked(folder / f"sims{suffix}", {"sim": np.eye(4, dtype=np.float32)})
        made[0].rename(folder / f"sims{suffix}")

    return make


def read_owners(folder: Path) -> None:
    from ascl_plugin.commands.score_files import read_caption_to_image

    name = "owner.json" if (folder / "owner.json").exists() else "owner.txt"
    assert read_caption_to_image(folder / name).dtype == np.int64


def owners_json(folder: Path) -> None:
    write(folder / "owner.json", [0, 0, 1])


def owners_text(folder: Path) -> None:
    write(folder / "owner.txt", "0\n0\n1\n")


def matrix(folder: Path) -> None:
    from ascl_plugin.scoring.matrix_file import begin

    begin(folder / "m.npy", INPUTS)


def read_matrix(folder: Path) -> None:
    from ascl_plugin.scoring.matrix_file import begin, missing, open_matrix

    begin(folder / "m.npy", INPUTS)
    missing(open_matrix(folder / "m.npy"))


INPUTS = {"shape": [3, 4], "images": "x", "texts": "y", "scorer": "z"}
