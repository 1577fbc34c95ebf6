"""Averages of weights: their equations, and a run that is stopped and goes on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("accelerate", reason="extra `recipes`")
import processes_ranks as program
from safetensors.torch import load_file

from ascl_plugin.training.average import WeightAverage
from ascl_plugin.training.checkpoint import checkpoints, load_checkpoint
from ascl_plugin.training.models import make_model
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.setup import load_splits, training_captions
from ascl_plugin.training.wise_ft import WiseFT


def test_it_follows_the_weights():
    """Decays 1/10 and 2/11, then 0.2 for 3/12 is above it: from 0, weights of 10, 21, 30 give
    9; 2/11 * 9 + 9/11 * 21 = 18 + 9/11; 0.2 of that + 24 = 27 + 42/55."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.2)
    for step, weight in enumerate((10.0, 21.0, 30.0), 1):
        nn.init.constant_(model.weight, weight)
        average.update(step)
    with average.in_place():
        torch.testing.assert_close(model.weight.item(), 27 + 42 / 55, rtol=1e-6, atol=0)
    assert model.weight.item() == 30
    with pytest.raises(ValueError, match=r"ema_decay must be 0 .off. or between 0 and 1, got 1.5"):
        WeightAverage(model, 1.5)


def test_wise_ft_by_hand():
    """From 2 to 10, a quarter of the way: 0.75 * 2 + 0.25 * 10 = 4; training goes on from 10."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    wise = WiseFT(model, 0.25)
    nn.init.constant_(model.weight, 10.0)
    with wise.in_place():
        assert model.weight.item() == 4
    assert model.weight.item() == 10
    with pytest.raises(ValueError, match=r"wise_ft_alpha must be 1 .* or between 0 and 1, got 0"):
        WiseFT(model, 0)


@pytest.mark.recipe
def test_a_run_goes_on_with_its_average_and_saves_it(tmp_path):
    """Stopped in the third of four steps. The best model lies between the first weights, which are
    made anew, and the average."""
    flags = ["--ema_decay=0.7", "--wise_ft_alpha=0.25"]
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    assert program.run(alone, *flags)[0] == 0
    assert program.run(stopped, *flags, stop_at=4)[0] != 0
    assert program.run(stopped, *flags, "--resume")[0] == 0
    weights, state = load_checkpoint(checkpoints(alone)[-1])
    assert state["step"] == 4
    for other in (load_checkpoint(checkpoints(stopped)[-1])[1]["average"],):
        for name, value in state["average"].items():
            assert torch.equal(other[name], value), name
    best, again = (load_file(run / "best" / "model.safetensors") for run in (alone, stopped))
    options = resolve(parse_options([*program.OPTIONS, f"--output_dir={alone}"]))
    first = dict(make_model(options, training_captions(load_splits(options)["train"])).state_dict())
    for name, value in state["average"].items():
        assert torch.equal(best[name], again[name]), name
        torch.testing.assert_close(best[name], 0.75 * first[name].double() + 0.25 * value)
        assert not torch.equal(value, weights[name]), name
