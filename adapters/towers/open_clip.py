"""open_clip models as retrieval models: an image tower's patches or grid cells are the regions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.towers.attached import attached, both_halves
from ascl_plugin.adapters.towers.grid import grid_cells, grid_side
from ascl_plugin.adapters.towers.open_clip_half import HalfOptions, OpenClipHalf, create
from ascl_plugin.adapters.towers.open_clip_words import OpenClipWords
from ascl_plugin.disk import written
from ascl_plugin.features import ImageFeatures
from ascl_plugin.retrieval.model import RetrievalModel

with needs("open_clip", "open-clip"):
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from open_clip.transformer import VisionTransformer

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Unpack


def attach(
    model: str,
    weights: str | None = None,
    *,
    num_regions: int | None = None,
    max_words: int | None = None,
    keep_special_tokens: bool = True,
    fusion: dict[str, object] | None = None,
    dim: int | None = None,
    feature_norm: str = "layer",
    **half: Unpack[HalfOptions],
) -> RetrievalModel:
    """Return a retrieval model on both towers of an open_clip model.

    Before any training its scores are the cosines of the bare model's embeddings; see
    `ascl_plugin.adapters.towers.attached`.

    Args:
        model, weights: as `OpenClipHalf`.
        num_regions: as `OpenClipImages`.
        max_words, keep_special_tokens: as `OpenClipWords`.
        fusion, dim: as `attached`.
        feature_norm: as `RetrievalModel`.
        **half: `tune`, `unfrozen_blocks`, `lora`, `gradient_checkpointing`, as `OpenClipHalf`.

    >>> attach("ViT-B-32", "laion2b_s34b_b79k", tune="lora")  # doctest: +SKIP
    """
    both = {"name": "open_clip", "model": model, "weights": weights, **half}
    words = {"max_words": max_words, "keep_special_tokens": keep_special_tokens}
    return attached(
        {**both, "num_regions": num_regions}, {**both, **words}, fusion, dim, feature_norm
    )


class OpenClipImages(OpenClipHalf):
    """The image tower: its last grid as regions, its embedding as pooled feature.

    The grid is that of patch tokens, normalised as the tower does it (ViT), of the last feature map
    (ResNet), or timm's last intermediate (timm towers).

    Args:
        model, weights: as `OpenClipHalf`.
        num_regions: K, a square: cells are averaged to a grid of K; None keeps the tower's own.
        **half: `tune`, `unfrozen_blocks`, `lora`, `gradient_checkpointing`, as `OpenClipHalf`.

    Attributes:
        preprocess: the model's own evaluation transform, RGB picture -> (3, H, W).

    Shapes:
        pixel_values (I, 3, H, W) -> regions (I, K, region_dim), pooled (I, pooled_dim); pooled
        equals `encode_image` of the bare model.
    """

    preprocess: Callable[[Image], Tensor]

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        num_regions: int | None = None,
        **half: Unpack[HalfOptions],
    ) -> None:
        side = None if num_regions is None else grid_side(num_regions)
        super().__init__(model, weights, **half)
        self.side = side
        if self.frozen and weights is None and ":" not in model:
            self._warn_of_random_weights()
        self.preprocess_config = self.half.preprocess_cfg
        self.preprocess = image_transform_v2(
            PreprocessCfg(**self.preprocess_config), is_train=False
        )
        size = self.half.image_size
        height, width = size if isinstance(size, Sequence) else (size, size)
        self.region_dim, self.pooled_dim = self._probe(torch.zeros(1, 3, height, width))

    def _create(self, weights: str | None) -> nn.Module:
        # a text tower's weights would be fetched for nothing
        return create(self.model_name, weights, pretrained_text=False).visual

    def _body(self) -> nn.Module:
        return getattr(self.net, "trunk", self.net)

    def _checkpoint_gradients(self) -> None:
        if isinstance(self.net, ModifiedResNet):
            warnings.warn(
                f"open_clip has no gradient checkpointing for the image tower of {self.model_name}",
                stacklevel=2,
            )
        self.net.set_grad_checkpointing(True)

    def _unlock(self, blocks: int) -> None:
        tower = self.net
        if isinstance(tower, ModifiedResNet):  # open_clip locks it whole or not at all
            tower.lock()
            stages = (tower.layer1, tower.layer2, tower.layer3, tower.layer4)
            for part in (*stages[-blocks:], tower.attnpool):
                part.requires_grad_(True)
        else:
            # open_clip counts the projection of a ViT as the last group
            tower.lock(unlocked_groups=blocks + isinstance(tower, VisionTransformer))

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Return the grid's cells, row by row, and the embedding."""
        tower = self.half
        # CoCa-like towers end in a norm of another width or of the pooled token alone
        norm = isinstance(tower, TimmModel) or (
            isinstance(tower, VisionTransformer)
            and tower.attn_pool is None
            and not tower.final_ln_after_pool
        )
        with self.gradients():
            output = tower.forward_intermediates(
                pixel_values, indices=1, normalize_intermediates=norm
            )
            cells = grid_cells(output["image_intermediates"][-1], self.side)
            return ImageFeatures(cells, None, output["image_features"])

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON: model, weights, preprocessing, grid."""
        return self._fingerprint(
            num_regions=None if self.side is None else self.side**2,
            preprocessing=self.preprocess_config,
        )


def export(model: RetrievalModel, path: str | os.PathLike[str]) -> None:
    """Write the towers of a model made by `attach` as a checkpoint of open_clip's.

    `open_clip.create_model(NAME, pretrained=path)` loads it; low-rank updates are added in.
    Projections to the joint width and the fusion are not open_clip's and are left out; a text
    tower's projection, which scoring does not use, is unchanged.

    Args:
        model: both encoders of one open_clip model.
        path: ``.safetensors``, or ``.pt`` (a state dict); written aside, then moved into place.

    Raises:
        TypeError: encoders of another kind.
        ValueError: halves of two models; another suffix.
    """
    images, words = both_halves(model, OpenClipImages, OpenClipWords)
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt"):
        raise ValueError(f"expected a path ending in .safetensors or .pt, got {path}")
    state = {f"visual.{k}": v for k, v in images.merged_state().items()} | words.merged_state()
    with written(path) as aside:
        if path.suffix == ".pt":
            with open(aside, "wb") as file:  # given a path, torch puts its name into the file
                torch.save(state, file)
        else:
            save_file(state, aside, metadata={"format": "pt"})
