"""Weights that are sharded over processes (FSDP2): made whole to be used or kept, and cut again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from ascl_plugin.distributed import world_size
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.nonfinite import finite_gradients


def refuse_engines(environment: Mapping[str, str] = os.environ) -> None:
    """Stops before an engine starts that would train something else than was asked for.

    Args:
        environment: what `accelerate launch` tells the processes it starts.

    Raises:
        ValueError: Megatron-LM, DeepSpeed, or FSDP of the first version.
    """

    def asked(name: str) -> bool:
        return environment.get(name, "false").lower() == "true"

    for name, engine in (("MEGATRON_LM", "Megatron-LM"), ("DEEPSPEED", "DeepSpeed")):
        if asked(f"ACCELERATE_USE_{name}"):
            raise ValueError(
                f"{engine} is not supported; recipes/accelerate/fsdp2.yaml shards optimizer state, "
                "gradients and weights"
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


class Engine:
    """A model on one process, in copies (DDP) or in shards (FSDP2), with its optimiser.

    Args:
        accelerator: of the run.
        model: on its device.
        optimizer: of torch, over the parameters that train.

    Attributes:
        model: to be called in training.
        optimizer: with `param_groups` and `zero_grad`.
    """

    def __init__(
        self, accelerator: Any, model: RetrievalModel, optimizer: torch.optim.Optimizer
    ) -> None:
        self.accelerator = accelerator
        self.raw_model = model
        set_up_fsdp(accelerator, model)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def accumulating(self) -> AbstractContextManager[None]:
        """Around each batch: gradients are sent with the last of a step."""
        return self.accelerator.accumulate(self.model)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a batch."""
        self.accelerator.backward(loss)

    def ready(self) -> bool:
        """Whether the gradients held here are finite; asked before each step."""
        # overflow in fp16 is for the scaler to find, and to answer with another scale
        return self.accelerator.scaler is not None or finite_gradients(self.raw_model.parameters())

    def move(self, max_grad_norm: float | None) -> None:
        """Clips and moves the weights, if the batch was the last of a step."""
        if self.accelerator.sync_gradients and max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), max_grad_norm)
        self.optimizer.step()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within it every process holds all weights, to be used in any way; all must take part."""
        for part in _parts(self.raw_model):
            part.unshard()
        try:
            yield
        finally:
            for part in _parts(self.raw_model):
                part.reshard()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Within it the first process may save the model; all must take part."""
        yield
        if sharded(self.raw_model) and not self.accelerator.is_main_process:
            self.raw_model.trained_state()  # which all processes gather

    def trained_state(self) -> dict[str, Tensor]:
        """The model's, whole; all processes must take part."""
        return self.raw_model.trained_state()

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `trained_state`, each process taking what it holds of the tensors.

        Raises:
            ValueError: as of the model's.
        """
        own = self.raw_model.state_dict() if sharded(self.raw_model) else {}
        self.raw_model.load_trained_state({k: _like(v, own.get(k)) for k, v in state.items()})

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's `state_dict`, whole; all processes must take part."""
        return _gathered(self.optimizer.state_dict())

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Inverse of `optimizer_state`, each process taking what it holds of the tensors."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = {
            number: {name: _like(value, parameters[number]) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": moments})

    def finish(self, state: dict[str, Tensor]) -> None:
        """Ends training with these weights, of which every process holds all from now on.

        Raises:
            ValueError: as of `load_trained_state`.
        """
        self.load_trained_state(state)
        for part in _parts(self.raw_model):
            part.unshard()


def sharded(model: nn.Module) -> bool:
    """Whether each process holds but a part of the weights."""
    return isinstance(model, FSDPModule)


def _gathered(state: Any) -> Any:
    """Dicts and lists, every sharded tensor in them made whole."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {name: _gathered(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_gathered(value) for value in state)
    return state


def _parts(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _like(value: Any, own: Any) -> Any:
    """The value cut as `own` is, if that is sharded and of its shape."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    value = value.to(own.device)
    # every process has read the same file: nothing is sent
    return distribute_tensor(value, own.device_mesh, own.placements, src_data_rank=None)


def share_buffers(model: nn.Module) -> None:
    """Gives every process the first one's floating-point buffers, which are those that are saved.

    DistributedDataParallel does so at the beginning of a step, so after a step they differ.
    """
    if world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.broadcast(buffer, 0)
