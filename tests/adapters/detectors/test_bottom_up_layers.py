"""The network of bottom-up attention: the documented layout, and torchvision's ResNet."""

from __future__ import annotations

import re

import pytest
import torch

pytest.importorskip("torchvision")
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.resnet import Bottleneck, ResNet

from ascl_plugin.adapters.detectors.bottom_up_layers import (
    BottomUpNetwork,
    cell_anchors,
)

TINY = {"width": 8, "blocks": (1, 2, 2, 1), "classes": 12}


# ---------------------------------------------------------------- layout


def documented_layout(blocks=(3, 4, 23, 3), width=64, classes=1600, anchors=12):
    """Names and shapes of the published files, less attributes and boxes of classes."""
    shapes = {}

    def conv(name, outputs, inputs, side):
        shapes[f"{name}.weight"] = (outputs, inputs, side, side)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.norm.{part}"] = (outputs,)

    def linear(name, outputs, *inputs):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, *inputs), (outputs,)

    conv("backbone.stem.conv1", width, 3, 7)
    inputs = width
    stages = ("backbone.res2", "backbone.res3", "backbone.res4", "roi_heads.res5")
    for number, (stage, count) in enumerate(zip(stages, blocks, strict=True)):
        narrow = width * 2**number
        for block in range(count):
            if block == 0:
                conv(f"{stage}.0.shortcut", 4 * narrow, inputs, 1)
            conv(f"{stage}.{block}.conv1", narrow, inputs, 1)
            conv(f"{stage}.{block}.conv2", narrow, narrow, 3)
            conv(f"{stage}.{block}.conv3", 4 * narrow, narrow, 1)
            inputs = 4 * narrow
    rpn = "proposal_generator.rpn_head"
    linear(f"{rpn}.conv", 512, 16 * width, 3, 3)
    linear(f"{rpn}.objectness_logits", anchors, 512, 1, 1)
    linear(f"{rpn}.anchor_deltas", 4 * anchors, 512, 1, 1)
    shapes["proposal_generator.anchor_generator.cell_anchors.0"] = (anchors, 4)
    predictor, dim = "roi_heads.box_predictor", 32 * width
    linear(f"{predictor}.cls_score", classes + 1, dim)
    return shapes


def test_names_and_shapes_one_to_one():
    with torch.device("meta"):
        state = BottomUpNetwork().state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == documented_layout()


# ---------------------------------------------------------------- the network


def caffe_style(resnet, dilated_last=True):
    """torchvision's ResNet made over: strides in the first convolution, Caffe's max pooling."""
    for layer in (resnet.layer2, resnet.layer3, resnet.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    resnet.maxpool = nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
    resnet.layer4[0].conv1.stride = resnet.layer4[0].downsample[0].stride = (1, 1)
    for block in resnet.layer4:
        block.conv2.padding = block.conv2.dilation = (2, 2)
    return resnet.eval()


def their_name(name: str) -> str:
    """Our name of a tensor as torchvision's ResNet calls it."""
    name = name.replace("backbone.", "").replace("roi_heads.", "").replace("stem.", "")
    name = re.sub(r"res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
    name = re.sub(r"shortcut\.norm", "downsample.1", name)
    name = re.sub(r"shortcut", "downsample.0", name)
    return re.sub(r"conv(\d)\.norm", r"bn\1", name)


def test_resnet_is_torchvisions_with_strides_moved():
    torch.manual_seed(0)
    theirs = caffe_style(ResNet(Bottleneck, [2, 1, 2, 2]))
    for name, buffer in theirs.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    state = theirs.state_dict()
    ours = BottomUpNetwork(blocks=(2, 1, 2, 2), classes=2)
    parts = {**{f"backbone.{k}": v for k, v in ours.backbone.state_dict().items()}}
    parts |= {f"roi_heads.res5.{k}": v for k, v in ours.roi_heads.res5.state_dict().items()}
    ours.load_state_dict({name: state[their_name(name)] for name in parts}, strict=False)
    # odd sizes: padding and rounding of every stride show; 72: 36, 18 by pooling that rounds up
    x = torch.randn(2, 3, 72, 53)
    with torch.no_grad():
        hidden = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = theirs.layer3(theirs.layer2(theirs.layer1(hidden)))
        features = ours.backbone(x)
        torch.testing.assert_close(features, expected)
        last = ours.roi_heads.res5(features)
        torch.testing.assert_close(last, theirs.layer4(expected))
    assert last.shape[-2:] == features.shape[-2:] == (5, 4)
    assert features.std() > 0.1 < last.std()


# ---------------------------------------------------------------- anchors and boxes


def test_anchors_around_a_cell():
    """Size 64: area 4096. Ratio 1: 64 x 64. Ratio 1/2: width 64 sqrt(2) = 90.51, height 45.25."""
    anchors = cell_anchors((64, 128), (0.5, 1.0, 2.0))
    expected = [-45.2548, -22.6274, 45.2548, 22.6274]
    torch.testing.assert_close(anchors[0], torch.tensor(expected))
    assert anchors[1].tolist() == [-32, -32, 32, 32]
    torch.testing.assert_close(anchors[2], torch.tensor([expected[i] for i in (1, 0, 3, 2)]))
    # torchvision rounds to whole pixels, and has sizes inside ratios
    theirs = AnchorGenerator(((64, 128),), ((0.5, 1.0, 2.0),)).cell_anchors[0]
    theirs = theirs.view(3, 2, 4).transpose(0, 1).reshape(-1, 4)
    assert (anchors - theirs).abs().max() <= 0.5


def test_anchors_over_the_map():
    generator = BottomUpNetwork(**TINY).proposal_generator.anchor_generator
    theirs = AnchorGenerator(((64, 128, 256, 512),), ((0.5, 1.0, 2.0),))
    theirs.cell_anchors = [generator.cell_anchors.get_buffer("0")]
    stride = [torch.tensor(16), torch.tensor(16)]
    torch.testing.assert_close(generator(3, 5), theirs.grid_anchors([[3, 5]], [stride])[0])


def test_proposal_head_follows_the_anchors_order():
    """Entry (y w + x) A + a of the output is channel a at (y, x)."""
    head = BottomUpNetwork(**TINY).proposal_generator.rpn_head
    features = torch.randn(1, 128, 2, 3)
    logits, deltas = head(features)
    hidden = head.conv(features).relu()
    y, x, a = 1, 2, 5
    entry = (y * 3 + x) * 12 + a
    assert torch.equal(logits[0, entry], head.objectness_logits(hidden)[0, a, y, x])
    assert torch.equal(deltas[0, entry], head.anchor_deltas(hidden)[0, 4 * a : 4 * a + 4, y, x])
