"""What the steps are fed: rows in their order, and this process's share of each batch."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader

from ascl_plugin.asymmetry.collator import GENERATED, AsymmetryCollator
from ascl_plugin.shares import shares
from ascl_plugin.training.arguments import Options
from ascl_plugin.training.signals import kept_from_workers


class TrainingRows(torch.utils.data.Dataset):
    """Rows by (epoch, row, caption): all that chance depends on travels with the row."""

    def __init__(self, rows: Any) -> None:
        # only what a batch is made of: scenes have more columns, and reading them takes time
        self.rows = rows.select_columns(["image_id", "image", "captions"])

    def __getitems__(self, keys: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
        columns = self.rows[[row for _, row, _ in keys]]
        return [
            {"epoch": epoch, "row": row, "caption_index": caption}
            | {name: values[place] for name, values in columns.items()}
            for place, (epoch, row, caption) in enumerate(keys)
        ]


class Loader:
    """Tensors of this process's share of each batch.

    Args:
        collator: rows to batch.
        options: of the run.
        device: of the run.
    """

    def __init__(self, collator: AsymmetryCollator, options: Options, device: torch.device) -> None:
        self.collators = {
            False: collator,
            True: AsymmetryCollator(collator.texts, collator.images, "none", "none", collator.seed),
        }
        self.options = options
        self.device = device

    def collator(self, epoch: int) -> AsymmetryCollator:
        """Captions alone in the first epochs: nothing is generated that would not be scored."""
        return self.collators[epoch < self.options.train.align_epochs]

    def batches(
        self, epoch: int, rows: torch.utils.data.Dataset, keys: Iterable[list[Any]]
    ) -> Generator[dict[str, Any], None, None]:
        """Batches of an epoch, in the order of their keys, which are taken as they are needed.

        Args:
            epoch: of the run.
            rows: what a key stands for.
            keys: of each batch.

        Raises:
            RuntimeError: a data worker died.
        """
        loader = DataLoader(
            rows,
            batch_sampler=keys,  # type: ignore[arg-type]
            collate_fn=self.collator(epoch),
            num_workers=self.options.data.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        with kept_from_workers():
            batches: Iterator[dict[str, Any]] = iter(loader)
        if not loader.num_workers:
            batches = made_ahead(batches)
        try:
            yield from batches
        except (ConnectionError, EOFError) as error:  # as it handed one over: told as any that dies
            raise RuntimeError(
                f"DataLoader worker died as it handed over a batch ({error})."
            ) from error
        finally:
            # an error's traceback keeps workers, and they, who hear no signal, the process's end
            getattr(batches, "_shutdown_workers", lambda: None)()


class Feed:
    """The batches of a run whose rows can be listed.

    Args:
        rows: the training split.
        collator: rows to batch.
        options: of the run.
        accelerator: of the run.

    Attributes:
        batch_size: pairs in a batch of all processes; a set smaller than a batch is one batch a
            pass.
        batches_per_epoch: that make whole steps; what is left over is not shown.

    Raises:
        ValueError: too few images for a batch, or too few batches for a step.
    """

    def __init__(
        self, rows: Any, collator: AsymmetryCollator, options: Options, accelerator: Any
    ) -> None:
        self.rows = rows
        self.options = options
        self.loader = Loader(collator, options, accelerator.device)
        self.counts = [len(captions) for captions in rows["captions"][:]]
        args, world = options.train, accelerator.num_processes
        self.batch_size = min(args.batch_size, len(self.counts))
        if self.batch_size < max(2, world):
            raise ValueError(
                f"batch_size {args.batch_size}, {len(self.counts)} training image(s) on {world} "
                "process(es): a batch needs at least 2 pairs, and one a process"
            )
        there, accumulated = len(self.planned(0)), args.gradient_accumulation_steps
        if there < accumulated:
            raise ValueError(
                f"an epoch has {there} batches, fewer than gradient_accumulation_steps "
                f"{accumulated}"
            )
        self.batches_per_epoch = there - there % accumulated

    def planned(self, epoch: int) -> list[list[Pair]]:
        """The batches of an epoch, as rows and captions."""
        passes = self.options.data.captions_per_epoch
        return epoch_batches(self.options.train.seed, epoch, self.counts, self.batch_size, passes)

    def planned_texts(self, epochs: int) -> Iterator[str]:
        """Every caption and generated text that epochs will ask for, in its order."""
        captions = self.rows["captions"][:]
        for epoch in range(epochs):
            collator = self.loader.collator(epoch)
            for batch in self.planned(epoch):
                for row, caption in batch:
                    of_row = {"epoch": epoch, "row": row, "caption_index": caption}
                    drawn = collator.draw({"captions": captions[row], **of_row})
                    yield from (drawn[kind] for kind in ("caption", *GENERATED) if kind in drawn)

    def batches(self, epoch: int, begin: int) -> Iterator[dict[str, Any]]:
        """This process's share of each batch of an epoch, the first `begin` left out.

        Shares of processes may be uneven.

        Raises:
            RuntimeError: a data worker died.
        """
        own = shares("split", self.batch_size, self.loader.device).own
        keys = [
            [(epoch, row, caption) for row, caption in batch[own]]
            for batch in self.planned(epoch)[begin : self.batches_per_epoch]
        ]
        yield from self.loader.batches(epoch, TrainingRows(self.rows), keys)

    def names(self, rows: list[int]) -> list[str]:
        """Ids of the images of rows that a step has seen."""
        return [str(name) for name in self.rows.select_columns(["image_id"])[rows]["image_id"]]

    def told(self) -> str:
        """What rows and caption indices stand for, in a line."""
        return rows_told(self.rows)

    def state(self) -> None:
        """What a checkpoint must know: nothing, batches are a function of seed and epoch."""

    def load_state(self, state: Any) -> None:
        """Nothing to do."""


Item = TypeVar("Item")


def made_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each begun in a thread when the one before is handed over.

    Pictures are decoded and copied, and steps computed, without Python's lock, so both go on at
    once where there is a second core. An item may be begun that nobody takes.

    Raises:
        Whatever `items` raise, where that item would have come.
    """
    end = object()
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


Pair = tuple[int, int]  # (row, caption index)


def epoch_batches(
    seed: int, epoch: int, caption_counts: Sequence[int], batch_size: int, captions: int = 0
) -> list[list[Pair]]:
    """The batches of an epoch, the same whatever the number of processes and workers.

    An epoch is made of passes; a pass holds every image once, with another caption each time, so
    that no batch holds two captions of one image, each a false negative of the other. The few
    images that do not fill the last batch of a pass are left out of that pass.

    Args:
        seed, epoch: of the run.
        caption_counts: (I,) captions of each image, any number from 1.
        batch_size: pairs in a batch; at most the number of images.
        captions: passes in an epoch; 0 is as many as an image has captions at most.

    Returns:
        Batches of (row, caption index).

    Raises:
        ValueError: fewer images than a batch holds, or a batch of one, which has no negatives.
    """
    counts = np.asarray(caption_counts)
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}; a pair alone has nothing to compete with")
    if len(counts) < batch_size:
        raise ValueError(f"{len(counts)} images do not fill a batch of {batch_size}")
    generator = np.random.default_rng([seed, epoch])
    orders = [generator.permutation(count) for count in counts]
    batches = []
    for number in range(captions or int(counts.max())):
        # with a limit on passes, an image with fewer captions is shown again
        there = np.arange(len(counts)) if captions else np.flatnonzero(counts > number)
        rows = generator.permutation(there)
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            chosen = rows[start : start + batch_size]
            batches.append([(int(r), int(orders[r][number % counts[r]])) for r in chosen])
    return batches


def rows_told(rows: Any) -> str:
    """What rows and caption indices stand for, in a line: other data give other words.

    Args:
        rows: with `image_id` and `captions`; where the pictures lie does not matter.
    """
    ids, captions = rows["image_id"][:], rows["captions"][:]
    digest = hashlib.sha256()
    for image_id, texts in zip(ids, captions, strict=True):
        digest.update(repr((image_id, list(texts))).encode())
    return f"{len(ids)} images, SHA-256 {digest.hexdigest()[:16]}"
