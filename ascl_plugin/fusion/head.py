"""The hierarchical cross-modal fusion head: its scores, by whichever backend is fastest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from ascl_plugin.features import ImageFeatures, TextFeatures, check_features, check_kind, wide
from ascl_plugin.fusion import compiled_backend, factored, reference, triton_backend
from ascl_plugin.fusion.pair_scores import local_of_pairs
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.pooled import PooledSimilarity
from ascl_plugin.fusion.prepared import (
    Images,
    Prepared,
    PreparedImages,
    PreparedTexts,
    Texts,
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
    "compiled": compiled_backend.score_parts,
    "triton": triton_backend.score_parts,
}
_FASTER = {"triton": triton_backend, "compiled": compiled_backend}


class CrossModalFusion(FusionParameters):
    """Scorer of every image of a set against every text, by regions and words and globally.

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
        local_weight: u2, the weight of the local score, in [0, 1]; at 1 images need no pooled
            feature.
        direction_weight: u1, the weight of region-to-text against word-to-image, in [0, 1].
        attention: "projected" (learned Zq, Zk, Zo a direction, logits / sqrt(D/H)) or
            "parameter-free" (heads are slices of D, logits times `smoothing`).
        smoothing: factors of the logits (region-to-text, word-to-image), "parameter-free" only.
        gate_bias: added to c at the start; below 0 the whole-image feature leads in V_g, which
            pretrained encoders deserve.
        global_score: S_global. "attended": as above. "plain": cos(G, G_w) of the pooled features
            alone, G_w that of the text or its mean word; Xw, Xv, Xg and the gate are not made.
            "both": (attended + plain) / 2.
        word_pooling, softmin_temperature: see `WordPooling`, which then takes the place of mean_j
            in S_local: "mean" (the papers), "softmin", "mean_softmin".
        learn_local_weight: True: u2 = sigmoid(b), b a parameter, and starts at `local_weight`; if
            that is 0, u2 is the parameter itself.

    Shapes:
        images.regions (I, K, D), images.pooled (I, D), texts.words (T, L, D) -> scores (I, T).

    Raises:
        ValueError: an option outside its range.
    """

    def forward(self, images: Images, texts: Texts, backend: str = "auto") -> Tensor:
        """Return the scores S (I, T), fp32 or wider.

        Args:
            images, texts: features of width `dim`, or the results of `prepare_images` and
                `prepare_texts`.
            backend: one of `BACKENDS`, or "auto".

        Raises:
            TypeError: images or texts of another type.
            ValueError: a width other than `dim`, a missing pooled feature, an unknown backend, or
                one that cannot score these items.
        """
        with_global, u2 = self.scores_wholes, self.u2
        local, glob = self.score_parts(images, texts, backend, with_global)
        return u2 * local + (1 - u2) * glob if with_global else local

    if TYPE_CHECKING:
        __call__ = forward  # torch's own returns Any

    def score_parts(
        self, images: Images, texts: Texts, backend: str = "auto", with_global: bool = True
    ) -> Parts:
        """Return S_local and S_global, (I, T) each; arguments and errors as `forward`.

        Args:
            with_global: False skips S_global; S_local is returned in its place.
        """
        check_kind("images", images, ImageFeatures, PreparedImages)
        check_kind("texts", texts, TextFeatures, PreparedTexts)
        self._check(images, with_global)
        self._check(texts, with_global)
        name = backend
        if backend == "auto":
            given = self, images, texts
            fit = (n for n, b in _FASTER.items() if b.preferred(*given))
            name = next((n for n in fit if _FASTER[n].proven(*given, with_global)), "factored")
        if name not in BACKENDS:
            raise ValueError(f"no backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
        if name == "reference" and any(isinstance(x, Prepared) for x in (images, texts)):
            raise ValueError("the reference backend takes features, not prepared ones")
        return BACKENDS[name](self, images, texts, with_global)

    def score_pairs_local(
        self, images: ImageFeatures, texts: TextFeatures, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Return S_local (P,) of image `rows[p]` with text `columns[p]`, with gradients.

        Entries of `score_parts(images, texts)[0]`, for the cost of the chosen pairs alone; always
        in fp32 or wider. With "plain" global scores, `plain_scores` has the rest of S.

        Args:
            images, texts: features.
            rows, columns: (P,) int64 on the features' device, in any order.

        Raises:
            TypeError: no features.
            ValueError: a width other than `dim`; rows and columns of different lengths.
        """
        check_features(images, texts)
        self._check(images, False)
        self._check(texts, False)
        if len(rows) != len(columns):
            raise ValueError(f"{len(rows)} rows for {len(columns)} columns: a pair is one of each")
        if not len(rows):
            return wide(images.regions.new_zeros(0))
        return local_of_pairs(self, images, texts, rows, columns)

    def plain_scores(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return cos(G, G_w) (I, T) of all pairs: S_global of `global_score` "plain".

        Raises:
            ValueError: images without pooled.
        """
        return PooledSimilarity("pooled")(images, texts)

    def local_scores(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """Return S_local (I, T) of all pairs: the first of `score_parts`."""
        return self.score_parts(images, texts, with_global=False)[0]

    def prepare_images(self, images: ImageFeatures) -> PreparedImages:
        """Return everything that scores need of the images, for scoring them more than once.

        About 3 H K D numbers an image; slice, move and keep them as you like. They belong to the
        present weights: prepare again after an optimizer step. With `local_weight` 1 they hold
        nothing of the global score.
        """
        check_kind("images", images, ImageFeatures)
        self._check(images, self.scores_wholes)
        return prepare_images(self, images, self.scores_wholes)

    def prepare_texts(self, texts: TextFeatures) -> PreparedTexts:
        """Return everything that scores need of the texts, about 2 H L D numbers a text."""
        check_kind("texts", texts, TextFeatures)
        self._check(texts, self.scores_wholes)
        return prepare_texts(self, texts, self.scores_wholes)

    def _check(self, items: Images | Texts, with_global: bool) -> None:
        """Raise ValueError for a wrong width, or if items lack what the global score needs."""
        if isinstance(items, Prepared):
            widths = {"prepared features": math.prod(items.keys.shape[2:])}
            lacking = items.values if self.attends_globally else items.whole
            if with_global and lacking is None:
                raise ValueError("S_global needs items prepared by a head of local_weight below 1")
        elif isinstance(items, TextFeatures):
            widths = {"words": items.words.shape[-1]}
            if items.pooled is not None and self.compares_wholes:
                widths["pooled"] = items.pooled.shape[-1]
        else:
            widths = {"regions": items.regions.shape[-1]}
            if items.pooled is not None:
                widths["pooled"] = items.pooled.shape[-1]
            elif with_global:
                raise ValueError("S_global needs images with pooled; pass it or set local_weight=1")
        for name, width in widths.items():
            if width != self.dim:
                raise ValueError(f"fusion of dim {self.dim} got {name} of width {width}")
