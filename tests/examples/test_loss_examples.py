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
    """From above 5 to less than half: 56 pairs in two batches, and chance is 2 ln 28 = 6.7 or more.

    The last loss is a batch's that was trained on; no gradient on the way is anything but finite.
    """
    for package in NEEDS[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed: pip install "ascl-plugin[examples]"')
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
    assert float(first) > 5
    assert float(last) < float(first) / 2
    assert len(steps) >= 60
    assert all(steps)


@pytest.mark.parametrize("name", NEEDS)
def test_ten_lines_change_at_most(name):
    assert 1 <= len(CHANGED.findall((EXAMPLES / f"{name}.py").read_text())) <= 10


def test_gradient_accumulation_does_not_scale_the_trainers_loss(monkeypatch, tmp_path):
    """One step on four batches of 7 pairs has the mean of their losses, and of their gradients.

    At learning rate 0 and four steps of one batch each, both are known: the mean of the losses;
    a norm no larger than the largest of the four.
    """
    for package in NEEDS["loss_hf_trainer"]:
        pytest.importorskip(package)
    from transformers import Trainer, TrainingArguments

    monkeypatch.syspath_prepend(EXAMPLES)
    example = runpy.run_path(str(EXAMPLES / "loss_hf_trainer.py"))
    logged = {}
    for accumulated in (1, 4):
        torch.manual_seed(0)
        arguments = TrainingArguments(
            str(tmp_path), max_steps=4 // accumulated, per_device_train_batch_size=7,
            gradient_accumulation_steps=accumulated, learning_rate=0.0, logging_steps=1,
            report_to="none", save_strategy="no", remove_unused_columns=False, use_cpu=True,
            disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            example["tiny_clip"](), arguments, data_collator=example["collate"],
            train_dataset=example["rows"](), compute_loss_func=example["compute_loss"],
        )  # fmt: skip
        torch.manual_seed(1)
        trainer.train()
        logged[accumulated] = [e for e in trainer.state.log_history if "grad_norm" in e]
    losses, norms = ([float(e[k]) for e in logged[1]] for k in ("loss", "grad_norm"))
    (whole,) = logged[4]
    assert float(whole["loss"]) == pytest.approx(sum(losses) / 4, rel=0.05)
    assert float(whole["grad_norm"]) <= max(norms)
    sys.modules.pop("two_colours", None)
