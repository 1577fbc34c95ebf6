"""Weights that are sharded over processes (FSDP2): made whole to be used or kept, and cut again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from ascl_plugin.retrieval.model import RetrievalModel


def refuse_engines(environment: Mapping[str, str] = os.environ) -> None:
    """Stops before an engine starts that would train something else than was asked for.

    Args:
        environment: what `accelerate launch` tells the processes it starts.

    Raises:
        ValueError: Megatron-LM, or FSDP of the first version.
    """

    def asked(name: str) -> bool:
        return environment.get(name, "false").lower() == "true"

    if asked("ACCELERATE_USE_MEGATRON_LM"):
        raise ValueError(
            "Megatron-LM is not supported: its checkpoints are not ours; "
            "recipes/accelerate/fsdp2.yaml shards optimiser and gradients as ZeRO-2 does"
        )
    if asked("ACCELERATE_USE_FSDP") and environment.get("FSDP_VERSION", "1") != "2":
        raise ValueError("FSDP of the first version is not supported; set fsdp_version: 2")


def set_up_fsdp(accelerator: Any, model: RetrievalModel) -> None:
    """Settings of FSDP2 that this model needs, before `accelerator.prepare`.

    Frozen encoders stay whole: they encode outside a step. Weights stay fp32 and autocast alone
    decides what is computed in less, as without FSDP. Every process has made the same weights from
    the seed, so none are sent at the start.

    Raises:
        ValueError: FSDP was asked for, and Accelerate does not shard here, as on a CPU.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and not accelerator.is_fsdp2:
        raise ValueError(
            "FSDP was asked for, but Accelerate shards on GPUs alone, and with two processes or "
            f"more; here are {accelerator.num_processes} on {accelerator.device.type}: "
            "recipes/accelerate/ddp_cpu.yaml runs on CPUs"
        )
    if not accelerator.is_fsdp2:
        return
    # scores are views of one tensor, and nothing writes into them
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    plugin = accelerator.state.fsdp_plugin
    encoders = (model.image_encoder, model.text_encoder)
    plugin.ignored_modules = [encoder for encoder in encoders if encoder.frozen]
    plugin.mixed_precision_policy = None
    plugin.cpu_ram_efficient_loading = False


def sharded(model: nn.Module) -> bool:
    """Whether each process holds but a part of the weights."""
    return isinstance(model, FSDPModule)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Within it every process holds all weights, to be used in any way; all must take part."""
    keep_whole(model)
    try:
        yield
    finally:
        for part in _parts(model):
            part.reshard()


def keep_whole(model: nn.Module) -> None:
    """Every process holds all weights from now on; for use after training."""
    for part in _parts(model):
        part.unshard()


def gathered(state: Any) -> Any:
    """Dicts and lists, every sharded tensor in them made whole; all processes must take part."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {name: gathered(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gathered(value) for value in state)
    return state


def load_weights(model: RetrievalModel, weights: dict[str, Tensor]) -> None:
    """Whole tensors into the model, each process taking what it holds of them.

    Raises:
        ValueError: as of `load_trained_state`.
    """
    own = model.state_dict() if sharded(model) else {}
    model.load_trained_state({k: _like(v, own.get(k)) for k, v in weights.items()})


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """The state of an optimiser as `gathered` gave it, each process taking what it holds of it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        number: {name: _like(value, parameters[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def _parts(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _like(value: Any, own: Any) -> Any:
    """The value cut as `own` is, if that is sharded and of its shape."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    value = value.to(own.device)
    # every process has read the same file: nothing is sent
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)
