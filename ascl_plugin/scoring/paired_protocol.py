"""The published evaluation, in which a text attends to its own image before it is compared.

It exists to reproduce published numbers and to measure the effect, nothing else: the pairing to be
found enters the score, so recall is far above chance even on noise.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ascl_plugin.features import ImageFeatures, TextFeatures, check_features
from ascl_plugin.fusion import CrossModalFusion
from ascl_plugin.fusion.reference import fuse, mean, multi_head
from ascl_plugin.interfaces import HasFusion, Scorer
from ascl_plugin.scoring.matrix import score_matrix

ROW = "paired (leaks)"  # name of the row of recall under this protocol, in every table
LEAKS = (
    'protocol "paired" leaks: each text attends to its own image before it is compared with all, '
    "so the answer is in the score; such numbers cannot be set beside honest ones"
)


class PairedProtocol(nn.Module):
    """Scores of a fusion head as the authors' public code evaluates it. It leaks; it warns.

    ::

        W_g(t) = Xw mean_i(w*_i)                            t attends over its own image
        V_g(i) = Fusion(Xv mean_j(v*_j), Xg G)              i attends over its own first caption
        S = u2 S_local(i, t) + (1 - u2) cos(V_g(i), W_g(t))

    The local part is the head's own, of the candidate pair. `audit` fails it.

    Args:
        head: a `CrossModalFusion`.

    Raises:
        TypeError: another scorer.
        ValueError: a head whose global_score is not "attended": there is nothing to leak.
    """

    whole_gallery = True  # a block of it cannot be scored alone

    def __init__(self, head: CrossModalFusion) -> None:
        super().__init__()
        if not isinstance(head, CrossModalFusion):
            raise TypeError(f"PairedProtocol takes a CrossModalFusion, got {type(head).__name__}")
        if head.global_score != "attended":
            raise ValueError(
                f'PairedProtocol needs global_score "attended", got {head.global_score!r}'
            )
        warnings.warn(LEAKS, UserWarning, stacklevel=2)
        self.head = head

    def forward(
        self,
        images: ImageFeatures,
        texts: TextFeatures,
        caption_to_image: Sequence[int] | Tensor | None = None,
    ) -> Tensor:
        """Return the scores (I, T) of a whole gallery; by default text i belongs to image i."""
        owners = torch.arange(len(texts)) if caption_to_image is None else caption_to_image
        local = with_local_weight(self.head, 1.0)(images, texts)
        return self.combine(local, *self.vectors(images, texts, owners))

    def vectors(
        self, images: ImageFeatures, texts: TextFeatures, caption_to_image: Sequence[int] | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return V_g (I, D) and W_g (T, D), of unit length, on the head's device.

        Raises:
            ValueError: caption_to_image without an image for each text, or leaving one out.
        """
        owners = _owners(caption_to_image, len(images), len(texts))
        head, device = self.head, self.head.gate.weight.device
        w_g, v_g = [], {}
        for t, i in enumerate(owners):
            image, text = images[i : i + 1].to(device), texts[t : t + 1].to(device)
            v = image.regions[0] if image.mask is None else image.regions[image.mask]
            w = text.words[0] if text.mask is None else text.words[text.mask]
            w_g.append(head.text_global(mean(multi_head(head.image_to_text, v, w))))
            if i not in v_g:  # the first caption of the image
                assert image.pooled is not None
                seen = head.image_global(mean(multi_head(head.text_to_image, w, v)))
                v_g[i] = fuse(head, seen, head.pooled_global(image.pooled[0]))
        in_order = [v_g[i] for i in range(len(images))]
        return normalize(torch.stack(in_order), dim=-1), normalize(torch.stack(w_g), dim=-1)

    def combine(self, local: Tensor, v_g: Tensor, w_g: Tensor) -> Tensor:
        """Return u2 S_local + (1 - u2) S_global of a block, of its local scores and vectors."""
        u2 = float(self.head.u2)
        return u2 * local + (1 - u2) * (v_g @ w_g.T).to(local)


@torch.no_grad()
def paired_matrix(
    model: Scorer | HasFusion,
    images: ImageFeatures,
    texts: TextFeatures,
    caption_to_image: Sequence[int] | Tensor,
    progress: bool = False,
    processes: str = "one",
) -> Tensor:
    """Return the scores (I, T) of `PairedProtocol`, fp32 on the CPU. It leaks; it warns.

    Args:
        model: a `CrossModalFusion`, or a model whose `fusion` is one.
        images, texts, progress, processes: see `score_matrix`; ranks cannot have their "own"
            images.
        caption_to_image: (T,) image of each text.

    Raises:
        TypeError, ValueError: see `PairedProtocol`, `score_matrix`.
    """
    check_features(images, texts)
    if processes == "own":
        raise ValueError('the paired protocol goes with processes="one" or "split"')
    head: Any = getattr(model, "fusion", model)
    paired = PairedProtocol(head)
    v_g, w_g = (x.float().cpu() for x in paired.vectors(images, texts, caption_to_image))
    local = with_local_weight(paired.head, 1.0)
    sim = score_matrix(local, images, texts, progress=progress, processes=processes)
    for part, vectors in zip(sim.split(256), v_g.split(256), strict=True):
        part.copy_(paired.combine(part, vectors, w_g))
    return sim


def with_local_weight(head: CrossModalFusion, local_weight: float) -> CrossModalFusion:
    """Return a head with the same weights whose score is S_local (1.0), S_global (0.0) or a mix."""
    other = copy.copy(head)
    other.local_weight, other.learn_local_weight = local_weight, False
    return other


def _owners(caption_to_image: Sequence[int] | Tensor, images: int, texts: int) -> list[int]:
    owners = torch.as_tensor(caption_to_image).cpu().long()
    if owners.shape != (texts,):
        raise ValueError(
            f"caption_to_image has shape {tuple(owners.shape)}, there are {texts} texts"
        )
    if texts and not 0 <= int(owners.min()) <= int(owners.max()) < images:
        raise ValueError(f"caption_to_image points beyond the {images} images")
    alone = (owners.bincount(minlength=images) == 0).nonzero()
    if len(alone):
        raise ValueError(f"caption_to_image: image {int(alone[0])} has no caption to attend to")
    return owners.tolist()
