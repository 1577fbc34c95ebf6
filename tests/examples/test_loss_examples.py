"""Every example of the loss in another home runs as its docstring says, and its loss falls."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "loss_bare_loop": (),
    "loss_hf_trainer": ("transformers", "accelerate"),
    "loss_sentence_transformers": ("sentence_transformers", "datasets"),
    "loss_lightning": ("lightning",),
    "loss_metric_learning": ("pytorch_metric_learning",),
}
CHANGED = re.compile(r"  # \+$", re.MULTILINE)


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("loss_*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", NEEDS)
def test_the_loss_falls(name, monkeypatch, capsys):
    """To less than half: 56 pairs in two batches; chance is ln 28 = 3.3 or more in a direction.

    The last loss is a batch's that was trained on; no gradient on the way is anything but finite.
    """
    for package in NEEDS[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed: pip install "ascl-plugin[all]"')
    steps = []

    def look(optimizer, *_):
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"]]
        given = [g for g in gradients if g is not None]
        steps.append(bool(given) and all(bool(g.isfinite().all()) for g in given))

    monkeypatch.syspath_prepend(EXAMPLES)
    hook = register_optimizer_step_post_hook(look)
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    finally:
        hook.remove()
        torch.set_num_threads(threads)
        sys.modules.pop("two_colours", None)
    first, last = re.search(r"loss (\S+) -> (\S+)", capsys.readouterr().out).groups()
    assert float(first) > 2.5
    assert float(last) < float(first) / 2
    assert len(steps) >= 60
    assert all(steps)


@pytest.mark.parametrize("name", NEEDS)
def test_ten_lines_change_at_most(name):
    assert 1 <= len(CHANGED.findall((EXAMPLES / f"{name}.py").read_text())) <= 10
