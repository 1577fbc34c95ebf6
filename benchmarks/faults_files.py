"""Trials of `faults.py` on files that are filled bit by bit: feature cache, scores, conversions."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ascl_plugin.adapters.regions.convert import convert
from ascl_plugin.adapters.regions.region_files import open_regions
from ascl_plugin.data.store import FeatureStore, fill
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.scoring.matrix import score_matrix

ITEMS = 24


def feature_cache(bench: Any) -> str:
    """Killed while it is filled; then one of its shards is cut, or has a flipped bit."""
    bench.folder.mkdir()
    expected = [_features(item) for item in range(ITEMS)]

    def work(stop: int = ITEMS) -> int:
        keys = [f"item {item}" for item in range(ITEMS)]
        calls = [0]

        def encode(items: list[int]) -> list[dict[str, torch.Tensor]]:
            calls[0] += 1
            if calls[0] > stop:
                os.kill(os.getpid(), signal.SIGKILL)
            return [_features(item) for item in items]

        store = FeatureStore(bench.folder, {"trial": 1}, "float32")
        fill(store, range(ITEMS), keys, encode, 2, "encoding", progress=False, shard_entries=4)
        for key, wanted in zip(keys, expected, strict=True):
            if any(not torch.equal(store[key][name], wanted[name]) for name in wanted):
                return 3
        return 0

    _run(bench, lambda: work(bench.rng.randrange(2, ITEMS // 2)), -signal.SIGKILL)
    shards = sorted(bench.folder.glob("*/shard-*"))
    how = bench.rng.choice(["whole", "cut", "flipped"])
    if how == "whole" or not shards:
        _run(bench, work)
        return "went on"
    shard = bench.rng.choice(shards)
    _damage(bench, shard, how)
    return _refused_or_right(bench, work, shard, [shard])


def score_file(bench: Any) -> str:
    """Killed between two blocks of scores; then the file or its record is cut short."""
    bench.folder.mkdir()
    path = bench.folder / "scores.npy"
    chance = torch.Generator().manual_seed(0)
    images = ImageFeatures(torch.randn(8, 2, 4, generator=chance))
    texts = TextFeatures(torch.randn(12, 3, 4, generator=chance))
    expected = _score(images, texts)

    def work(stop: int = 0) -> int:
        calls = [0]

        def scorer(i: ImageFeatures, t: TextFeatures) -> torch.Tensor:
            calls[0] += 1
            if calls[0] == stop:
                os.kill(os.getpid(), signal.SIGKILL)
            return _score(i, t)

        scores = score_matrix(scorer, images, texts, tile=(2, 4), path=path)
        return 0 if torch.equal(scores, expected) else 3

    _run(bench, lambda: work(bench.rng.randrange(2, 11)), -signal.SIGKILL)
    files = [Path(f"{path}.part"), Path(f"{path}.json")]
    if bench.rng.random() < 0.4:
        _run(bench, work)
        return "went on"
    damaged = bench.rng.choice(files)
    _damage(bench, damaged, "cut")
    return _refused_or_right(bench, work, path, files)


def conversion(bench: Any) -> str:
    """Killed at an operation on files; then what is converted so far is cut short."""
    bench.folder.mkdir()
    source = bench.folder / "source"
    source.mkdir()
    for item in range(ITEMS):
        values = np.random.default_rng(item).standard_normal((3, 4)).astype(np.float32)
        np.save(source / f"{item:03d}.npy", values)
    target = bench.folder / bench.rng.choice(["a.tsv", "a.h5", "test_ims.npy", "a"])

    def work(stop: int = 0) -> int:
        count = [0]

        def hook(event: str, args: Any) -> None:
            shown = str(args[0]).replace("/.", "/")  # what is written aside is hidden
            if event in ("open", "os.rename") and shown.startswith(str(target)):
                count[0] += 1
                if count[0] == stop:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        from ascl_plugin.adapters.regions import convert as module

        module.SAVE_EVERY = 0.0
        try:
            convert(source, target, say=lambda _: None, progress=False)
        except (ValueError, OSError) as error:
            print(f"error: {error}")
            return 2
        made, wanted = open_regions(target), open_regions(source)
        if made.ids != wanted.ids:
            return 3
        for item in range(ITEMS):
            if not np.array_equal(made.read(item, None).features, wanted.read(item, None).features):
                return 3
        return 0

    stop = bench.rng.randrange(1, 2 * ITEMS)
    code, printed = bench.child(lambda: work(stop)).wait()
    bench.require(code in (0, -signal.SIGKILL), f"{code}: {printed[-1000:]}")
    part, state = Path(f"{target}.part"), Path(f"{target}.part.json")
    if code == 0:
        return "had ended"
    if bench.rng.random() < 0.6 and part.is_file() and part.stat().st_size:
        _damage(bench, part, "cut")
    return _refused_or_right(bench, work, target, [part, state])


def _refused_or_right(bench: Any, work: Callable[[], int], named: Path, files: list[Path]) -> str:
    """Goes on with a right result, or names the file; deleted, the result is right."""
    code, printed = bench.child(work).wait()
    bench.require(code != 3, f"wrong values were read: {printed[-1000:]}")
    if code == 0:
        return "went on"
    words = ("delete", "remove")
    told = str(named) in printed and any(word in printed for word in words)
    bench.require(told, f"the message does not help: {printed[-2000:]}")
    for file in files:
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    _run(bench, work)
    return "refused; deleted; made again"


def _run(bench: Any, work: Callable[[], int], expected: int = 0) -> None:
    code, printed = bench.child(work).wait()
    bench.require(code == expected, f"status {code}, not {expected}: {printed[-2000:]}")


def _damage(bench: Any, file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "cut":
        content = content[: bench.rng.randrange(len(content))]
    else:
        content[bench.rng.randrange(len(content))] ^= 1 << bench.rng.randrange(8)
    file.write_bytes(content)


def _features(item: int) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(item)
    return {"regions": torch.randn(1 + item % 3, 4, generator=chance)}


def _score(images: ImageFeatures, texts: TextFeatures) -> torch.Tensor:
    return torch.einsum("id,td->it", images.regions.mean(1), texts.words.mean(1))
