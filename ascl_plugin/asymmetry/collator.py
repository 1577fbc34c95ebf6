"""Batches of tensors from rows of data, with generated positives and seeds of negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.asymmetry.captions.text_edits import NEGATIVE_EDITS, POSITIVE_EDITS, TextEdits
from ascl_plugin.asymmetry.embedding import NEGATIVES
from ascl_plugin.asymmetry.hugging_face import HuggingFace, processed_by, tokenized_by
from ascl_plugin.asymmetry.text import POSITIVES, generate_positive
from ascl_plugin.interfaces import Row

# beyond every caption index: the draws of views and partners are their own
_VIEW, _PARTNER = 2**31, 2**31 + 1
_UNKNOWN = -1  # epoch
GENERATED = ("positive", "negative", "positive_negative")  # texts generated beside a caption


class AsymmetryCollator:
    """Collate function for image-text pairs with generated positives and negatives.

    Generated positives (Asymmetry-II and -III) are made here, on raw text, and so are negatives
    that are edits of it. Noises (Asymmetry-I) act on embeddings, which exist only in the model:
    here each pair gets their seed. Where the epoch is known, by the row or by `set_epoch`,
    everything drawn is a function of (seed, epoch, row, caption): a batch is the same with any
    number of workers or processes. Where it is not, draws come from torch's generator, as those of
    any augmentation: workers and epochs differ, and `torch.manual_seed` repeats them.

    Args:
        texts: list of T strings -> dict of tensors with T rows each (a tokenizer's
            `input_ids`, `attention_mask`; or `words`, `word_mask` looked up in a cache).
        images: list of rows -> dict of tensors (`pixel_values`, or `regions` and `pooled`); or an
            image processor of transformers, for the pictures in `image_column`; None leaves images
            out.
        positives: one of `ascl_plugin.asymmetry.POSITIVES`. "join", with several captions an image:
            T+ is a caption and another one of the image, each encoded alone; the batch says which.
        negatives: one of `ascl_plugin.asymmetry.NEGATIVES`; "none" leaves the seeds out.
        seed: seed of everything drawn.
        edits: maker of positives and negatives that are `TextEdits`.
        captions_per_image: captions of an image in a batch; an image that has fewer brings each
            once.
        mirror_views: mirror half of the images, drawn for each (seed, epoch, row).
        text_draws: number of epochs after which the generated texts of a caption come again (0:
            never), so that a frozen encoder has few of them to encode. Noises are new each epoch.
        tokenizer: a tokenizer of transformers, in place of `texts`.
        caption_column, image_column: columns of captions, a list or one string, and of pictures.

    A row has `captions` (list of str) and may have `row` (index in the data; default: known by its
    `image_id` and captions), `epoch` (default: as `set_epoch` said), `caption_index` (one or, with
    several captions an image, a list of them; default: drawn), `dense_captions` (in place of
    concatenation) and what `images` reads.

    Returns:
        Calling it gives a dict of tensors, of N images and T texts (T = N with one caption an
        image): what `texts` and `images` return, the same of the generated positives under keys
        prefixed `positive_`, `noise_seed`, `positive_noise_seed` and `caption_index` (T,) int64,
        `row` (N,) int64. With edits, the negatives' tensors under `negative_` and
        `positive_negative_` in place of the seeds. With several captions an image, `image_of_text`
        (T,) int64, the place of each text's image in the batch; with "join", `partner` (T,) int64,
        the place of the caption that each is joined with: itself, if its image has no other.

    Raises:
        ValueError: an unknown strategy; one that needs `edits`; "join" with one caption an image; a
            row without captions or with an empty one; `captions_per_image` below 1; neither `texts`
            nor `tokenizer`, or both.

    Examples:
        >>> collate = AsymmetryCollator(  # doctest: +SKIP
        ...     tokenizer=AutoTokenizer.from_pretrained(name),
        ...     images=AutoImageProcessor.from_pretrained(name),
        ...     caption_column="caption",
        ... )
    """

    def __init__(
        self,
        texts: Callable[[list[str]], dict[str, Tensor]] | None = None,
        images: Callable[[Sequence[Row]], dict[str, Tensor]] | HuggingFace | None = None,
        positives: str = "mixed",
        negatives: str = "mixture",
        seed: int = 0,
        edits: TextEdits | None = None,
        captions_per_image: int = 1,
        mirror_views: bool = False,
        text_draws: int = 0,
        tokenizer: HuggingFace | None = None,
        caption_column: str = "captions",
        image_column: str = "image",
    ) -> None:
        if positives not in POSITIVES:
            raise ValueError(f"positives must be one of {', '.join(POSITIVES)}, got {positives!r}")
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives must be one of {', '.join(NEGATIVES)}, got {negatives!r}")
        edited = positives in POSITIVE_EDITS or negatives in NEGATIVE_EDITS
        if (edits is None) == edited:
            raise ValueError(
                "edits, TextEdits of training captions, go with positives or negatives that are "
                f"edits of texts, got positives {positives!r}, negatives {negatives!r}"
            )
        if captions_per_image < 1:
            raise ValueError(f"captions_per_image must be at least 1, got {captions_per_image}")
        if text_draws < 0:
            raise ValueError(f"text_draws must be 0 or more, got {text_draws}")
        if positives == "join" and captions_per_image == 1:
            raise ValueError('positives "join" needs captions_per_image of at least 2')
        if texts is not None and tokenizer is None:
            self.texts = texts
        elif tokenizer is not None and texts is None:
            self.texts = tokenized_by(tokenizer)
        else:
            raise ValueError("give texts=, a function, or tokenizer=, of transformers: one of them")
        self.images = (
            processed_by(images, image_column) if isinstance(images, HuggingFace) else images
        )
        self.caption_column = caption_column
        self.positives = positives
        self.negatives = negatives
        self.seed = seed
        self.edits = edits
        self.captions_per_image = captions_per_image
        self.mirror_views = mirror_views
        self.text_draws = text_draws
        self._kept: dict[tuple[int, ...], dict[str, str]] = {}
        self._epoch = torch.tensor(_UNKNOWN).share_memory_()  # workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of rows that do not say theirs, also in workers; -1: unknown again."""
        self._epoch.fill_(epoch)

    def without_generated(self) -> AsymmetryCollator:
        """Return the collator that draws the same captions and views, and generates nothing."""
        found = AsymmetryCollator(
            self.texts, self.images, "none", "none", self.seed, None, self.captions_per_image,
            self.mirror_views, caption_column=self.caption_column,
        )  # fmt: skip
        found._epoch = self._epoch
        return found

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the batch of N rows; see the class."""
        rows = [self._with_captions(row) for row in rows]
        of_images = [self.draws(row, place) for place, row in enumerate(rows)]
        drawn = [draw for draws in of_images for draw in draws]
        batch = dict(self.texts([d["caption"] for d in drawn]))
        if self.images is not None:
            batch |= self.images([self.viewed(row) for row in rows])
        for kind in GENERATED:
            if kind in drawn[0]:
                texts = self.texts([d[kind] for d in drawn])
                batch |= {f"{kind}_{key}": value for key, value in texts.items()}
        for key in ("caption_index", "noise_seed", "positive_noise_seed"):
            if key in drawn[0]:
                batch[key] = torch.tensor([d[key] for d in drawn])
        batch["row"] = torch.tensor([draws[0]["row"] for draws in of_images])
        if self.captions_per_image > 1:
            counts = torch.tensor([len(draws) for draws in of_images])
            batch["image_of_text"] = torch.arange(len(rows)).repeat_interleave(counts)
        if self.positives == "join":
            batch["partner"] = self._partners(rows, [len(draws) for draws in of_images])
        return batch

    def _with_captions(self, row: Row) -> Row:
        """Return the row with its captions as a list under `captions`."""
        if self.caption_column not in row:
            raise ValueError(f"a row has no column {self.caption_column!r}, but {', '.join(row)}")
        captions = row[self.caption_column]
        return {**row, "captions": [captions] if isinstance(captions, str) else captions}

    def draw(self, row: Row, place: int = 0) -> dict[str, Any]:
        """Return the first of `draws`."""
        return self.draws(row, place)[0]

    def draws(self, row: Row, place: int = 0) -> list[dict[str, Any]]:
        """Draw for one row its captions and, for each, its T+, its negatives or their seeds."""
        captions = row["captions"]
        number = int(row.get("row", place))  # returned and named; draws start from `_origin`
        if not len(captions) or not all(caption.strip() for caption in captions):
            raise ValueError(
                f"row {number} (image {row.get('image_id', '?')}) has no captions or an empty one"
            )
        origin = self._origin(row)
        chosen = row.get("caption_index")
        if chosen is None:
            generator = np.random.default_rng(origin)
            if self.captions_per_image == 1:
                chosen = int(generator.integers(len(captions)))
            else:
                chosen = generator.permutation(len(captions))[: self.captions_per_image].tolist()
        several = chosen if isinstance(chosen, list | tuple) else [chosen]
        dense = row.get("dense_captions") or ()
        return [
            {"row": number, **self._draw(captions, int(index), origin, dense)} for index in several
        ]

    def _origin(self, row: Row) -> list[int]:
        """Return the numbers that all draws for a row start from."""
        epoch = int(row.get("epoch", self._epoch))
        if epoch == _UNKNOWN:
            return [self.seed, int(torch.randint(2**62, ()))]
        if "row" in row:
            return [self.seed, epoch, int(row["row"])]
        name = repr((row.get("image_id"), list(row["captions"]))).encode()
        return [self.seed, epoch, int.from_bytes(blake2b(name, digest_size=8).digest(), "little")]

    def _repeated(self, origin: list[int]) -> list[int]:
        """Return the numbers that generated texts start from; see `text_draws`."""
        if not self.text_draws or len(origin) < 3:  # without an epoch there is nothing to repeat
            return origin
        seed, epoch, row = origin
        return [seed, epoch % self.text_draws, row]

    def _draw(
        self,
        captions: Sequence[str],
        chosen: int,
        origin: list[int],
        dense: Sequence[str],
    ) -> dict[str, Any]:
        drawn: dict[str, Any] = {"caption_index": chosen, "caption": captions[chosen]}
        if self.positives in ("join", "none") and self.negatives == "none":
            return drawn
        drawn |= self._texts(captions, chosen, self._repeated(origin), dense)
        if self.negatives != "none" and self.negatives not in NEGATIVE_EDITS:
            seeds = np.random.default_rng([*origin, chosen]).integers(2**62, size=2)
            drawn["noise_seed"] = int(seeds[0])
            if self.positives != "none":
                drawn["positive_noise_seed"] = int(seeds[1])
        return drawn

    def _texts(
        self, captions: Sequence[str], chosen: int, origin: list[int], dense: Sequence[str]
    ) -> dict[str, str]:
        """Return the generated texts of a caption, those that come again from memory."""
        key = (*origin, chosen)
        if key in self._kept:
            return self._kept[key]
        generator = np.random.default_rng(key)
        # drawn for all strategies, so that one switched off leaves the others unchanged
        seeds = generator.integers(2**62, size=2)
        found: dict[str, str] = {}
        if self.positives not in ("join", "none"):
            found["positive"] = self._positive(captions, chosen, generator, dense)
        if self.edits is not None and self.negatives in NEGATIVE_EDITS:
            texts = {"negative": captions[chosen], "positive_negative": found.get("positive")}
            for (name, text), seed in zip(texts.items(), seeds, strict=True):
                if text is not None:
                    chance = np.random.default_rng(int(seed))
                    found[name] = self.edits.negative(text, captions, self.negatives, chance)
        if self.text_draws and len(origin) == 3:
            self._kept[key] = found
        return found

    def _positive(
        self,
        captions: Sequence[str],
        chosen: int,
        generator: np.random.Generator,
        dense: Sequence[str],
    ) -> str:
        if self.edits is not None and self.positives in POSITIVE_EDITS:
            return self.edits.positive(captions[chosen], captions, self.positives, generator)
        return generate_positive(captions, chosen, self.positives, generator, dense)

    def _partners(self, rows: Sequence[Row], counts: Sequence[int]) -> Tensor:
        """Return the place of each text's partner: the next in a drawn circle of its image's."""
        partners, begin = [], 0
        for row, count in zip(rows, counts, strict=True):
            circle = np.random.default_rng([*self._origin(row), _PARTNER]).permutation(count)
            partner = np.empty(count, np.int64)
            partner[circle] = begin + np.roll(circle, -1)
            partners.append(partner)
            begin += count
        return torch.from_numpy(np.concatenate(partners))

    def viewed(self, row: Row) -> Row:
        """Return the row with the view that is drawn for it."""
        if not self.mirror_views:
            return row
        generator = np.random.default_rng([*self._origin(row), _VIEW])
        return {**row, "mirrored": bool(generator.integers(2))}
