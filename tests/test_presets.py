"""The yaml files of recipes/configs hold the numbers of the sources they are named after."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascl_plugin.training.arguments import parse_options

CONFIGS = Path(__file__).parents[1] / "recipes" / "configs"

# temperature, local weight, balance, learning rate, schedule, factor of the decay; as printed in
# section 3.1 of the AsCL paper, section 4.2.2 of the ACF-R+ paper, and set in the public code
SOURCES = {
    "coco_ascl": (0.05, 0.8, 0.5, 5e-4, "step", 0.9),
    "coco_acf": (0.05, 0.8, 0.5, 5e-4, "step", 0.9),
    "coco_acf_code": (0.1, 0.8, 0.4, 5e-4, "cosine", None),
    "flickr30k_ascl": (0.01, 0.6, 0.5, 2e-4, "step", 0.1),
    "flickr30k_acf": (0.01, 0.6, 0.5, 2e-4, "step", 0.9),
    "flickr30k_acf_code": (0.1, 0.8, 0.4, 5e-4, "cosine", None),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_preset_is_its_source(name):
    options = parse_options(["--config", str(CONFIGS / f"{name}.yaml")])
    temperature, local, balance, rate, schedule, factor = SOURCES[name]
    model, loss, train = options.model, options.loss, options.train
    assert (loss.temperature, loss.balance) == (temperature, balance)
    assert (model.local_weight, model.direction_weight) == (local, 0.5)
    assert (train.learning_rate, train.schedule) == (rate, schedule)
    if factor is not None:
        assert (train.decay_factor, train.decay_every) == (factor, 10)
        assert (model.attention, train.max_grad_norm) == ("projected", 0)
    else:
        assert (train.final_learning_rate, train.max_grad_norm) == (1e-4, 2)
        assert (model.attention, model.feature_norm) == ("parameter-free", "l2")
    assert (train.optimizer, train.batch_size, train.epochs) == ("adam", 64, 20)
    assert (model.dim, model.num_regions, model.freeze_encoders) == (1024, 36, True)
    assert (options.data.region_files, options.data.pooled_files) == ("regions", "pooled")
    assert (model.text_encoder, model.text_model) == ("bert", "bert-base-uncased")
    assert (model.image_model, model.image_pretrained) == ("resnet152", True)
    assert (loss.loss, loss.form, loss.positives, loss.negatives) == (
        "ascl", "nll", "mixed", "mixture",
    )  # fmt: skip


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_is_accepted(path):
    parse_options(["--config", str(path)])
