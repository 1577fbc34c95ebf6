"""One half of a dual encoder of transformers: loaded without the other, trained as far as asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ascl_plugin.adapters.frozen import PretrainedEncoder, weights_hash
from ascl_plugin.adapters.missing import explain, naming
from ascl_plugin.adapters.package_path import package_path

try:
    from transformers import AutoConfig, AutoModel, BlipForImageTextRetrieval
except (ImportError, RuntimeError) as error:
    raise explain(error, "transformers", "recipes") from error

TUNE = ("frozen", "partial", "full")


class ClipHalf(PretrainedEncoder):
    """One half of a dual encoder, and how much of it trains.

    Args:
        model: hub id, local folder, or ``package:NAME/folder``.
        parts: how the names of the half's modules begin; the other half is not kept.
        tune: "frozen"; "partial", the last blocks and what follows them; or "full".
        unfrozen_blocks: of "partial".
        gradient_checkpointing: compute activations twice and keep fewer of them.
    """

    def __init__(
        self,
        model: str,
        parts: tuple[str, ...],
        tune: str,
        unfrozen_blocks: int,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        if tune not in TUNE:
            raise ValueError(f"tune must be one of {', '.join(TUNE)}, got {tune!r}")
        self.model_name = model
        self.source = package_path(model)
        self.tune = tune
        self.unfrozen_blocks = unfrozen_blocks
        with naming(model):
            self.model = _load(self.source, parts, gradient_checkpointing)

    def _apply_tune(self, output: Tensor) -> None:
        """Freezes what is not to train.

        Args:
            output: a scalar made of all that the encoder gives. Parameters that have no part in it
                (a text tower's projection has none in its words) would get no gradient, which
                distributed training takes for an error.
        """
        if self.tune == "frozen":
            self.freeze()
            return
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(output, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
        if self.tune == "partial":
            lists = (m for m in self.model.modules() if isinstance(m, nn.ModuleList))
            blocks: Any = max(lists, key=len, default=nn.ModuleList())
            if not 1 <= self.unfrozen_blocks <= len(blocks):
                raise ValueError(
                    f"unfrozen_blocks must be 1 to {len(blocks)}, the blocks of "
                    f"{self.model_name!r}, got {self.unfrozen_blocks}"
                )
            # modules are registered in the order they are passed in
            first = next(blocks[-self.unfrozen_blocks].parameters())
            for parameter in parameters:
                if parameter is first:
                    break
                parameter.requires_grad_(False)
        self.train()

    def _fingerprint(self, **more: Any) -> dict[str, Any]:
        weights = weights_hash(self.model.state_dict())
        return {"encoder": type(self).__name__, "model": self.model_name, "weights": weights} | more


def _load(source: str, parts: tuple[str, ...], gradient_checkpointing: bool) -> Any:
    """The model at `source` less the modules of its other half."""
    config = AutoConfig.from_pretrained(source)
    if config.model_type == "siglip2":
        raise ValueError(
            f"{source!r} is a SigLIP 2 of NaFlex, which takes pictures of any shape as patches; "
            "this adapter takes pictures of one size. SigLIP 2 is there for fixed sizes, too, such "
            "as google/siglip2-base-patch16-256"
        )
    # AutoModel would build a BlipModel, whose text tower has other names, with random weights
    blip = "BlipForImageTextRetrieval" in (config.architectures or ())
    kind: Any = BlipForImageTextRetrieval if blip else AutoModel
    # a checkpoint stored in half precision would come as that
    model, report = kind.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    embeds = hasattr(model, "get_image_features") and hasattr(model, "get_text_features")
    towers = any(name.startswith(parts) for name, _ in model.named_children())
    if not (blip or embeds) or not towers:  # BLIP-2 embeds, with a language model
        raise ValueError(
            f"{source!r} holds a {type(model).__name__}, no dual encoder: it needs two towers, "
            "get_image_features and get_text_features, as CLIP, SigLIP and BLIP have"
        )
    if gradient_checkpointing:
        if hasattr(model, "activation_checkpointing_enable"):
            model.activation_checkpointing_enable()
        else:  # the name before transformers 5.23
            model.gradient_checkpointing_enable({"use_reentrant": False})
    for name, _ in list(model.named_children()):
        if not name.startswith(parts):
            delattr(model, name)
    for name, _ in list(model.named_parameters(recurse=False)):
        delattr(model, name)  # logit_scale and its like
    absent = sorted(n for n in report["missing_keys"] if n.startswith(parts))
    if absent:
        raise ValueError(f"the checkpoint of {source!r} has no weights for {absent[0]!r}")
    return model
