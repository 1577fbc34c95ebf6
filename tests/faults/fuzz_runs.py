"""Valid files that runs write and are started from, and how to read them whole."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from fuzz_captions import write
from fuzz_mutation import tokens


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
