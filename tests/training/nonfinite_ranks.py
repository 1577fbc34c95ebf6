"""What each process of a test in test_nonfinite.py does; a program, light to start."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn

from ascl_plugin.training.nonfinite import BadBatches


def names(rows):
    return [f"image {row}" for row in rows]


def one_process(rank, out):
    """Only rank 1's losses are bad, at steps 2 and 4; one may be."""
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(nn.Linear(2, 2))
    bad = BadBatches(accelerator, model.module, names, 1, lambda line: None)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    found = {"error": ""}
    for step in range(1, 5):
        bad.begin()
        loss = model(torch.ones(2, 2) * (rank + 1)).sum()
        try:
            kept = bad.all_finite(not (rank and step % 2 == 0), "loss is nan", step, [rank])
        except FloatingPointError as error:
            found["error"] = str(error)
            break
        if kept:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    found |= {"steps": bad.steps, "weight": model.module.weight.detach()}
    torch.save(found, f"{out}/{rank}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), sys.argv[1])
