"""`install` into a trainer of open_clip 4, rebuilt from its public contract, and its refusals.

Of version 4, not released yet, the trainer's `create_task` returns a module that owns model and
loss: `training_forward` calls `loss(**model_out, output_dict=True)` and adds what ends in `_loss`;
under accumulation `compute_accum_loss` does it with features of all batches. `create_loss` is
still there, and its loss is trained by nobody.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from torch.testing import assert_close

from ascl_plugin.adapters.losses.open_clip import OpenClipAsymmetryLoss, install


class ClipLoss(nn.Module):
    """Stand-in of the same name, with the choices that it keeps as attributes."""

    def __init__(self, rank=0, world_size=1, local_loss=False, gather_with_grad=False):
        super().__init__()
        self.rank, self.world_size = rank, world_size
        self.local_loss, self.gather_with_grad = local_loss, gather_with_grad

    def forward(self, image_features, text_features, logit_scale, output_dict):
        return {"contrastive_loss": (image_features - text_features).square().sum()}


class SigLipLoss(ClipLoss):
    pass


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(4, 3), nn.Linear(5, 3)
        self.logit_scale = nn.Parameter(torch.tensor([2.0]))  # (1,), as under FSDP2

    def forward(self, image, text):
        return {
            "image_features": normalize(self.image(image), dim=1),
            "text_features": normalize(self.text(text), dim=1),
            "logit_scale": self.logit_scale.exp(),
        }


class Task(nn.Module):
    def __init__(self, model, loss):
        super().__init__()
        self.trainable_module, self.loss = model, loss

    def training_forward(self, batch):
        out = self.trainable_module(image=batch["image"], text=batch["text"])
        losses = self.loss(**out, output_dict=True)
        losses["loss"] = sum(v for k, v in losses.items() if k.endswith("_loss"))
        return losses, {"logit_scale": out["logit_scale"]}

    def compute_accum_loss(self, inputs, inputs_no_accum, accum_batches):
        return self.loss(**inputs, **inputs_no_accum, output_dict=True), inputs_no_accum


def trainer_of(loss=ClipLoss, task_loss=None):
    """A module with a `main` that makes one step, by its task; `task_loss`: past `create_task`."""
    torch.manual_seed(0)
    module = ModuleType("trainer")

    def create(args):
        return loss(args.rank, args.world_size, args.local_loss, args.gather_with_grad)

    def main(args):
        built = module.create_task(args, model=Towers())
        task = Task(built.trainable_module, task_loss()) if task_loss else built
        optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.1)
        losses, _ = task.training_forward({"image": torch.randn(6, 4), "text": torch.eye(6)[:, 1:]})
        losses["loss"].backward()
        optimizer.step()
        return task, losses

    module.create_loss, module.main = create, main
    module.create_task = lambda args, *, model, dist_model=None: Task(model, create(args))
    return module


ARGS = SimpleNamespace(rank=0, world_size=1, local_loss=True, gather_with_grad=True)


def test_the_task_of_version_4_trains_with_the_loss():
    module = trainer_of()
    install(module, temperature=0.1, negatives="none")
    task, losses = module.main(ARGS)
    assert isinstance(task.loss, OpenClipAsymmetryLoss)
    assert task.loss.temperature == 0.1 and task.loss.local_loss and task.loss.gather_with_grad
    assert set(losses) == {"asymmetry_loss", "loss"}
    assert_close(losses["loss"], losses["asymmetry_loss"])
    gradients = [p.grad for p in task.trainable_module.parameters()]
    assert all(g is not None for g in gradients) and gradients[1].abs().max() > 0
    out = task.trainable_module(torch.randn(6, 4), torch.eye(6)[:, 1:])
    scale = {"logit_scale": out.pop("logit_scale")}
    accumulated, _ = task.compute_accum_loss(out, scale, [])
    assert accumulated["asymmetry_loss"].isfinite()


def test_a_trainer_that_makes_its_loss_elsewhere_stops_before_the_first_step():
    module = trainer_of(task_loss=ClipLoss)
    install(module)
    with pytest.raises(RuntimeError, match=r"never called: trainer does not .* create_task or"):
        module.main(ARGS)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)]).step()  # and nothing is left behind


def test_other_losses_and_other_modules_are_refused():
    module = trainer_of(SigLipLoss)
    install(module)
    with pytest.raises(ValueError, match=r"made a SigLipLoss: .* without --siglip"):
        module.main(ARGS)
    with pytest.raises(ValueError, match="math has none of create_task, create_loss"):
        install(ModuleType("math"))
    with pytest.raises(ValueError, match="balance must be in"):
        install(trainer_of(), balance=2)
