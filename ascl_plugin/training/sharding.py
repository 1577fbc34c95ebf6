"""A model on one process, in copies (DDP) or in shards (FSDP2), with its optimizer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    OptimizerStateType,
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule

from ascl_plugin.disk import write_sums, written
from ascl_plugin.distributed import world_size
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.nonfinite import finite_gradients

# whole tensors whatever the engine: a checkpoint is not bound to one; frozen weights are left out
_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)


def refuse_engines(environment: Mapping[str, str] = os.environ) -> None:
    """Check that `accelerate launch` asks for an engine that is supported.

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


def set_up_fsdp(accelerator: Accelerator, model: RetrievalModel) -> None:
    """Set what this model needs of FSDP2, before `accelerator.prepare`.

    Frozen encoders stay whole: they encode outside a step. Weights stay fp32, and autocast alone
    decides on lower precision, as without FSDP. Every rank has made the same weights from the
    seed, so none are sent at the start.

    Raises:
        ValueError: FSDP was asked for, but Accelerate does not shard here, as on a CPU.
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
    """A prepared model and optimizer, whose steps and checkpoints are the same for every engine.

    Attributes:
        model: prepared model, to be called in training.
        optimizer: prepared optimizer, with `param_groups` and `zero_grad`.
    """

    def __init__(
        self, accelerator: Accelerator, model: RetrievalModel, optimizer: torch.optim.Optimizer
    ) -> None:
        self.accelerator = accelerator
        self.raw_model = model
        set_up_fsdp(accelerator, model)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def gradients_finite(self) -> bool:
        """Return True if the gradients on this rank are finite."""
        # overflow in fp16 is for the scaler to find, and to answer with another scale
        return self.accelerator.scaler is not None or finite_gradients(self.raw_model.parameters())

    def optimizer_step(self, max_grad_norm: float) -> None:
        """Clip gradients and step, if the batch was the last of an optimizer step."""
        if self.accelerator.sync_gradients and max_grad_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), max_grad_norm)
        self.optimizer.step()

    @contextmanager
    def unsharded(self) -> Iterator[None]:
        """Give every rank all weights within the context. Collective."""
        for part in _parts(self.raw_model):
            part.unshard()
        try:
            yield
        finally:
            for part in _parts(self.raw_model):
                part.reshard()

    def save_pretrained(self, folder: Path) -> None:
        """Write the model into a folder, with checksums, on rank 0. Collective."""
        if self.accelerator.is_main_process:
            with written(folder) as aside:
                self.raw_model.save_pretrained(aside)
                write_sums(aside, ("config.json", "model.safetensors"))
        elif sharded(self.raw_model):
            self.raw_model.trained_state()  # which all ranks gather

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Load what the model's `trained_state` returned; each rank takes its shard."""
        if sharded(self.raw_model):
            set_model_state_dict(self.raw_model, dict(state), options=_STATE)
        else:
            self.raw_model.load_trained_state(state)

    def optimizer_state(self) -> OptimizerStateType:
        """Return the optimizer's state by parameter name, whole and on rank 0. Collective."""
        if not self.optimizer.state:  # before the first step torch would make one to gather it
            return {"state": {}, "param_groups": []}
        return get_optimizer_state_dict(self.raw_model, self.optimizer.optimizer, options=_STATE)

    def load_optimizer_state(self, state: OptimizerStateType) -> None:
        """Load what `optimizer_state` returned; each rank takes its shard."""
        if not state["state"]:
            return
        optimizer = self.optimizer.optimizer
        set_optimizer_state_dict(self.raw_model, optimizer, state, options=_STATE)
        for name, parameter in self.raw_model.named_parameters():
            if name not in state["state"]:  # idle so far: torch has made up a step for it
                optimizer.state.pop(parameter, None)

    def finish(self, state: dict[str, Tensor]) -> None:
        """End training with these weights; every rank holds all of them from now on."""
        self.load_trained_state(state)
        for part in _parts(self.raw_model):
            part.unshard()


def sharded(model: nn.Module) -> bool:
    """Return True if each rank holds a shard of the weights."""
    return isinstance(model, FSDPModule)


def _parts(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def share_buffers(model: nn.Module) -> None:
    """Broadcast rank 0's floating-point buffers, which are the ones saved. Collective.

    DistributedDataParallel does so at the beginning of a step, so after a step they differ.
    """
    if world_size() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.broadcast(buffer, 0)
