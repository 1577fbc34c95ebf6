"""The parameters and options of the cross-modal fusion head, apart from the scoring with them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ascl_plugin.fusion.word_pooling import WordPooling

GLOBAL_SCORES = ("attended", "plain", "both")


class CrossAttention(nn.Module):
    """Parameters of one direction of the multi-head attention (ACF-R+, equation 6).

    Keys and values share one projection. It starts orthogonal with Zq = Zk and Zo = Zk^T, so that
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


Attention = CrossAttention | SliceAttention


def check_weights(**weights: float) -> None:
    """Raise ValueError if a weight is outside [0, 1]."""
    for name, weight in weights.items():
        if not 0 <= weight <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {weight}")


class FusionParameters(nn.Module):
    """Layers and options of `CrossModalFusion`, which describes them."""

    def __init__(
        self,
        dim: int = 1024,
        num_heads: int = 8,
        local_weight: float = 0.8,
        direction_weight: float = 0.5,
        attention: str = "projected",
        smoothing: tuple[float, float] = (4.0, 9.0),
        gate_bias: float = 0.0,
        global_score: str = "attended",
        word_pooling: str = "mean",
        softmin_temperature: float = 0.1,
        learn_local_weight: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1 or num_heads < 1:
            raise ValueError(f"dim and num_heads must be at least 1, got {dim} and {num_heads}")
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not divisible by num_heads {num_heads}")
        check_weights(local_weight=local_weight, direction_weight=direction_weight)
        if not all(0 < factor < math.inf for factor in smoothing):
            raise ValueError(f"smoothing must be two numbers in (0, inf), got {smoothing}")
        if not math.isfinite(gate_bias):
            raise ValueError(f"gate_bias must be finite, got {gate_bias}")
        if global_score not in GLOBAL_SCORES:
            raise ValueError(
                f"global_score must be one of {', '.join(GLOBAL_SCORES)}, got {global_score!r}"
            )
        if learn_local_weight and not 0 <= local_weight < 1:
            raise ValueError(
                f"learn_local_weight: local_weight must start in [0, 1), got {local_weight}"
            )
        self.dim = dim
        self.num_heads = num_heads
        self.local_weight = local_weight
        self.direction_weight = direction_weight
        self.attention = attention
        self.image_to_text: Attention
        self.text_to_image: Attention
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
        self.pool_words = WordPooling(word_pooling, softmin_temperature)
        self.learn_local_weight = learn_local_weight
        if learn_local_weight:
            start = math.log(local_weight / (1 - local_weight)) if local_weight else 0.0
            self.local_logit = nn.Parameter(torch.full((1,), start))
        self.global_score = global_score
        self.attends_globally = global_score != "plain"
        self.compares_wholes = global_score != "attended"
        if not self.attends_globally:
            return
        self.text_global = nn.Linear(dim, dim, bias=False)  # Xw
        self.image_global = nn.Linear(dim, dim, bias=False)  # Xv
        self.pooled_global = nn.Linear(dim, dim, bias=False)  # Xg
        self.gate = nn.Linear(2 * dim, dim)  # A, c
        for projection in (self.text_global, self.image_global, self.pooled_global):
            nn.init.eye_(projection.weight)
        with torch.no_grad():
            self.gate.bias.add_(gate_bias)

    @property
    def u2(self) -> float | Tensor:
        """Weight of the local score: `local_weight`, or (1,) learned from there."""
        if not self.learn_local_weight:
            return self.local_weight
        return torch.sigmoid(self.local_logit) if self.local_weight else self.local_logit

    @property
    def scores_wholes(self) -> bool:
        """True if S has a part of S_global."""
        return self.learn_local_weight or self.local_weight < 1

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return (
            f"dim={self.dim}, num_heads={self.num_heads}, attention={self.attention!r}, "
            f"local_weight={self.local_weight}, direction_weight={self.direction_weight}, "
            f"global_score={self.global_score!r}"
        )
