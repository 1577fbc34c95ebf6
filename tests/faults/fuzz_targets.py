"""Every parser that reads what others wrote: its files, how to spoil one, how to read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_arrays as arrays
import fuzz_captions as captions
import fuzz_mutation as mutation
import fuzz_runs as runs


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
    spoil: mutation.Spoil
    library: str = ""


TARGETS = {
    target.name: target
    for target in (
        Target(
            "Karpathy's JSON",
            "dataset_x.json",
            captions.karpathy,
            captions.read_splits,
            mutation.spoilt_json,
        ),
        Target(
            "COCO's JSON",
            "annotations/captions_val2017.json",
            captions.coco,
            captions.read_splits,
            mutation.spoilt_json,
        ),
        Target(
            "list of ids, npy", "ids.npy", captions.ids_npy, captions.read_ids, mutation.npy_bytes
        ),
        Target(
            "list of ids, text",
            "ids.txt",
            captions.ids_txt,
            captions.read_ids,
            mutation.tokens(b"\n", b"7", b"\xff"),
        ),
        Target(
            "SugarCrepe's JSON",
            "add_obj.json",
            captions.sugarcrepe,
            captions.read_sugarcrepe,
            mutation.spoilt_json,
        ),
        Target(
            "SCAN captions",
            "train_caps.txt",
            captions.scan,
            captions.read_splits,
            mutation.tokens(b"\n", b"\r", b"\x0c"),
        ),
        Target(
            "SCAN ids",
            "train_ids.txt",
            captions.scan,
            captions.read_splits,
            mutation.tokens(b"\n", b"a\n", b"\xff"),
        ),
        Target(
            "SCAN features, npy",
            "train_ims.npy",
            captions.scan,
            arrays.read_regions,
            mutation.npy_bytes,
        ),
        Target(
            "Parquet",
            "rows.parquet",
            captions.parquet,
            captions.read_parquet,
            mutation.tokens(b"PAR1"),
            "pyarrow",
        ),
        Target(
            "regions, TSV",
            "a.tsv",
            arrays.tsv,
            arrays.read_regions,
            mutation.tokens(b"\t", b"\n", b"==", b"0"),
        ),
        Target(
            "regions, TSV's index",
            "a.tsv.index.npz",
            arrays.tsv_index,
            arrays.read_regions,
            mutation.npz_bytes,
        ),
        Target("regions, npy", "a.npy", arrays.npy_folder, arrays.read_regions, mutation.npy_bytes),
        Target("regions, npz", "a.npz", arrays.npz_folder, arrays.read_regions, mutation.npz_bytes),
        Target(
            "regions, HDF5",
            "a.h5",
            arrays.hdf5,
            arrays.read_regions,
            mutation.tokens(b"HDF", b"OHDR"),
            "HDF5",
        ),
        Target(
            "regions, HDF5 by image",
            "a.h5",
            arrays.hdf5_images,
            arrays.read_regions,
            mutation.tokens(b"SNOD"),
            "HDF5",
        ),
        Target(
            "scores, npy", "sims.npy", arrays.scores(".npy"), arrays.read_scores, mutation.npy_bytes
        ),
        Target(
            "scores, npz", "sims.npz", arrays.scores(".npz"), arrays.read_scores, mutation.npz_bytes
        ),
        Target(
            "scores, safetensors",
            "sims.safetensors",
            arrays.scores(".safetensors"),
            arrays.read_scores,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target(
            "caption's image, JSON",
            "owner.json",
            arrays.owners_json,
            arrays.read_owners,
            mutation.spoilt_json,
        ),
        Target(
            "caption's image, text",
            "owner.txt",
            arrays.owners_text,
            arrays.read_owners,
            mutation.tokens(b"\n", b"9" * 30, b"9" * 5000),
        ),
        Target("score matrix", "m.npy.part", arrays.matrix, arrays.read_matrix, mutation.npy_bytes),
        Target(
            "score matrix's record",
            "m.npy.json",
            arrays.matrix,
            arrays.read_matrix,
            mutation.spoilt_json,
        ),
        Target(
            "feature cache",
            "",
            runs.store,
            runs.read_store,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target(
            "checkpoint's weights",
            "checkpoint-0000003/model.safetensors",
            runs.checkpoint,
            runs.read_checkpoint,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target(
            "checkpoint's state",
            "checkpoint-0000003/training.pt",
            runs.checkpoint,
            runs.read_checkpoint,
            runs.PICKLE,
            "torch",
        ),
        Target("weights, pth", "w.pth", runs.weights, runs.read_weights, runs.PICKLE, "torch"),
        Target(
            "model's config.json", "config.json", runs.model, runs.read_model, mutation.spoilt_json
        ),
        Target(
            "model's weights",
            "model.safetensors",
            runs.model,
            runs.read_model,
            mutation.safetensors_bytes,
            "safetensors",
        ),
        Target("options, yaml", "run.yaml", runs.run_yaml, runs.read_options, runs.YAML),
        Target("study, yaml", "study.yaml", runs.study_yaml, runs.read_study, runs.YAML),
        Target(
            "report: metrics.json",
            "metrics.json",
            runs.run_folder,
            runs.read_run,
            mutation.spoilt_json,
        ),
        Target("report: config.yaml", "config.yaml", runs.run_folder, runs.read_run, runs.YAML),
        Target(
            "report: log.jsonl",
            "log.jsonl",
            runs.run_folder,
            runs.read_run,
            mutation.tokens(b"\n", b"{", b"[1]", b"NaN"),
        ),
        Target(
            "pictures",
            "a.jpg",
            captions.picture,
            captions.read_picture,
            captions.picture_bytes,
            "Pillow",
        ),
    )
}


def file_of(target: Target, folder: Path) -> Path:
    """The file that is spoilt."""
    return folder / target.file if target.file else next(folder.rglob("shard-*"))
