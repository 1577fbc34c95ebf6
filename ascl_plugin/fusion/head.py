"""The hierarchical cross-modal fusion head: its parameters, its weights, its choice of backend."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import factored, reference
from ascl_plugin.fusion import triton_backend as kernels
from ascl_plugin.fusion.prepared import (
    Prepared,
    PreparedImages,
    PreparedTexts,
    prepare_images,
    prepare_texts,
)
from ascl_plugin.fusion.tile_scores import Parts

# A backend turns (head, images, texts, with_global) into the local and the global score, (I, T)
# each; the latter is unused unless `with_global`. All give the same numbers; "auto" is the fastest
# that runs on the inputs at hand.
BACKENDS: dict[str, Callable[..., Parts]] = {
    "reference": reference.score_parts,
    "factored": factored.score_parts,
    "triton": kernels.score_parts,
}


class CrossAttention(nn.Module):
    """Parameters of one direction of the multi-head attention (ACF-R+, equation 6).

    Keys and values share one projection. Started orthogonal with Zq = Zk and Zo = Zk^T, so that
    before any training a query attends to what it resembles and the attended vector lies in the
    space of what was attended to; from there every matrix is free.

    Args:
        dim: width D of queries and keys.
        num_heads: H; must divide D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = 1 / math.sqrt(dim / num_heads)
        self.query = nn.Linear(dim, dim, bias=False)  # Zq of all heads, side by side
        self.key = nn.Linear(dim, dim, bias=False)  # Zk, for keys and values
        self.output = nn.Linear(dim, dim, bias=False)  # Zo
        nn.init.orthogonal_(self.key.weight)
        with torch.no_grad():
            self.query.weight.copy_(self.key.weight)
            self.output.weight.copy_(self.key.weight.T)


class SliceAttention(nn.Module):
    """Attention without parameters: heads are slices of D, logits are products times `scale`."""

    def __init__(self, num_heads: int, scale: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.query = self.key = self.output = nn.Identity()


class CrossModalFusion(nn.Module):
    """Scores every image of a set against every text, by regions and words and as wholes.

    With W* the text as each region attends to it and V* the image as each word attends to it
    (ACF-R+, equations 6-15; AsCL, sections 2.3 and 2.4)::

        S_local  = u1 mean_i cos(v_i, w*_i) + (1 - u1) mean_j cos(w_j, v*_j)
        W_g = Xw mean_i(w*_i)      V_g = Fusion(Xv mean_j(v*_j), Xg G)
        S_global = cos(V_g, W_g)
        S = u2 S_local + (1 - u2) S_global

    The papers leave ``Fusion`` open; here it is a gate, z = sigmoid(A[a; b] + c) and
    Fusion(a, b) = z a + (1 - z) b. Every (image, text) pair is attended on its own: a score depends
    on nothing else in the batch.

    Args:
        dim: joint width D of regions, words and the whole-image feature.
        num_heads: attention heads H; must divide D.
        local_weight: u2, the weight of the local score, in [0, 1].
        direction_weight: u1, the weight of region-to-text against word-to-image, in [0, 1].
        attention: "projected" (learned Zq, Zk, Zo a direction, logits / sqrt(D/H)) or
            "parameter-free" (heads are slices of D, logits times `smoothing`).
        smoothing: factors of the logits (region-to-text, word-to-image), "parameter-free" only.
        gate_bias: added to c at the start; below 0 the whole-image feature leads in V_g, which
            pretrained encoders deserve.

    Shapes:
        images.regions (I, K, D), images.pooled (I, D), texts.words (T, L, D) -> scores (I, T).
    """

    def __init__(
        self,
        dim: int = 1024,
        num_heads: int = 8,
        local_weight: float = 0.8,
        direction_weight: float = 0.5,
        attention: str = "projected",
        smoothing: tuple[float, float] = (4.0, 9.0),
        gate_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        for name, weight in (
            ("local_weight", local_weight),
            ("direction_weight", direction_weight),
        ):
            if not 0 <= weight <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {weight}")
        if not all(0 < factor < math.inf for factor in smoothing):
            raise ValueError(f"smoothing must be two numbers above 0, got {smoothing}")
        self.dim = dim
        self.num_heads = num_heads
        self.local_weight = local_weight
        self.direction_weight = direction_weight
        self.attention = attention
        self.image_to_text: CrossAttention | SliceAttention
        self.text_to_image: CrossAttention | SliceAttention
        if attention == "projected":
            self.image_to_text = CrossAttention(dim, num_heads)
            self.text_to_image = CrossAttention(dim, num_heads)
        elif attention == "parameter-free":
            self.image_to_text = SliceAttention(num_heads, smoothing[0])
            self.text_to_image = SliceAttention(num_heads, smoothing[1])
        else:
            raise ValueError(
                f"attention must be 'projected' or 'parameter-free', got {attention!r}"
            )
        self.text_global = nn.Linear(dim, dim, bias=False)  # Xw
        self.image_global = nn.Linear(dim, dim, bias=False)  # Xv
        self.pooled_global = nn.Linear(dim, dim, bias=False)  # Xg
        self.gate = nn.Linear(2 * dim, dim)  # A, c
        for projection in (self.text_global, self.image_global, self.pooled_global):
            nn.init.eye_(projection.weight)
        with torch.no_grad():
            self.gate.bias.add_(gate_bias)

    def forward(
        self,
        images: ImageFeatures | PreparedImages,
        texts: TextFeatures | PreparedTexts,
        backend: str = "auto",
    ) -> Tensor:
        """Scores S (I, T), fp32 or wider.

        Args:
            images, texts: features of width `dim`, or what `prepare_images` and `prepare_texts`
                made of them.
            backend: one of `BACKENDS`, or "auto".

        Raises:
            ValueError: a width other than `dim`, a missing pooled feature, an unknown backend, or
                one that was asked for and cannot score these items.
        """
        with_global = self.local_weight < 1
        local, glob = self.score_parts(images, texts, backend, with_global)
        return self.local_weight * local + (1 - self.local_weight) * glob if with_global else local

    def score_parts(
        self,
        images: ImageFeatures | PreparedImages,
        texts: TextFeatures | PreparedTexts,
        backend: str = "auto",
        with_global: bool = True,
    ) -> Parts:
        """S_local and S_global, (I, T) each; arguments and errors as `forward`.

        Args:
            with_global: False leaves out the work for S_global, which then means nothing.
        """
        self._check_width(images)
        self._check_width(texts)
        name = backend
        if backend == "auto":
            fused = kernels.preferred(self, images, texts) and kernels.proven(self, images, texts)
            name = "triton" if fused else "factored"
        if name not in BACKENDS:
            raise ValueError(f"no backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
        if name == "reference" and any(isinstance(x, Prepared) for x in (images, texts)):
            raise ValueError("the reference backend takes features, not what was prepared of them")
        return BACKENDS[name](self, images, texts, with_global)

    def prepare_images(self, images: ImageFeatures) -> PreparedImages:
        """All of a score that depends on images alone, for scoring them more than once.

        About 3 H K D numbers an image; slice, move and keep them as you like. They are worth what
        the head's weights are worth: prepare again after a training step.
        """
        self._check_width(images)
        return prepare_images(self, images)

    def prepare_texts(self, texts: TextFeatures) -> PreparedTexts:
        """All of a score that depends on texts alone, about 2 H L D numbers a text."""
        self._check_width(texts)
        return prepare_texts(self, texts)

    def _check_width(self, items: ImageFeatures | TextFeatures | Prepared) -> None:
        if isinstance(items, ImageFeatures):
            pooled = 0 if items.pooled is None else items.pooled.shape[-1]
            widths = {"regions": items.regions.shape[-1], "pooled": pooled}
        elif isinstance(items, TextFeatures):
            widths = {"words": items.words.shape[-1]}
        else:
            widths = {"prepared features": math.prod(items.keys.shape[2:])}
        for name, width in widths.items():
            if width != self.dim:
                raise ValueError(f"fusion of dim {self.dim} got {name} of width {width or 'none'}")

    def extra_repr(self) -> str:
        """What `print(model)` tells of the options."""
        return (
            f"dim={self.dim}, num_heads={self.num_heads}, attention={self.attention!r}, "
            f"local_weight={self.local_weight}, direction_weight={self.direction_weight}"
        )
