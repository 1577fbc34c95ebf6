"""Right pairs of a score matrix, and the weights of each in the two means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascl_plugin.features import wide


@dataclass(frozen=True)
class RightPairs:
    """P right pairs of I images and T texts.

    Attributes:
        image, text: (P,), row and column of each pair.
        weight: (P,), as given in `targets`; 1 for indices and bools.
        of_image: (P,), weight over the sum of weights of the pair's image.
        of_text: (P,), weight over the sum of weights of the pair's text.
    """

    image: Tensor
    text: Tensor
    weight: Tensor
    of_image: Tensor
    of_text: Tensor

    @property
    def index(self) -> tuple[Tensor, Tensor]:
        """The pairs as an index of the score matrix."""
        return self.image, self.text

    def weigh(self, image_terms: Tensor, text_terms: Tensor) -> Tensor:
        """Return (P,), whose mean is mean_i sum_t w_it image_terms + mean_t sum_i v_it text_terms.

        w = `of_image` sums to 1 over the pairs of an image, v = `of_text` over those of a text;
        the means are over images, and texts, that have a right pair.
        """
        of_image, of_text = self.of_image, self.of_text
        return image_terms * (of_image / of_image.mean()) + text_terms * (of_text / of_text.mean())


def right_pairs(sim: Tensor, targets: Tensor | None, ignore: Tensor | None) -> RightPairs:
    """Return the right pairs of `sim` (I, T); see `asymmetry_loss` for `targets` and `ignore`.

    Raises:
        ValueError: a shape that does not fit, an index or weight out of range, or no right pair.
    """
    images, texts = sim.shape
    if ignore is not None and (ignore.dtype != torch.bool or ignore.shape != sim.shape):
        raise ValueError(
            f"ignore must be bool of sim's shape {(images, texts)}, "
            f"got {ignore.dtype} of {tuple(ignore.shape)}"
        )
    dtype = wide(sim.new_empty(0)).dtype
    if targets is not None and targets.ndim == 2:
        image, text, weight = _of_matrix(targets.to(dtype), sim, ignore)
    else:
        image, text = _of_indices(targets, sim, ignore)
        weight = sim.new_ones(len(text), dtype=dtype)
    if not len(text):
        raise ValueError("targets has no right pair that is not ignored")
    of_image, of_text = (
        weight / weight.new_zeros(count).index_add(0, place, weight)[place]
        for place, count in ((image, images), (text, texts))
    )
    return RightPairs(image, text, weight, of_image, of_text)


def _of_matrix(
    targets: Tensor, sim: Tensor, ignore: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, text and weight of the entries above 0."""
    if targets.shape != sim.shape:
        raise ValueError(
            f"targets must be (T,) = ({sim.shape[1]},) or of sim's shape {tuple(sim.shape)}, "
            f"got {tuple(targets.shape)}"
        )
    if ignore is not None:
        targets = targets.masked_fill(ignore, 0)
    image, text = targets.nonzero(as_tuple=True)
    weight = targets[image, text]
    if not ((weight > 0) & (weight < torch.inf)).all():
        raise ValueError("targets must be bool or weights in [0, inf): a weight is not")
    return image, text, weight


def _of_indices(
    targets: Tensor | None, sim: Tensor, ignore: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return image and text of each text that has an image: `targets`, None for the diagonal."""
    images, texts = sim.shape
    text = torch.arange(texts, device=sim.device)
    image = text if targets is None else targets
    if image.shape != (texts,) or image.is_floating_point() or image.dtype == torch.bool:
        raise ValueError(
            f"targets must be whole numbers (T,) = ({texts},), or of sim's shape "
            f"{(images, texts)}, got {image.dtype} of {tuple(image.shape)}"
        )
    if targets is not None:
        image = image.to(sim.device, torch.int64)
        if not -1 <= image.min() <= image.max() < images:
            raise ValueError(
                f"targets must be rows of sim, 0 to {images - 1}, or -1, "
                f"got {image.min().item()} to {image.max().item()}"
            )
        text = text[image >= 0]
        image = image[text]
    if ignore is not None:
        counted = ~ignore[image, text]
        image, text = image[counted], text[counted]
    return image, text
