"""Batches of a run: rows in their order, and each rank's share of them."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from ascl_plugin.asymmetry.collator import GENERATED, AsymmetryCollator
from ascl_plugin.data.dense_captions import DENSE
from ascl_plugin.shares import shares
from ascl_plugin.training.arguments import Options
from ascl_plugin.training.balanced_pairs import BalancedPairs, PairCollator
from ascl_plugin.training.signals import kept_from_workers
from ascl_plugin.training.training_rows import RowKey, TrainingRows

Batch = dict[str, Tensor]
Pair = tuple[int, int]  # (row, caption index)
Chosen = tuple[int, "int | tuple[int, ...]"]  # (row, its caption or captions)
Key = TypeVar("Key")
Item = TypeVar("Item")


class Feed(Protocol):
    """A source of batches for the trainer.

    Attributes:
        batch_size: images in a batch, over all ranks; without `captions_per_image`, pairs.
        batches_per_epoch: batches that make whole optimizer steps; the rest is not shown.
    """

    batch_size: int
    batches_per_epoch: int

    def batches(self, epoch: int, begin: int) -> Iterator[Batch]:
        """Yield this rank's share of each batch of an epoch, from the batch `begin`.

        Shares of ranks may be uneven.

        Raises:
            RuntimeError: a data worker died.
        """
        ...

    def planned_texts(self, epochs: int) -> Iterator[str]:
        """Yield every caption and generated text of the epochs, as far as they are known."""
        ...

    def names(self, rows: list[int]) -> list[str]:
        """Return ids of the images of rows that the current step has seen."""
        ...

    def describe(self) -> str:
        """Return one line that differs if row numbers stand for other data."""
        ...

    def state(self) -> list[list[int]] | None:
        """Return the position to keep in a checkpoint. Collective."""
        ...

    def load_state(self, state: list[list[int]] | None) -> None:
        """Go on from `state`, with any number of ranks."""
        ...


class Loader:
    """A loader of this rank's share of each batch."""

    def __init__(self, collator: AsymmetryCollator, options: Options, device: torch.device) -> None:
        # while aligning, nothing is generated that would not be scored
        self.collators = {False: collator, True: collator.without_generated()}
        self.options = options
        self.device = device

    def collator(self, epoch: int) -> AsymmetryCollator:
        """Return the collator of an epoch."""
        return self.collators[epoch < self.options.train.align_epochs]

    def batches(
        self, epoch: int, rows: torch.utils.data.Dataset, keys: Iterable[Sequence[Key]]
    ) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch in the order of their keys, which are read lazily.

        Raises:
            RuntimeError: a data worker died.
        """
        loader = DataLoader(
            rows,
            batch_sampler=keys,  # type: ignore[arg-type]
            collate_fn=PairCollator(self.collator(epoch)),
            num_workers=self.options.data.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        with kept_from_workers():
            batches: Iterator[Batch] = iter(loader)
        if not loader.num_workers:
            yield from made_ahead(batches)
            return
        try:
            yield from batches
        except (ConnectionError, EOFError) as error:  # it died as it handed over a batch
            raise RuntimeError(
                f"DataLoader worker died as it handed over a batch ({error})."
            ) from None
        except BaseException as error:
            # its frames would keep the workers, and these, deaf to signals, this process's end
            raise error.with_traceback(None) from None
        finally:
            del batches


class ListedFeed:
    """A feed of rows that can be listed; see `Feed`.

    Raises:
        ValueError: too few images for a batch, or too few batches for a step.
    """

    def __init__(
        self, rows: Dataset, collator: AsymmetryCollator, options: Options, accelerator: Accelerator
    ) -> None:
        self.rows = rows
        self.options = options
        self.loader = Loader(collator, options, accelerator.device)
        self.counts = [len(captions) for captions in rows["captions"][:]]
        args, world = options.train, accelerator.num_processes
        # a set smaller than a batch is one batch a pass
        self.batch_size = min(args.batch_size, len(self.counts))
        if self.batch_size < max(2, world):
            raise ValueError(
                f"batch_size {args.batch_size}, {len(self.counts)} training image(s) on {world} "
                "process(es): a batch needs at least 2 pairs, and one a process"
            )
        count, accumulated = len(self.planned(0)), args.gradient_accumulation_steps
        if count < accumulated:
            raise ValueError(
                f"an epoch has {count} batches, fewer than gradient_accumulation_steps "
                f"{accumulated}"
            )
        self.batches_per_epoch = count - count % accumulated
        self.pairs: BalancedPairs | None = None
        if given := options.loss.balanced_pairs:
            if given < world:
                raise ValueError(f"balanced_pairs {given} on {world} processes: each needs one")
            kinds = [kind.strip() for kind in options.loss.balanced_kinds.split(",")]
            self.pairs = BalancedPairs(rows, given, kinds, args.seed)

    def planned(self, epoch: int) -> list[list[Chosen]]:
        """Return the batches of an epoch, as rows and captions."""
        data, seed = self.options.data, self.options.train.seed
        return epoch_batches(
            seed, epoch, self.counts, self.batch_size, data.captions_per_epoch,
            data.captions_per_image,
        )  # fmt: skip

    def planned_texts(self, epochs: int) -> Iterator[str]:
        """See `Feed`."""
        captions = self.rows["captions"][:]
        dense = self.rows[DENSE][:] if DENSE in self.rows.column_names else None
        for epoch in range(epochs):
            collator = self.loader.collator(epoch)
            for row, caption in (pair for batch in self.planned(epoch) for pair in batch):
                key = {"epoch": epoch, "row": row, "caption_index": caption}
                key |= {} if dense is None else {DENSE: dense[row]}
                for drawn in collator.draws({"captions": captions[row], **key}):
                    yield from (drawn[kind] for kind in ("caption", *GENERATED) if kind in drawn)
        if self.pairs is not None:
            yield from self.pairs.texts(epochs * self.batches_per_epoch)

    def batches(self, epoch: int, begin: int) -> Iterator[Batch]:
        """See `Feed`."""
        own = shares("split", self.batch_size, self.loader.device).own
        planned = self.planned(epoch)[begin : self.batches_per_epoch]
        keys: list[list[RowKey]] = [
            [(epoch, row, caption) for row, caption in batch[own]] for batch in planned
        ]
        if self.pairs is not None:
            paired = shares("split", self.pairs.count, self.loader.device).own
            first = epoch * self.batches_per_epoch + begin
            for number, batch in enumerate(keys, first):
                for pair in self.pairs.of_batch(number)[paired]:
                    batch += [(epoch, pair.a, pair.with_p), (epoch, pair.b, pair.with_q)]
        yield from self.loader.batches(epoch, TrainingRows(self.rows), keys)

    def names(self, rows: list[int]) -> list[str]:
        """See `Feed`."""
        return [str(name) for name in self.rows.select_columns(["image_id"])[rows]["image_id"]]

    def describe(self) -> str:
        """See `Feed`."""
        return describe_rows(self.rows)

    def state(self) -> None:
        """Return None: batches are a function of seed and epoch."""

    def load_state(self, state: list[list[int]] | None) -> None:
        """Do nothing: see `state`."""


def made_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items, each begun in a thread when the one before is handed over.

    Pictures are decoded, and steps computed, without Python's lock, so with a second core both go
    on at once. The last item that is begun may be dropped.

    Raises:
        Whatever `items` raise, in the place of that item.
    """
    end = object()
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


def epoch_batches(
    seed: int,
    epoch: int,
    caption_counts: Sequence[int],
    batch_size: int,
    captions: int = 0,
    captions_per_image: int = 1,
) -> list[list[Chosen]]:
    """Return the batches of an epoch, the same for any number of ranks and workers.

    An epoch is made of passes. A pass holds every image once, with other captions each time. With
    one caption an image, no batch holds two captions of one image, each a false negative of the
    other; with several, the loss is told. The few images that do not fill the last batch of a pass
    are left out of that pass.

    Args:
        seed: seed of the run.
        epoch: number of the epoch.
        caption_counts: (I,) number of captions of each image, at least 1.
        batch_size: images in a batch; at most the number of images.
        captions: captions of each image in an epoch (0: all it has); with a limit an image that
            has fewer shows them again, in other passes.
        captions_per_image: captions c of each image in a pass, of which there are
            captions / c, rounded up. An image that has fewer brings each once: no text is twice in
            a batch.

    Returns:
        Batches of (row, caption index); if c > 1, of (row, caption indices).

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
    several = captions_per_image

    def chosen(row: int, begin: int) -> Chosen:
        count = int(counts[row])
        if several == 1:
            return row, int(orders[row][begin % count])
        number = min(several, count if captions else count - begin)
        return row, tuple(int(orders[row][(begin + n) % count]) for n in range(number))

    batches = []
    for begin in range(0, captions or int(counts.max()), several):
        # with a limit on passes, an image with fewer captions is shown again
        left = np.arange(len(counts)) if captions else np.flatnonzero(counts > begin)
        rows = generator.permutation(left)
        for start in range(0, len(rows) - batch_size + 1, batch_size):
            batches.append([chosen(int(r), begin) for r in rows[start : start + batch_size]])
    return batches


def describe_rows(rows: Mapping[str, Sequence[Any]]) -> str:
    """Return one line that differs for other images or captions, or another order of them.

    The places of the images do not matter.
    """
    ids, captions = rows["image_id"][:], rows["captions"][:]
    digest = hashlib.sha256()
    for image_id, texts in zip(ids, captions, strict=True):
        digest.update(repr((image_id, list(texts))).encode())
    return f"{len(ids)} images, SHA-256 {digest.hexdigest()[:16]}"
