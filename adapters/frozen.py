"""Pretrained encoders: how much of one trains, and what tells its weights apart."""

from __future__ import annotations

import hashlib
import json
import warnings

import torch
from torch import Tensor, nn

from ascl_plugin.features import ImageFeatures, TextFeatures

PUBLISHED = "pretrained"  # value of `weights` that asks for the weights a framework publishes


class PretrainedEncoder(nn.Module):
    """Base of adapters to pretrained encoders.

    A frozen encoder has no parameter that requires a gradient, stays in evaluation mode whatever
    `train` is called with (pretrained batch statistics, no dropout), and records no graph. Its
    output depends on its input alone, so features can be cached.

    Args:
        model: name of the model, for errors and the fingerprint.
        tune: how much of the encoder trains: "frozen", "full", or another of `TUNE`.

    Raises:
        ValueError: a `tune` that the encoder does not know.
    """

    TUNE: tuple[str, ...] = ("frozen", "full")

    def __init__(self, model: str, tune: str = "frozen") -> None:
        super().__init__()
        if tune not in self.TUNE:
            raise ValueError(f"tune must be one of {', '.join(self.TUNE)}, got {tune!r}")
        self.model_name, self.tune = model, tune

    @property
    def frozen(self) -> bool:
        """True if nothing of the encoder trains."""
        return self.tune == "frozen"

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Set the mode as `nn.Module` does; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def gradients(self) -> torch.set_grad_enabled:
        """Return a context for `forward`: gradients as outside, none for a frozen encoder."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)

    def _probe(self, *inputs: Tensor, **named: Tensor) -> list[int]:
        """Encode a sample, freeze what has no part in the outputs, and return their widths.

        A parameter without a part (a text tower's projection has none in its words) would get no
        gradient, which distributed training takes for an error.

        Raises:
            ValueError: nothing is left to train.
        """
        with torch.enable_grad():
            found: ImageFeatures | TextFeatures = self.eval()(*inputs, **named)
            places = found.words if isinstance(found, TextFeatures) else found.regions
            outputs = [x for x in (places, found.pooled) if x is not None]
            self._freeze_idle(torch.stack([x.sum() for x in outputs]).sum())
        self.train()
        return [x.shape[-1] for x in outputs]

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def _freeze_idle(self, output: Tensor) -> None:
        if self.frozen:
            self._freeze()
            return
        trained = [p for p in self.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(output, trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
        if not any(p.requires_grad for p in trained):
            raise ValueError(f"tune={self.tune!r} leaves nothing to train")

    def _warn_of_random_weights(self) -> None:
        warnings.warn(
            f"{self.model_name} has random weights: weights= brings trained ones", stacklevel=3
        )

    def _fingerprint(self, **options: object) -> dict[str, object]:
        weights = weights_hash(self.state_dict())
        kind = type(self).__name__
        options = json.loads(json.dumps(options))  # lists for tuples
        return {"encoder": kind, "model": self.model_name, "weights": weights, **options}


def weights_hash(state: dict[str, Tensor]) -> str:
    """Return a hash of all names, shapes, types and values of a state dict (32 hex digits)."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
