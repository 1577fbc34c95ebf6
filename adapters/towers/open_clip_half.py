"""One half of an open_clip model: built by name, trained as far as asked, given back as it came."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ascl_plugin.adapters.frozen import PretrainedEncoder
from ascl_plugin.adapters.missing import explain
from ascl_plugin.adapters.package_path import package_path

try:
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.modified_resnet import AttentionPool2d
    from safetensors import SafetensorError
except (ImportError, RuntimeError) as error:
    raise explain(error, "open_clip", "open-clip") from error

TUNE = ("frozen", "partial", "lora", "full")
_OWN_ATTENTION = (nn.MultiheadAttention, AttentionPool2d)  # they read the weights of their layers


class OpenClipHalf(PretrainedEncoder):
    """What both halves share: how much of one trains.

    Attributes:
        net: the half, a module of open_clip's; of "lora", inside a module of peft's.
    """

    net: Any
    tune: str = "frozen"

    @property
    def half(self) -> Any:
        """The half as open_clip made it; of "lora", with adapters in it."""
        return self.net.model if self.tune == "lora" else self.net

    def _apply_tune(self, tune: str, lora: dict[str, Any] | None, body: nn.Module) -> None:
        """Freezes all, nothing, or all but the adapters that it puts into `body`."""
        if tune not in TUNE:
            raise ValueError(f"tune must be one of {', '.join(TUNE)}, got {tune!r}")
        if lora is not None and tune != "lora":
            raise ValueError(f"lora= is of tune='lora', got tune={tune!r}")
        if tune == "lora":
            self.net = _with_lora(self.net, lora or {}, body)
        self.tune = tune
        if tune == "frozen":
            self.freeze()

    def _leave_idle_out(self, output: Tensor) -> None:
        """Freezes what has no part in the features.

        Its weights (a text tower's projection has no part in its words) would get no gradient,
        which distributed training takes for an error.
        """
        if self.frozen:
            return
        trained = [p for p in self.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(output, trained, allow_unused=True)
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
        if not any(p.requires_grad for p in trained):
            raise ValueError(f"tune={self.tune!r} leaves nothing that trains")

    def train(self, mode: bool = True) -> OpenClipHalf:
        """As of `PretrainedEncoder`; batch statistics of layers that do not train stay, too."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not any(
                p.requires_grad for p in module.parameters()
            ):
                module.eval()
        return self

    def merged_state(self) -> dict[str, Tensor]:
        """The half's weights by open_clip's names, low-rank updates added in."""
        net = self.net
        if self.tune == "lora":
            net = copy.deepcopy(net).merge_and_unload()
        return {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}


def create(model: str, weights: str | None, **options: Any) -> Any:
    """The whole model, as `open_clip.create_model` makes it, in fp32.

    Args:
        model: a name of open_clip's, or ``hf-hub:ID`` or ``local-dir:PATH``, which bring their
            own weights.
        weights: a tag of open_clip's, a file, or ``package:NAME/path``; None: random weights.
        options: more of `create_model`.

    Raises:
        ValueError: a name or tag that open_clip does not know, with the nearest there are; weights
            that do not fit; a model that is no pair of towers (CoCa).
        OSError: weights that cannot be fetched.
    """
    schema, name = open_clip.factory.parse_model_name(model)
    if schema is None:
        name = name.replace("/", "-")
        if name not in open_clip.list_models():
            near = _nearest(name, open_clip.list_models())
            raise ValueError(f"open_clip knows no model {model!r}{near}")
    source = None if weights is None else package_path(weights)
    tags = open_clip.list_pretrained_tags_by_model(name)
    is_file = source is not None and Path(source).is_file()
    if source and not schema and not is_file and open_clip.get_pretrained_cfg(name, source) == {}:
        known = f"; its tags: {', '.join(tags)}" if tags else "; it has no tags"
        raise ValueError(
            f"weights={weights!r} is neither a file nor a tag of {model}"
            f"{_nearest(source, tags) or known}"
        )
    try:
        # every patch is a region, so none is dropped in training
        net = open_clip.create_model(model, source, force_patch_dropout=0.0, **options)
    except (RuntimeError, UnpicklingError, SafetensorError, EOFError) as error:
        if not is_file:
            raise _unreachable(model, weights, error) from error
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{source} does not fit {model}: {reason}") from error
    except OSError as error:
        raise _unreachable(model, weights, error) from error
    if type(net) not in (CLIP, CustomTextCLIP):
        raise ValueError(
            f"{model} is a {type(net).__name__}: only models of two towers are known here"
        )
    return net


def check_blocks(blocks: int) -> None:
    """Raises ValueError if no block is to train."""
    if blocks < 1:
        raise ValueError(f"unfrozen_blocks must be 1 at least, got {blocks}")


def _nearest(name: str, names: Sequence[str]) -> str:
    by_lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    return f"; did you mean {', '.join(repr(by_lower[n]) for n in near)}?" if near else ""


def _unreachable(model: str, weights: str | None, error: Exception) -> OSError:
    what = model if weights is None else f"{model}, weights={weights!r}"
    return OSError(
        f"{what} cannot be had ({str(error).strip().splitlines()[0]}); weights= takes a file, "
        "and model 'local-dir:PATH' a folder with open_clip_config.json and weights"
    )


def _with_lora(net: nn.Module, options: dict[str, Any], body: nn.Module) -> Any:
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
    except ImportError as error:
        raise explain(error, "peft", "lora") from error
    if "target_modules" not in options:
        options = {**options, "target_modules": _lora_targets(net, body)}
    return LoraModel(net, LoraConfig(**{"r": 8, "lora_alpha": 16, **options}), "default")


def _lora_targets(net: nn.Module, body: nn.Module) -> list[str]:
    """Names in `net` of the attention and linear layers of `body`; if it has none, convolutions."""
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
