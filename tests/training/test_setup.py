"""From options to a run's beginning: model, loss, tracker, and the lock of its folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
from accelerate import Accelerator

from ascl_plugin import registry
from ascl_plugin.retrieval.encoders import GridEncoder, WordTransformer
from ascl_plugin.training.arguments import Component
from ascl_plugin.training.models import make_loss, make_model
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve
from ascl_plugin.training.setup import LOCK, locked, make_accelerator, occupied


def model(*argv):
    return make_model(resolve(parse_options(list(argv))), [["a word"], ["two words", "a b"]])


@pytest.fixture
def register(monkeypatch):
    """A function that registers a component for one test."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    return lambda kind, name, component: registry.register(kind, name)(component)


def test_options_reach_an_encoder_untouched(register):
    got = {}

    class Mine(GridEncoder):
        def __init__(self, side, extra=None):
            super().__init__(width=8)
            got.update(side=side, extra=extra)

    register("image_encoder", "mine", Mine)
    built = model("--image_encoder={name: mine, side: 3}", "--image_encoder.extra={a: [1, x]}")
    assert type(built.image_encoder) is Mine and got == {"side": 3, "extra": {"a": [1, "x"]}}


def test_captions_decide_options_that_are_not_given(register):
    """A hook of the encoder, not its name."""

    class Mine(WordTransformer):
        @classmethod
        def options_from(cls, captions):
            return {"vocabulary": [text for several in captions for text in several], "width": 8}

    register("text_encoder", "mine", Mine)
    found = model("--text_encoder=mine", "--text_encoder.width=16").text_encoder
    assert list(found.ids) == ["a word", "two words", "a b"] and found.word_dim == 16
    assert list(model("--text_encoder.vocabulary=[x, y]").text_encoder.ids) == ["x", "y"]
    assert list(model().text_encoder.ids) == ["a", "b", "two", "word", "words"]


def test_weights_are_those_of_the_seed_and_the_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = model("--seed=3", "--dim=8", "--fusion.num_heads=1")
    assert torch.equal(torch.rand(3), expected)
    second = model("--seed=3", "--dim=8", "--fusion.num_heads=1")
    other = model("--seed=4", "--dim=8", "--fusion.num_heads=1")
    states = [m.state_dict() for m in (first, second, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    name = "region_projection.weight"
    assert not torch.equal(states[0][name], states[2][name])


def test_a_loss_that_learns_is_refused(register):
    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logit_scale = torch.nn.Parameter(torch.zeros(()))

    register("loss", "learned", Learned)
    with pytest.raises(ValueError, match="loss 'learned' learns 'logit_scale', but only the model"):
        make_loss(Component("learned"))


def test_trackers_file_runs_under_the_project(tmp_path, monkeypatch):
    """Its name is not a tracker's; Weights & Biases also shows the folder's."""
    seen = []
    monkeypatch.setattr(Accelerator, "init_trackers", lambda self, *a, **k: seen.append((a, k)))
    flags = ["--cpu", "--image_encoder.width=8", f"--output_dir={tmp_path / 'mine'}"]
    options = resolve(parse_options(flags))
    accelerator = make_accelerator(options)
    with occupied(accelerator, options):
        pass
    ((name,), more), = seen  # fmt: skip
    assert name == "ascl_plugin" and more["init_kwargs"]["wandb"] == {"name": "mine"}
    assert more["config"]["image_encoder.width"] == 8 and "data_root" not in more["config"]


# holds the lock with a forked child at its side, as a data worker is
HOLDER = """
import os, sys, time
from pathlib import Path
from ascl_plugin.training.setup import locked
with locked(Path(sys.argv[1])):
    worker = os.fork()
    if worker:
        print(worker, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_second_process_is_refused_until_a_kill_frees_the_folder(tmp_path):
    """Though a worker is left; the message names the holder, and the file the next one."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(FileExistsError) as told, locked(tmp_path):
            pass
        held = f"{tmp_path} is in use by process {holder.pid} on {socket.gethostname()}; wait"
        assert held in str(told.value)
        holder.kill()
        holder.wait()
        for _ in range(2):
            with locked(tmp_path):
                assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    finally:
        holder.kill()
        os.kill(worker, 9)
        holder.wait()
