"""A split, encoded and scored by a trained model, for the pages to ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor

from ascl_plugin.data.images import load_image
from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.demo.regions import RegionBoxes, regions_of
from ascl_plugin.demo.words import unknown_words, word_names
from ascl_plugin.features import F, concatenate
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.fusion.attention_maps import attention_weights
from ascl_plugin.interfaces import NamedOptions, Rows
from ascl_plugin.reranking import Reranker, rerank
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs
from ascl_plugin.retrieval.raw_features import to_inputs
from ascl_plugin.scoring.matrix import score_matrix


class Hit(NamedTuple):
    """One result.

    Attributes:
        item: row of a picture, or number of a caption.
        score: S of the pair, the same before and after re-ranking.
        moved: places won by re-ranking; 0 in a list before it.
        right: True if it belongs to the query; known only for queries of the split.
    """

    item: int
    score: float
    moved: int
    right: bool


class Attention(NamedTuple):
    """Attention between the L real words and K real regions of one pair.

    Attributes:
        words: L names.
        regions: boxes of the K regions.
        words_to_regions: (L, K), see `attention_weights`.
        regions_to_words: (K, L).
    """

    words: list[str]
    regions: RegionBoxes
    words_to_regions: Tensor
    regions_to_words: Tensor


class Gallery:
    """Pictures and captions of a split in memory, with all their scores.

    Threads may share it: it works for one at a time.

    Args:
        evaluator: scores with the model; its `progress` shows bars.
        rows: a split, with all captions of each row; or pictures without captions, which are
            searched by typed words and not re-ranked.
        rerank_options: options of `rerank`.
    """

    def __init__(self, evaluator: Evaluator, rows: Rows, rerank_options: NamedOptions) -> None:
        self.evaluator, self.rows = evaluator, rows
        self.texts, self.owners = caption_to_image(rows)
        self.images = self._encoded(
            "pictures", len(rows), lambda part: evaluator.encode_images([rows[i] for i in part])
        )
        self._working = Lock()
        self.sim, self.reranked = torch.zeros(len(rows), 0), None
        self.for_texts, self.for_pictures = None, None
        if not self.texts:
            return
        self.words = self._encoded(
            "captions",
            len(self.texts),
            lambda part: evaluator.encode_texts([self.texts[i] for i in part]),
        )
        self.sim = score_matrix(
            evaluator.model, self.images, self.words, progress=evaluator.progress
        )
        self.reranked = rerank(self.sim, **rerank_options)
        # for queries that are none of the split's
        self.for_texts = Reranker("nnn").fit(self.sim.T)
        self.for_pictures = Reranker("nnn").fit(self.sim)

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, row: int) -> str:
        """Return the image id of a row, of a folder's picture its path there."""
        return str(self.rows[row]["image_id"])

    def picture(self, row: int) -> Image:
        """Return the picture of a row."""
        return load_image(self.rows[row]["image"], self.rows[row]["image_id"])

    def pictures(self, text: str, count: int = 10) -> tuple[list[Hit], list[Hit]]:
        """Return pictures for a text, the best first, before and after re-ranking.

        A text that is no caption of the split is re-ranked by a `Reranker` that was fitted on them,
        so it is judged by its own scores and the bias of each picture.
        """
        known = [number for number, caption in enumerate(self.texts) if caption == text]
        with self._working:
            if known and self.reranked:
                before, after = self.sim[:, known[0]], self.reranked.t2i[:, known[0]]
            else:
                query = self.evaluator.encode_texts([text])
                before = score_matrix(self.evaluator.model, self.images, query)[:, 0]
                after = self.for_texts.transform(before) if self.for_texts else before
        return both(before, torch.as_tensor(after), set(self.owners[known].tolist()), count)

    def captions(self, row: int, count: int = 10) -> tuple[list[Hit], list[Hit]]:
        """Return captions for a picture, the best first, before and after re-ranking."""
        own = set((self.owners == row).nonzero()[0].tolist())
        if self.reranked is None:
            return [], []
        return both(self.sim[row], torch.as_tensor(self.reranked.i2t[row]), own, count)

    @property
    def takes_pictures(self) -> bool:
        """True if captions can be found for a picture that is not in the split."""
        return bool(self.texts) and isinstance(self.evaluator.images, ImageInputs)

    def captions_of(self, picture: Image, count: int = 10) -> tuple[list[Hit], list[Hit]]:
        """Return captions for a picture that is not in the split, before and after re-ranking.

        It is re-ranked by a `Reranker` that was fitted on the pictures of the split.
        """
        assert self.for_pictures is not None, "captions_of needs takes_pictures"
        model, device = self.evaluator.model, self.evaluator.device
        with self._working, torch.no_grad():
            pixels = model.image_encoder.preprocess(picture)[None]
            image = model.encode_images(to_inputs({"pixel_values": pixels}, device))
            before = score_matrix(model, image, self.words)[0]
        return both(before, torch.as_tensor(self.for_pictures.transform(before)), set(), count)

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that the model does not know."""
        return unknown_words(self.evaluator.model.text_encoder, text)

    def score(self, row: int, text: str) -> float:
        """Return S of one pair."""
        with self._working:
            query = self.evaluator.encode_texts([text])
            return float(score_matrix(self.evaluator.model, self.images[row : row + 1], query))

    @property
    def has_attention(self) -> bool:
        """True if the fusion weighs regions by words, and words by regions."""
        return isinstance(self.evaluator.model.fusion, CrossModalFusion)

    def attention(self, row: int, text: str) -> Attention | None:
        """Return the attention of a pair; None if the fusion has none."""
        head = self.evaluator.model.fusion
        if not isinstance(head, CrossModalFusion):
            return None
        with self._working:
            image, query = self.images[row : row + 1], self.evaluator.encode_texts([text])
            to_words, to_regions = (x.cpu() for x in attention_weights(head, image, query))
            real = to_words.sum(1) > 0, to_regions.sum(1) > 0  # rows of padding are 0
            regions = regions_of(self.evaluator, self.rows[row], int(real[0].sum()))
        names = word_names(self.evaluator.model.text_encoder, text)
        words = [name for name, there in zip(names, real[1].tolist(), strict=True) if there]
        return Attention(
            words, regions, to_regions[real[1]][:, real[0]], to_words[real[0]][:, real[1]]
        )

    def _encoded(self, items: str, count: int, encode: Callable[[range], F]) -> F:
        from tqdm.auto import tqdm

        step, every = self.evaluator.batch_size, range(count)
        starts = tqdm(every[::step], f"encoding {items}", disable=not self.evaluator.progress)
        return concatenate([encode(every[start : start + step]) for start in starts])


def both(
    before: Tensor, after: Tensor, right: Collection[int], count: int
) -> tuple[list[Hit], list[Hit]]:
    """Return the first `count` hits of a query with scores (G,) before and after re-ranking."""
    first, then = (x.argsort(descending=True, stable=True).tolist() for x in (before, after))
    place = {item: number for number, item in enumerate(first)}

    def hits(order: Sequence[int]) -> list[Hit]:
        return [
            Hit(item, float(before[item]), place[item] - number, item in right)
            for number, item in enumerate(order[:count])
        ]

    return hits(first), hits(then)
