"""Bottom-up attention: the Visual Genome detector that the papers' region features come from.

Anderson et al., Bottom-Up and Top-Down Attention, CVPR 2018. The module follows the published
network and loads its published PyTorch weights by name, but **it was never run with them**: they
were not at hand where it was written. Its tests use random weights and hold every stage to
torchvision's operators or to values worked out by hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ascl_plugin.adapters.detectors.detector import (
    Detections,
    RegionDetector,
    Size,
    exact,
    picture_box,
)
from ascl_plugin.adapters.missing import needs

with needs("torchvision", "detection"):
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.ops import roi_pool

    from ascl_plugin.adapters.detectors.bottom_up_boxes import (
        select_by_class,
        select_proposals,
    )
    from ascl_plugin.adapters.detectors.bottom_up_layers import BottomUpNetwork
    from ascl_plugin.adapters.state_files import load_state, read_state

# blue, green, red: test.py of the published code, PIXEL_MEAN of the detectron2 configuration
PIXEL_MEANS = (102.9801, 115.9465, 122.7717)
POOLED = 14  # side of a pooled region; test.prototxt, roi_pool5
# proposals: rpn defaults of py-faster-rcnn (RPN_PRE_NMS_TOP_N, RPN_NMS_THRESH at test time), the
# same in detectron2's Base-RCNN-C4.yaml
BEFORE_NMS, PROPOSAL_NMS = 6000, 0.7
CLASS_NMS = 0.3  # TEST.NMS of py-faster-rcnn
# detectron2 keeps anchors and pixel means in some files and not in others; no feature depends on
# the attribute head and the class-wise boxes
OPTIONAL = (
    "cell_anchors.0", "pixel_mean", "pixel_std", "cls_embedding.weight",
    "fc_attr.weight", "fc_attr.bias", "attr_score.weight", "attr_score.bias",
    "bbox_pred.weight", "bbox_pred.bias",
)  # fmt: skip


class BottomUp(RegionDetector):
    """K regions of the Visual Genome detector, 1,600 classes, 2048 wide.

    ResNet-101 up to res4, proposals from 12 anchors a cell, RoI pooling to 14 x 14, res5 dilated,
    the mean over the region. Pictures are BGR less the channel means, shorter side 600 and longer
    side at most 1000. The pooled feature is that of the picture as one region.

    Regions are chosen as for the published features: boxes are the proposals as they are, NMS class
    by class at 0.3, all regions from `confidence` on but at least `min_regions` and at most
    `num_regions`.

    Args:
        weights: file, as `load_weights` takes it; None: random weights.
        num_regions: K, maximum number of regions of a picture: 36, or 100 for 10 to 100.
        min_regions: minimum number of regions; None: as many as `num_regions`.
        confidence: least confidence of the regions beyond `min_regions`.
        proposals: number of proposals that are classified (300 in the published code).
        min_proposal_side: in resized pixels; 0 as in detectron2 (16 times the scale in Caffe).
        min_size, max_size: limits of the resized sides.
        classes, width, blocks: as in `BottomUpNetwork`, for small tests.
        images_at_once, precision: as in `RegionDetector`.

    Raises:
        ValueError: an unknown option; weights that do not fit.
        FileNotFoundError: no such file.
    """

    rounding = 0.5

    def __init__(
        self,
        weights: str | None = None,
        num_regions: int = 36,
        min_regions: int | None = None,
        confidence: float = 0.2,
        proposals: int = 300,
        min_proposal_side: float = 0.0,
        min_size: int = 600,
        max_size: int = 1000,
        classes: int = 1600,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 23, 3),
        images_at_once: int = 8,
        precision: str = "fp32",
    ) -> None:
        super().__init__("bottom_up", num_regions, min_size, max_size, 1, images_at_once, precision)
        self.min_regions = num_regions if min_regions is None else min_regions
        if not 1 <= self.min_regions <= num_regions:
            raise ValueError(
                f"min_regions must be from 1 to num_regions = {num_regions}, got {min_regions}"
            )
        self.confidence, self.proposals = confidence, proposals
        self.min_proposal_side = min_proposal_side
        self.network = BottomUpNetwork(width, blocks, classes)
        self.region_dim = self.pooled_dim = self.network.feature_dim
        if weights is not None:
            self.load_weights(weights)
        else:
            self._warn_of_random_weights()
        self._freeze()

    def load_weights(self, path: str) -> None:
        """Load published weights by name.

        Two files of the same names are known: ``pytorch_model.bin`` of
        ``unc-nlp/frcnn-vg-finetuned`` (LXMERT, VisualBERT), and ``faster_rcnn_from_caffe_attr.pkl``
        of py-bottom-up-attention, a pickle to be converted first; the error says how.
        """
        load_state(self.network, read_state(path), path, OPTIONAL)

    def fingerprint(self) -> dict[str, object]:
        """Return all that the features depend on, as JSON: weights, options."""
        return self._fingerprint(
            num_regions=[self.min_regions, self.num_regions],
            selection=[self.confidence, self.proposals, self.min_proposal_side],
        )

    def _normalise(self, pixels: Tensor) -> Tensor:
        return pixels.flip(0) - pixels.new_tensor(PIXEL_MEANS)[:, None, None]

    def _regions(self, batch: Tensor, sizes: list[Size]) -> list[Detections]:
        # a side of which the strides would leave nothing
        short = [max(self.network.stride - side, 0) for side in batch.shape[-2:]]
        batch = functional.pad(batch, (0, short[1], 0, short[0]))
        with self._layers(batch.device):
            features = self.network.backbone(batch.contiguous(memory_format=torch.channels_last))
            logits, deltas = self.network.proposal_generator.rpn_head(features)
        features, logits, deltas = features.float(), logits.float(), deltas.float()
        anchors = self.network.proposal_generator.anchor_generator(*features.shape[-2:])
        return [
            self._of_one(features[i : i + 1], logits[i], deltas[i], anchors, size)
            for i, size in enumerate(sizes)
        ]

    def _of_one(
        self, features: Tensor, logits: Tensor, deltas: Tensor, anchors: Tensor, size: Size
    ) -> Detections:
        with exact(features.device):
            moved = BoxCoder((1, 1, 1, 1)).decode(deltas, [anchors])[:, 0]
            limits = (BEFORE_NMS, self.proposals, PROPOSAL_NMS, self.min_proposal_side)
            proposals = select_proposals(moved, logits, size, *limits)
            picture = picture_box(size, features)
            if not len(proposals):
                proposals = picture
            rois = torch.cat([proposals, picture])
            cells = roi_pool(features, [rois], POOLED, 1 / self.network.stride)
        with self._layers(features.device):
            vectors = self.network.roi_heads.res5(cells).float().mean((2, 3))
            vectors, pooled = vectors[:-1], vectors[-1]
            logits_by_class = self.network.roi_heads.box_predictor(vectors)
        with exact(features.device):
            scores = logits_by_class.float().softmax(-1)[:, :-1]
            chosen, best, labels = select_by_class(
                proposals, scores, CLASS_NMS, self.confidence, self.min_regions, self.num_regions
            )
            return Detections(proposals[chosen], best, labels, vectors[chosen], pooled)
