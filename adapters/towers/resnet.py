"""The whole image as one feature: the input of a ResNet-152's, or any timm model's, classifier."""

from __future__ import annotations

from torch import Tensor

from ascl_plugin.adapters.towers.timm_grid import TimmGrid
from ascl_plugin.features import ImageFeatures


class PooledImage(TimmGrid):
    """The pooled feature of a timm model; both papers take a ResNet-152's, 2048 wide.

    The feature is also the one region, so an image encoder may be this.

    timm's ResNets name their parameters as torchvision's do, so files of torchvision's weights load
    by name. ``resnet152.tv_in1k`` and ``resnet152.tv2_in1k`` with weights="pretrained" are
    torchvision's weights (V1, V2) from timm's hub, with their preprocessing; a file's weights get
    the preprocessing of the name they are loaded under. Tested with random weights only.

    Args:
        model: name, as `timm.create_model` takes it.
        weights, tune: as `TimmGrid`.

    Shapes:
        pixel_values (I, 3, H, W) -> regions (I, 1, pooled_dim), pooled (I, pooled_dim).

    >>> import torch
    >>> encoder = PooledImage("resnet18", tune="full")
    >>> encoder(torch.zeros(2, 3, 224, 224)).pooled.shape
    torch.Size([2, 512])
    """

    def __init__(
        self, model: str = "resnet152", weights: str | None = None, tune: str = "frozen"
    ) -> None:
        super().__init__(model, weights, num_regions=1, tune=tune)

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Return the pooled feature of each picture, also as its one region."""
        with self.gradients():
            _, pooled = self._features(pixel_values)
            return ImageFeatures(pooled[:, None], None, pooled)
