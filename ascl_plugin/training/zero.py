"""DeepSpeed's ZeRO: optimiser state, gradients and weights cut over processes, and whole again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.sharding import Engine


class Zero(Engine):
    """A model in DeepSpeed's hands, whose steps and checkpoints are those of any other engine.

    DeepSpeed flattens what its optimiser steps, so Adam counts steps and moves weights by the
    group. Each part of the model (an encoder, a projection, the fusion) is a group of its own here,
    and one that a step did not use is left alone in it, as torch's optimisers do.

    In stage 3 DeepSpeed would gather a module's weights as it is called, which a model that scores
    through small modules has no use for: here all are whole from a step's first forward pass to its
    last backward pass. Frozen encoders are not DeepSpeed's: they stay whole.

    Args:
        accelerator: of the run, made with `zero_plugin`.
        model, optimizer: as of `Engine`.
    """

    def __init__(
        self, accelerator: Any, model: RetrievalModel, optimizer: torch.optim.Optimizer
    ) -> None:
        self.accelerator = accelerator
        self.raw_model = model
        self.stage = accelerator.state.deepspeed_plugin.zero_stage
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._groups = optimizer.state_dict()["param_groups"]  # as a checkpoint has them
        names = {p: name.partition(".")[0] for name, p in model.named_parameters()}
        self._parts = [names[p] for p in self.parameters]
        self._used: set[str] = set()
        for p in self.parameters:
            p.register_post_accumulate_grad_hook(lambda p: self._used.add(names[p]))
        optimizer.param_groups[:] = _by_part(optimizer.param_groups, names)
        optimizer.register_step_pre_hook(self._leave_alone)
        self._group_of = {
            p: number for number, g in enumerate(optimizer.param_groups) for p in g["params"]
        }
        self.model, self.optimizer = accelerator.prepare(_Trained(model), optimizer)
        self._step = ExitStack()
        self._in_step = False
        if self.stage == 3:
            self.model.optimizer.parameter_offload.destroy()  # its hooks
            self.model.module.register_forward_pre_hook(self._gather)

    def _gather(self, *_: Any) -> None:
        if not self._in_step:
            self._in_step = True
            self._step.enter_context(self.whole())

    def accumulating(self) -> AbstractContextManager[None]:
        """Around each batch; DeepSpeed is told in `backward` when to send gradients."""
        return self.accelerator.accumulate()

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a batch; unlike Accelerate's, it moves no weight."""
        self.model.set_gradient_accumulation_boundary(self.accelerator.sync_gradients)
        self.model.backward(loss)

    def leave_out(self, loss: Tensor) -> None:
        """Ends the step under way, with all its gradients; every process must ask.

        DeepSpeed drops the gradients of a step that is not finite, so that is what they are made.
        """
        self.model.set_gradient_accumulation_boundary(True)
        self.model.backward(loss * torch.nan)
        if self.ready():
            raise RuntimeError("DeepSpeed took a step whose gradients are not finite")

    def ready(self) -> bool:
        """Whether all gradients are finite; if so DeepSpeed, which alone can tell, has moved."""
        from deepspeed.utils import safe_set_full_grad

        if self.stage == 3:  # which remembers the last gradient of what is idle
            for p, part in zip(self.parameters, self._parts, strict=True):
                if part not in self._used:
                    safe_set_full_grad(p, torch.zeros(p.ds_shape, device=self.model.device))
        self._step.close()
        self._in_step = False
        self.model.step()
        self._used.clear()
        return self.model.was_step_applied()

    def move(self, max_grad_norm: float | None) -> None:
        """Nothing is left to do after `ready`; clipping is in DeepSpeed's configuration."""

    def _leave_alone(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            if group["part"] not in self._used:
                for flat in group["params"]:
                    flat.grad = None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within it every process holds all weights, to be used in any way; all must take part."""
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(self.model.module.parameters(), enabled=self.stage == 3):
            yield

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Within it the first process may save the model; all must take part."""
        with self.whole():
            yield

    def trained_state(self) -> dict[str, Tensor]:
        """A copy of the model's `trained_state`, on the CPU; all processes must take part."""
        with self.whole():
            state = self.raw_model.trained_state()
            return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `trained_state`.

        Raises:
            ValueError: as of the model's.
        """
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_set_full_fp32_param

        with GatheredParameters(self.model.module.parameters(), 0, enabled=self.stage == 3):
            self.raw_model.load_trained_state(state)
            for p in self.parameters:
                safe_set_full_fp32_param(p, p.detach())

    def optimizer_state(self) -> dict[str, Any]:
        """The `state_dict` of torch's optimiser, whole, on the CPU; all must take part."""
        from deepspeed.utils import safe_get_full_optimizer_state

        self._link()
        state: dict[int, dict[str, Any]] = {}
        for number, p in enumerate(self.parameters):
            found = self.model.optimizer.state.get(self._flat(p)[0], {})
            state[number] = {
                name: safe_get_full_optimizer_state(p, name).cpu()
                for name in found
                if name != "step"
            }
            if found:  # a count of its own, where DeepSpeed has one for the group
                state[number]["step"] = found["step"].clone()
        rates = {group["part"]: group["lr"] for group in self.optimizer.param_groups}
        groups = [{**g, "lr": rates[self._parts[g["params"][0]]]} for g in self._groups]
        return {"state": {k: v for k, v in state.items() if v}, "param_groups": groups}

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Inverse of `optimizer_state`; each process takes its share.

        Raises:
            ValueError: parameters of one part have taken different numbers of steps.
        """
        from deepspeed.utils import safe_set_full_optimizer_state

        for number, moments in state["state"].items():
            for flat in self._flat(self.parameters[number]):
                own = self.model.optimizer.state[flat]
                for name, value in moments.items():
                    empty = value.clone() if name == "step" else torch.zeros_like(flat)
                    own.setdefault(name, empty)
                if own["step"] != moments["step"]:
                    raise ValueError(
                        f"DeepSpeed cannot go on from here: parameters of {self._parts[number]} "
                        "have taken different numbers of steps"
                    )
        self._link()
        for number, moments in state["state"].items():
            for name in moments.keys() - {"step"}:
                value = moments[name].to(self.model.device)
                safe_set_full_optimizer_state(self.parameters[number], value, name)

    def finish(self, state: dict[str, Tensor]) -> None:
        """Ends training with these weights; they are the model's own from now on.

        Raises:
            ValueError: as of `load_trained_state`.
        """
        with self.whole():
            kept = [(p, p.detach().clone()) for p in self.model.module.parameters()]
        self.model.destroy()
        for p, value in kept:
            p.data = value
        self.raw_model.load_trained_state(state)

    def _flat(self, p: nn.Parameter) -> list[Tensor]:
        """What this process steps of the parameter's group."""
        zero, group = self.model.optimizer, self._group_of[p]
        if self.stage < 3:
            return [zero.single_partition_of_fp32_groups[group]]
        owners = zero.sub_group_to_group_id
        flats = enumerate(zero.fp32_partitioned_groups_flat)
        return [flat for number, flat in flats if owners[number] == group]

    def _link(self) -> None:
        """Has DeepSpeed find the moments of each parameter; it does so once, in the first step."""
        if self.stage < 3:
            self.model.optimizer._hp_optimizer_states_linked = False
            self.model.optimizer._lazy_init_hp_params_optimizer_state()


class _Trained(nn.Module):
    """The model, of which DeepSpeed is to see the parts that train."""

    def __init__(self, model: RetrievalModel) -> None:
        super().__init__()
        self.run = [model]  # in a list: no module of this one
        for name, part in model.named_children():
            if any(p.requires_grad for p in part.parameters()):
                self.add_module(name, part)

    def forward(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        return self.run[0](*arguments, **options)

    def train(self, mode: bool = True) -> _Trained:
        self.run[0].train(mode)
        return super().train(mode)


def _by_part(
    groups: list[dict[str, Any]], names: Mapping[nn.Parameter, str]
) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for group in groups:
        for part in dict.fromkeys(names[p] for p in group["params"]):
            own = [p for p in group["params"] if names[p] == part]
            parts.append({**group, "params": own, "part": part})
    return parts
