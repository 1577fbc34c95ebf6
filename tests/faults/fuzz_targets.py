"""Every parser that reads what others wrote: its files, how to spoil one, how to read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_files as files
import fuzz_mutation as mutation


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: in the table.
        file: the one that is spoilt, below the folder that `make` fills.
        make: fills a folder with valid files.
        read: opens what is in the folder and reads all of it.
        spoil: the bytes of the file and a source of chance -> other bytes.
        library: whose C code reads the bytes, where it is not ours or Python's.
    """

    name: str
    file: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    spoil: files.Spoil
    library: str = ""


TARGETS = {
    target.name: target
    for target in (
        Target(
            "Karpathy's JSON",
            "dataset_x.json",
            files.karpathy,
            files.read_splits,
            files.spoilt_json,
        ),
        Target(
            "COCO's JSON",
            "annotations/captions_val2017.json",
            files.coco,
            files.read_splits,
            files.spoilt_json,
        ),
        Target("list of ids, npy", "ids.npy", files.ids_npy, files.read_ids, mutation.npy_bytes),
        Target(
            "list of ids, text",
            "ids.txt",
            files.ids_txt,
            files.read_ids,
            files.tokens(b"\n", b"7", b"\xff"),
        ),
        Target(
            "SugarCrepe's JSON",
            "add_obj.json",
            files.sugarcrepe,
            files.read_sugarcrepe,
            files.spoilt_json,
        ),
        Target(
            "SCAN captions",
            "train_caps.txt",
            files.scan,
            files.read_splits,
            files.tokens(b"\n", b"\r", b"\x0c"),
        ),
        Target(
            "SCAN ids",
            "train_ids.txt",
            files.scan,
            files.read_splits,
            files.tokens(b"\n", b"a\n", b"\xff"),
        ),
        Target(
            "SCAN features, npy",
            "train_ims.npy",
            files.scan,
            files.read_regions,
            mutation.npy_bytes,
        ),
        Target(
            "Parquet",
            "rows.parquet",
            files.parquet,
            files.read_parquet,
            files.tokens(b"PAR1"),
            "pyarrow",
        ),
        Target(
            "regions, TSV",
            "a.tsv",
            files.tsv,
            files.read_regions,
            files.tokens(b"\t", b"\n", b"==", b"0"),
        ),
        Target(
            "regions, TSV's index",
            "a.tsv.index.npz",
            files.tsv_index,
            files.read_regions,
            files.npz_bytes,
        ),
        Target("regions, npy", "a.npy", files.npy_folder, files.read_regions, mutation.npy_bytes),
        Target("regions, npz", "a.npz", files.npz_folder, files.read_regions, files.npz_bytes),
        Target(
            "regions, HDF5",
            "a.h5",
            files.hdf5,
            files.read_regions,
            files.tokens(b"HDF", b"OHDR"),
            "HDF5",
        ),
        Target(
            "regions, HDF5 by image",
            "a.h5",
            files.hdf5_images,
            files.read_regions,
            files.tokens(b"SNOD"),
            "HDF5",
        ),
        Target(
            "scores, npy", "sims.npy", files.scores(".npy"), files.read_scores, mutation.npy_bytes
        ),
        Target("scores, npz", "sims.npz", files.scores(".npz"), files.read_scores, files.npz_bytes),
        Target(
            "scores, safetensors",
            "sims.safetensors",
            files.scores(".safetensors"),
            files.read_scores,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target(
            "caption's image, JSON",
            "owner.json",
            files.owners_json,
            files.read_owners,
            files.spoilt_json,
        ),
        Target(
            "caption's image, text",
            "owner.txt",
            files.owners_text,
            files.read_owners,
            files.tokens(b"\n", b"9" * 30, b"9" * 5000),
        ),
        Target("score matrix", "m.npy.part", files.matrix, files.read_matrix, mutation.npy_bytes),
        Target(
            "score matrix's record",
            "m.npy.json",
            files.matrix,
            files.read_matrix,
            files.spoilt_json,
        ),
        Target(
            "feature cache",
            "",
            files.store,
            files.read_store,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target(
            "checkpoint's weights",
            "checkpoint-0000003/model.safetensors",
            files.checkpoint,
            files.read_checkpoint,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target(
            "checkpoint's state",
            "checkpoint-0000003/training.pt",
            files.checkpoint,
            files.read_checkpoint,
            files.PICKLE,
            "torch",
        ),
        Target("weights, pth", "w.pth", files.weights, files.read_weights, files.PICKLE, "torch"),
        Target(
            "model's config.json", "config.json", files.model, files.read_model, files.spoilt_json
        ),
        Target(
            "model's weights",
            "model.safetensors",
            files.model,
            files.read_model,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target("options, yaml", "run.yaml", files.run_yaml, files.read_options, files.YAML),
        Target("study, yaml", "study.yaml", files.study_yaml, files.read_study, files.YAML),
        Target(
            "report: metrics.json",
            "metrics.json",
            files.run_folder,
            files.read_run,
            files.spoilt_json,
        ),
        Target("report: config.yaml", "config.yaml", files.run_folder, files.read_run, files.YAML),
        Target(
            "report: log.jsonl",
            "log.jsonl",
            files.run_folder,
            files.read_run,
            files.tokens(b"\n", b"{", b"[1]", b"NaN"),
        ),
        Target(
            "pictures", "a.jpg", files.picture, files.read_picture, files.picture_bytes, "Pillow"
        ),
    )
}


def file_of(target: Target, folder: Path) -> Path:
    """The file that is spoilt."""
    return folder / target.file if target.file else next(folder.rglob("shard-*"))
