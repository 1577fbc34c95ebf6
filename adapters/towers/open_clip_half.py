"""One half of an open_clip model: built by name, trained as far as asked, given back as it came."""

from __future__ import annotations

import copy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypedDict

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ascl_plugin.adapters.frozen import PretrainedEncoder
from ascl_plugin.adapters.missing import needs
from ascl_plugin.adapters.package_path import package_path
from ascl_plugin.spelling import did_you_mean

with needs("open_clip", "open-clip"):
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.modified_resnet import AttentionPool2d
    from safetensors import SafetensorError

_OWN_ATTENTION = (nn.MultiheadAttention, AttentionPool2d)  # they read the weights of their layers


class HalfOptions(TypedDict, total=False):
    """Options of `OpenClipHalf`."""

    tune: str
    unfrozen_blocks: int
    lora: dict[str, Any] | None
    gradient_checkpointing: bool


class OpenClipHalf(PretrainedEncoder):
    """Base of both halves of an open_clip model.

    Args:
        model: as `open_clip.create_model` takes it: a name, or ``hf-hub:ID`` or
            ``local-dir:PATH``, which bring their own weights.
        weights: a tag of open_clip's, a file, or ``package:NAME/path``; None: random weights.
        tune: "frozen"; "partial", the last `unfrozen_blocks` and everything after them; "lora",
            low-rank updates alone; or "full".
        unfrozen_blocks: number of blocks that "partial" trains: of a transformer its blocks, of a
            ResNet its stages, of a timm tower its layer groups as timm counts them.
        lora: options of `peft.LoraConfig`; default rank 8, alpha 16, all attention and linear
            layers (in a ResNet, the convolutions).
        gradient_checkpointing: compute activations twice and keep fewer of them.

    Attributes:
        net: the half, a module of open_clip's; with "lora", inside a module of peft's.

    Raises:
        ValueError: a model or tag that open_clip does not know; weights that do not fit; an option
            out of range.
        OSError: weights that cannot be fetched.
    """

    TUNE = ("frozen", "partial", "lora", "full")

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        tune: str = "frozen",
        unfrozen_blocks: int = 2,
        lora: dict[str, Any] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(model, tune)
        if lora is not None and tune != "lora":
            raise ValueError(f"lora= needs tune='lora', got tune={tune!r}")
        if unfrozen_blocks < 1:
            raise ValueError(f"unfrozen_blocks must be at least 1, got {unfrozen_blocks}")
        self.net: Any = self._create(weights)
        if gradient_checkpointing:
            self._checkpoint_gradients()
        if tune == "partial":
            self._unlock(unfrozen_blocks)
        if tune == "lora":
            self.net = _with_lora(self.net, lora or {}, self._body())

    def _create(self, weights: str | None) -> nn.Module:
        """Return the half of the model."""
        raise NotImplementedError

    def _body(self) -> nn.Module:
        """Return the part of the half that gets low-rank updates."""
        raise NotImplementedError

    def _checkpoint_gradients(self) -> None:
        raise NotImplementedError

    def _unlock(self, blocks: int) -> None:
        """Freeze everything but the last blocks and what comes after them."""
        raise NotImplementedError

    @property
    def half(self) -> Any:
        """The half as open_clip made it; with "lora", with the updates in it."""
        return self.net.model if self.tune == "lora" else self.net

    def train(self, mode: bool = True) -> OpenClipHalf:
        """Set the mode as `PretrainedEncoder`; frozen layers keep their batch statistics, too."""
        super().train(mode)
        for module in self.modules():
            trains = any(p.requires_grad for p in module.parameters())
            if isinstance(module, _BatchNorm) and not trains:
                module.eval()
        return self

    def merged_state(self) -> dict[str, Tensor]:
        """Return the half's weights by open_clip's names, low-rank updates added in."""
        net = copy.deepcopy(self.net).merge_and_unload() if self.tune == "lora" else self.net
        return {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}


def create(model: str, weights: str | None, pretrained_text: bool = True) -> CLIP | CustomTextCLIP:
    """Return the whole model, as `open_clip.create_model` makes it, in fp32.

    Args:
        model, weights: as `OpenClipHalf`.
        pretrained_text: fetch the weights of a text tower that has its own on the hub.

    Raises:
        ValueError: a name or tag that open_clip does not know, with the nearest there are; weights
            that do not fit; a model that is no pair of towers (CoCa).
        OSError: weights that cannot be fetched.
    """
    schema, name = open_clip.factory.parse_model_name(model)
    if schema is None:
        name = name.replace("/", "-")
        if name not in open_clip.list_models():
            near = did_you_mean(name, open_clip.list_models(), cutoff=0.5)
            raise ValueError(f"open_clip knows no model {model!r}{near}")
    source = None if weights is None else package_path(weights)
    tags = open_clip.list_pretrained_tags_by_model(name)
    is_file = source is not None and Path(source).is_file()
    if source and not schema and not is_file and open_clip.get_pretrained_cfg(name, source) == {}:
        known = f"; its tags: {', '.join(tags)}" if tags else "; it has no tags"
        raise ValueError(
            f"weights={weights!r} is neither a file nor a tag of {model}"
            f"{did_you_mean(source, tags, cutoff=0.5)}{known}"
        )
    try:
        # every patch is a region, so none is dropped in training
        net = open_clip.create_model(
            model, source, force_patch_dropout=0.0, pretrained_text=pretrained_text
        )
    except (RuntimeError, UnpicklingError, SafetensorError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        if is_file and not isinstance(error, OSError):
            raise ValueError(f"{source} does not fit {model}: {reason}") from error
        given = model if weights is None else f"{model}, weights={weights!r}"
        raise OSError(
            f"{given} cannot be had ({reason}); weights= takes a file, and model="
            "'local-dir:PATH' a folder with open_clip_config.json and weights"
        ) from error
    if type(net) not in (CLIP, CustomTextCLIP):
        raise ValueError(f"{model} is a {type(net).__name__}, expected a model of two towers")
    return net


def _with_lora(net: nn.Module, options: dict[str, Any], body: nn.Module) -> nn.Module:
    with needs("peft", "lora"):
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    if "target_modules" not in options:
        options = {**options, "target_modules": _lora_targets(net, body)}
    return LoraModel(net, LoraConfig(**{"r": 8, "lora_alpha": 16, **options}), "default")


def _lora_targets(net: nn.Module, body: nn.Module) -> list[str]:
    """Return names in `net` of the attention and linear layers of `body`, else of convolutions."""
    inside = {id(m) for a in body.modules() if isinstance(a, _OWN_ATTENTION) for m in a.modules()}
    wanted: dict[type, set[int]] = {nn.Linear: set(), nn.Conv2d: set()}
    for module in body.modules():
        linear = isinstance(module, nn.Linear) and id(module) not in inside
        if linear or isinstance(module, nn.MultiheadAttention):
            wanted[nn.Linear].add(id(module))
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            wanted[nn.Conv2d].add(id(module))
    chosen = wanted[nn.Linear] or wanted[nn.Conv2d]
    return [name for name, module in net.named_modules() if id(module) in chosen]
