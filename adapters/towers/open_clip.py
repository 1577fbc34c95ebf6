"""open_clip models as retrieval models: an image tower's patches or grid cells are the regions."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ascl_plugin.adapters.frozen import grid_side, weights_hash
from ascl_plugin.adapters.missing import explain
from ascl_plugin.adapters.towers.open_clip_half import OpenClipHalf, check_blocks, create
from ascl_plugin.adapters.towers.open_clip_words import OpenClipWords
from ascl_plugin.disk import written
from ascl_plugin.features import ImageFeatures
from ascl_plugin.retrieval.model import RetrievalModel

try:
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from open_clip.transformer import VisionTransformer
except (ImportError, RuntimeError) as error:
    raise explain(error, "open_clip", "open-clip") from error


def attach(
    model: str,
    weights: str | None = None,
    *,
    tune: str = "frozen",
    unfrozen_blocks: int = 2,
    lora: dict[str, Any] | None = None,
    gradient_checkpointing: bool = False,
    num_regions: int | None = None,
    max_words: int | None = None,
    keep_special_tokens: bool = True,
    fusion: dict[str, Any] | None = None,
    dim: int = 1024,
    feature_norm: str = "layer",
) -> RetrievalModel:
    """A retrieval model on both towers of an open_clip model.

    Args:
        model: as `open_clip.create_model` takes it: a name, ``hf-hub:ID``, ``local-dir:PATH``.
        weights: a tag of open_clip's, a file, or ``package:NAME/path``; None: random weights.
        tune, unfrozen_blocks, lora, gradient_checkpointing, num_regions: as `OpenClipImages`.
        max_words, keep_special_tokens: as `OpenClipWords`.
        fusion, dim, feature_norm: as `RetrievalModel`.

    Raises:
        OSError, ValueError, ImportError: as `OpenClipImages` and `OpenClipWords`.

    >>> attach("ViT-B-32", "laion2b_s34b_b79k", tune="lora")  # doctest: +SKIP
    """
    both = {
        "name": "open_clip",
        "model": model,
        "weights": weights,
        "tune": tune,
        "unfrozen_blocks": unfrozen_blocks,
        "lora": lora,
        "gradient_checkpointing": gradient_checkpointing,
    }
    words = {"max_words": max_words, "keep_special_tokens": keep_special_tokens}
    return RetrievalModel(
        {**both, "num_regions": num_regions}, {**both, **words}, fusion, dim, feature_norm
    )


class OpenClipImages(OpenClipHalf):
    """The image tower: its last grid as regions, its embedding as pooled feature.

    The grid is that of patch tokens, normalised as the tower does it (ViT), of the last feature map
    (ResNet), or what timm calls the last intermediate (timm towers).

    Args:
        model, weights: as `attach`.
        tune: "frozen"; "partial", the last `unfrozen_blocks` and what follows them; "lora",
            low-rank updates alone; or "full".
        unfrozen_blocks: of "partial": blocks of a transformer, stages of a ResNet, of a timm tower
            what timm counts as layer groups.
        lora: options of `peft.LoraConfig`; default rank 8, alpha 16, all attention and linear
            layers (in a ResNet, the convolutions).
        gradient_checkpointing: compute activations twice and keep fewer of them.
        num_regions: K, a square: cells are averaged to a grid of K, as `TimmGrid` does; None
            keeps the tower's own.

    Attributes:
        region_dim, pooled_dim: widths of the two outputs.
        preprocess: PIL picture, RGB -> (3, H, W); the model's own evaluation transform.

    Shapes:
        pixel_values (I, 3, H, W) -> regions (I, K, region_dim), pooled (I, pooled_dim); pooled is
        what `encode_image` of the bare model gives.

    Raises:
        ValueError: a model or tag that open_clip does not know; weights that do not fit; an option
            out of range.
        OSError: weights that cannot be fetched.
    """

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        tune: str = "frozen",
        unfrozen_blocks: int = 2,
        lora: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        num_regions: int | None = None,
    ) -> None:
        super().__init__()
        self.side = None if num_regions is None else grid_side(num_regions)
        self.model_name = model
        # a text tower's weights would be fetched for nothing
        net = create(model, weights, pretrained_text=False).visual
        self.net = net
        if gradient_checkpointing:
            if isinstance(net, ModifiedResNet):
                warnings.warn(
                    f"open_clip has no gradient checkpointing for the image tower of {model}",
                    stacklevel=2,
                )
            net.set_grad_checkpointing(True)
        if tune == "partial":
            _unlock_images(net, unfrozen_blocks)
        self._apply_tune(tune, lora, getattr(net, "trunk", net))
        if tune == "frozen" and weights is None and ":" not in model:
            warnings.warn(
                f"{model} is frozen with random weights: weights= brings trained ones",
                stacklevel=2,
            )
        self.preprocess_config: dict[str, Any] = net.preprocess_cfg
        self.preprocess = image_transform_v2(PreprocessCfg(**net.preprocess_cfg), is_train=False)
        size = net.image_size
        height, width = size if isinstance(size, Sequence) else (size, size)
        with torch.enable_grad():
            probe = self.eval()(torch.zeros(1, 3, height, width))
            assert probe.pooled is not None
            self._leave_idle_out(probe.regions.sum() + probe.pooled.sum())
        self.region_dim = probe.regions.shape[-1]
        self.pooled_dim = probe.pooled.shape[-1]
        self.train()

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """The grid's cells, row by row, and the embedding."""
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
            grid = output["image_intermediates"][-1]
            if self.side is not None:
                grid = functional.adaptive_avg_pool2d(grid, self.side)
            return ImageFeatures(grid.flatten(2).transpose(1, 2), None, output["image_features"])

    def fingerprint(self) -> dict[str, Any]:
        """All that the features depend on, as JSON: model, weights, preprocessing, grid."""
        return {
            "encoder": "open_clip_images",
            "model": self.model_name,
            "weights": weights_hash(self.net.state_dict()),
            "num_regions": None if self.side is None else self.side**2,
            "preprocessing": json.loads(json.dumps(self.preprocess_config)),
        }


def export(model: RetrievalModel, path: str | os.PathLike[str]) -> None:
    """Writes the towers of a model of `attach` as a checkpoint of open_clip's.

    `open_clip.create_model(NAME, pretrained=path)` loads it; low-rank updates are added in.
    Projections to the joint width and the fusion are not open_clip's and stay behind. So do changes
    of what scoring does not use: a text tower's projection is what it was.

    Args:
        model: both encoders of one open_clip model.
        path: ``.safetensors``, or ``.pt`` (a state dict); written aside, then moved into place.

    Raises:
        TypeError, ValueError: another model, or two; another suffix.
    """
    images, words = model.image_encoder, model.text_encoder
    if not isinstance(images, OpenClipImages) or not isinstance(words, OpenClipWords):
        raise TypeError(
            "export needs the encoders of attach(), got "
            f"{type(images).__name__} and {type(words).__name__}"
        )
    if images.model_name != words.model_name:
        raise ValueError(f"two models: images {images.model_name}, texts {words.model_name}")
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt"):
        raise ValueError(f"expected a path ending in .safetensors or .pt, got {path}")
    state = {f"visual.{k}": v for k, v in images.merged_state().items()} | words.merged_state()
    with written(path) as aside:
        if path.suffix == ".pt":
            with open(aside, "wb") as file:  # given a path, torch puts its name into the file
                torch.save(state, file)
        else:
            from safetensors.torch import save_file

            save_file(state, aside, metadata={"format": "pt"})


def _unlock_images(tower: Any, blocks: int) -> None:
    check_blocks(blocks)
    if isinstance(tower, ModifiedResNet):  # open_clip locks it whole or not at all
        tower.lock()
        stages = (tower.layer1, tower.layer2, tower.layer3, tower.layer4)
        for part in (*stages[-blocks:], tower.attnpool):
            part.requires_grad_(True)
    else:
        # open_clip counts the projection of a ViT as the last group
        tower.lock(unlocked_groups=blocks + isinstance(tower, VisionTransformer))
