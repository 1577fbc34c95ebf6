"""`Reranker`: a correction fitted once on a bank of queries, then applied to any query alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ascl_plugin.reranking import reranker_file
from ascl_plugin.reranking.bank import Bank
from ascl_plugin.reranking.bank_check import BankCheck, compare_occurrence
from ascl_plugin.reranking.correction import BankMethod, Correction, State, fittable, placed
from ascl_plugin.reranking.methods import find_method
from ascl_plugin.reranking.options import check_known
from ascl_plugin.reranking.reorder import widened
from ascl_plugin.scores import Array, as_tensor, check_scores

if TYPE_CHECKING:
    from typing import Self


class Reranker:
    """A re-ranking method fitted on a bank of queries; not transductive.

    The bank is other queries of the kind that will be asked, without labels: past queries, or those
    of a training or validation split. Fitted, a query's result depends on that query and the bank.
    The gallery is whatever the columns are, so the same class serves both directions.

    Args:
        method: the name of a correction, such as "inverted_softmax", "nnn", "csls" or "qb_norm";
            `ascl_plugin.reranking.correction.fittable` lists them. Or a `BankMethod`.
        options: those of the method, see `rerank`; a temperature is in units of the score.

    Attributes:
        method: the name.
        options: all options, the defaults among them.
        bank_size: number of bank queries seen.

    Raises:
        TypeError: an option that the method does not have.
        ValueError: an unknown method, one that cannot be fitted, an option out of its bounds.

    Examples:
        >>> import numpy as np
        >>> from ascl_plugin import Reranker
        >>> bank = np.array([[0.9, 0.1], [0.7, 0.1]])  # every query likes item 0: a hub
        >>> reranker = Reranker("nnn", alpha=0.5, neighbors=2).fit(bank)
        >>> reranker.transform(np.array([0.6, 0.5])).round(2)
        array([0.2 , 0.45])
    """

    def __init__(self, method: str | BankMethod, **options: object) -> None:
        self.method, function = find_method(method)
        if not isinstance(function, BankMethod):
            raise ValueError(
                f"Reranker: method {self.method!r} needs the scores of all queries at once and "
                f"cannot be fitted; there are {', '.join(fittable())}"
            )
        given = {name: value for name, value in options.items() if value is not None}
        check_known(self.method, function.correction, given)
        self._correction: Correction = function.correction(**given)
        self.options = asdict(self._correction)
        self.bank_size = 0
        self._state: State = {}
        self._summary: State = {}
        self._held: Tensor | None = None
        self._numpy = True

    @torch.no_grad()
    def fit(
        self,
        bank_scores: Array | None = None,
        *,
        bank_vectors: Array | None = None,
        gallery_vectors: Array | None = None,
        hold_back: int = 0,
    ) -> Self:
        """Learn from a bank, and forget an earlier one; works in blocks, so a mapped file will do.

        Args:
            bank_scores: (B, G), scores of bank queries with the gallery, higher is nearer.
            bank_vectors: (B, D), in place of scores; a score is an inner product.
            gallery_vectors: (G, D); beside them, 1 GB of scores is in memory at once.
            hold_back: number of bank queries, evenly spaced, that are not learned from but kept
                for `check`; their scores (hold_back, G) stay in memory.

        Raises:
            TypeError: not arrays of floats.
            ValueError: both scores and vectors or neither, shapes that do not fit, NaN or infinity
                (with row and column).
        """
        bank = Bank(bank_scores, bank_vectors, gallery_vectors, hold_back)
        self._state = self._correction.fit(bank.blocks)
        self._finish(bank, bank.learned)
        self._held = torch.cat(list(bank.held())) if hold_back else None
        return self

    @torch.no_grad()
    def partial_fit(
        self,
        bank_scores: Array | None = None,
        *,
        bank_vectors: Array | None = None,
        gallery_vectors: Array | None = None,
    ) -> Self:
        """Learn from more bank queries of the same gallery; the arguments are those of `fit`.

        Raises:
            ValueError: as `fit`; another number of gallery items; a method that needs several
                passes over its bank; a `Reranker` from a file, which keeps no statistics.
        """
        if not self._correction.streams():
            raise ValueError(
                f"Reranker: {self.method!r} takes several passes over its bank: pass it to fit"
            )
        if self.bank_size and not self._state:
            raise ValueError("Reranker: a file keeps no statistics to continue from: fit anew")
        bank = Bank(bank_scores, bank_vectors, gallery_vectors, 0)
        if self._summary:
            other = self._correction.other_columns
            self._check_gallery(bank.gallery - other, "the bank")
        state = self._state
        for block in bank.blocks():
            state = self._correction.update(state, block)
            del block  # before the next is made
        self._state = state
        self._finish(bank, self.bank_size + bank.learned)
        return self

    @torch.no_grad()
    def transform(self, query_scores: Array) -> Array:
        """Return corrected scores, higher first; a query's are the same alone and among others.

        Args:
            query_scores: (Q, G) or (G,), numpy or torch.

        Returns:
            Corrected scores of the same shape and type, in float32, in float64 for float64:
            rounded to 16 bits they would tie.

        Raises:
            TypeError: not an array of floats.
            ValueError: not fitted, another number of gallery items, NaN or infinity.
        """
        one = getattr(query_scores, "ndim", 2) == 1
        given = query_scores[None] if one else query_scores
        scores = as_tensor(given, "query_scores", "(queries, gallery)")
        self._check_gallery(scores.shape[1], "query_scores")
        check_scores(scores, "query_scores")
        scores = widened(scores)
        summary = {name: placed(values, scores) for name, values in self._summary.items()}
        if self._correction.additive():
            result = self._correction.correct(summary, scores)
        else:  # row by row: sums and exponentials may differ in the last bit by place in a matrix
            result = torch.empty_like(scores, memory_format=torch.contiguous_format)
            for row, values in zip(result, scores, strict=True):
                row[:] = self._correction.correct(summary, values.clone()[None])[0]
        result = result[0] if one else result
        return result.numpy() if isinstance(given, np.ndarray) else result

    @property
    def gallery_bias(self) -> Array:
        """Numbers added to each gallery item's scores, (G,), in the type of the bank.

        Raises:
            ValueError: not fitted, or a method that is not additive.
        """
        bias = self._bias()
        return bias.numpy() if self._numpy else bias

    @torch.no_grad()
    def augment_gallery(self, gallery_vectors: Array) -> Array:
        """Return (G, D + 1): the vectors with the bias as one more number each.

        The inner product with `augment_queries` is the corrected score, so an index of inner
        products (not of cosines) corrects at no cost. The vectors must be those whose inner
        products were the scores of the bank.
        """
        bias = self._bias()
        vectors = as_tensor(gallery_vectors, "gallery_vectors", "(gallery, width)")
        self._check_gallery(len(vectors), "gallery_vectors")
        check_scores(vectors, "gallery_vectors")
        return _with_column(vectors, placed(bias, widened(vectors[:1]))[:, None], gallery_vectors)

    @torch.no_grad()
    def augment_queries(self, query_vectors: Array) -> Array:
        """Return (Q, D + 1) or, for one query (D,), (D + 1,): the vectors with a 1 at the end."""
        self._bias()
        one = getattr(query_vectors, "ndim", 2) == 1
        given = query_vectors[None] if one else query_vectors
        vectors = as_tensor(given, "query_vectors", "(queries, width)")
        check_scores(vectors, "query_vectors")
        result = _with_column(vectors, vectors.new_ones(len(vectors), 1), given)
        return result[0] if one else result

    @torch.no_grad()
    def check(self, validation_scores: Array | None = None, k: int = 10) -> BankCheck:
        """Compare hubness before and after on queries that the bank does not hold; no labels.

        Args:
            validation_scores: (V, G), scores of queries as they will be asked, a few hundred; None:
                the bank queries that `fit` held back.
            k: number of first results in which a gallery item counts as found.

        Raises:
            ValueError: not fitted, no queries, another number of gallery items, NaN or infinity.
        """
        if validation_scores is None:
            if self._held is None:
                raise ValueError(
                    "Reranker.check needs queries that were not learned from: pass "
                    "validation_scores, or fit(..., hold_back=500)"
                )
            scores: Array = self._held[:, : self.gallery_size]
        else:
            scores = validation_scores
        before = as_tensor(scores, "validation_scores", "(queries, gallery)")
        after = torch.as_tensor(self.transform(scores))
        return compare_occurrence(before, after, k)

    def save(self, path: str | Path) -> None:
        """Write what `transform` needs to a safetensors file; the bank's statistics are left out.

        Raises:
            ImportError: safetensors is not installed.
            OSError: the file cannot be written.
            ValueError: not fitted.
        """
        self._check_fitted()
        reranker_file.write(Path(path), self.method, self.options, self.bank_size, self._summary)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return a fitted `Reranker` from a file of `save`; nothing in it is executed.

        Raises:
            FileNotFoundError: no such file.
            ImportError: safetensors is not installed.
            ValueError: no such file of a Reranker, or of a method that is not installed.
        """
        found = reranker_file.read(Path(path))
        try:
            result = cls(found.method, **found.options)
            gallery = next(iter(found.summary.values())).shape[-1]
            trial = result._correction.correct(found.summary, torch.zeros(1, gallery))
            if trial.shape != (1, gallery) or not trial.isfinite().all():
                raise ValueError("its numbers do not give finite scores")
        except (ValueError, TypeError, KeyError, RuntimeError, IndexError) as error:
            raise ValueError(f"{path}: no file of Reranker.save: {error}") from error
        result._summary, result.bank_size = found.summary, found.bank_size
        return result

    def fitted(self) -> tuple[Correction, State]:
        """Return the correction and its tensors, for `rerank_candidates`."""
        self._check_fitted()
        return self._correction, self._summary

    def __repr__(self) -> str:
        """Return method, options and sizes."""
        words = [repr(self.method), *(f"{name}={value}" for name, value in self.options.items())]
        size = f"{self.bank_size} bank queries, {self.gallery_size} gallery items"
        return f"<Reranker({', '.join(words)}): {size if self._summary else 'not fitted'}>"

    @property
    def gallery_size(self) -> int:
        """Number of gallery items."""
        self._check_fitted()
        return next(iter(self._summary.values())).shape[-1]

    def _finish(self, bank: Bank, bank_size: int) -> None:
        summary = self._correction.summary(self._state)
        for name, values in summary.items():
            if not values.isfinite().all():
                raise ValueError(
                    f"Reranker: {name} is not finite: scores of the bank are too large for a "
                    "float32, or for these options; scale the vectors or raise the temperature"
                )
        self._summary, self.bank_size, self._numpy = summary, bank_size, bank.numpy

    def _check_fitted(self) -> None:
        if not self._summary:
            raise ValueError("Reranker is not fitted: call fit with scores of a bank first")

    def _check_gallery(self, count: int, name: str) -> None:
        if count != self.gallery_size:
            raise ValueError(
                f"{name} has {count} gallery items, the Reranker was fitted on {self.gallery_size}"
            )

    def _bias(self) -> Tensor:
        self._check_fitted()
        if not self._correction.additive():
            found = {name: find_method(name)[1] for name in fittable()}
            additive = [
                n for n, f in found.items() if isinstance(f, BankMethod) and f.correction.additive()
            ]
            raise ValueError(
                f"Reranker: {self.method!r} does more than add a number to each gallery item, so "
                f"it has no bias to export; use transform, or one of {', '.join(additive)}"
            )
        return self._summary["bias"]


def _with_column(vectors: Tensor, column: Tensor, given: Array) -> Array:
    result = torch.cat([widened(vectors), widened(column)], dim=1)
    return result.numpy() if isinstance(given, np.ndarray) else result
