"""The yaml files of recipes/configs hold the numbers of the sources they are named after."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascl_plugin.training.parsing import parse_options

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
    assert loss.loss == {
        "name": "ascl", "temperature": temperature, "balance": balance,
        **({} if factor is None else {"form": "nll"}),
    }  # fmt: skip
    head = {
        "name": "cross_modal", "num_heads": 8, "local_weight": local, "direction_weight": 0.5,
    }  # fmt: skip
    assert (train.learning_rate, train.schedule) == (rate, schedule)
    if factor is not None:
        assert (train.decay_factor, train.decay_every) == (factor, 10)
        assert (model.fusion, train.max_grad_norm) == (head, 0)
    else:
        assert (train.final_learning_rate, train.max_grad_norm) == (1e-4, 2)
        assert model.fusion == {**head, "attention": "parameter-free"}
        assert model.feature_norm == "l2"
    assert (train.optimizer, train.batch_size, train.epochs) == ("adam", 64, 20)
    data = options.data
    assert (model.dim, data.num_regions) == (1024, 36)
    assert (data.region_files, data.pooled_files) == ("regions", "pooled")
    assert model.text_encoder == {"name": "bert", "model": "bert-base-uncased"}
    assert model.image_encoder == {
        "name": "timm_grid", "model": "resnet152", "weights": "pretrained", "num_regions": 36,
    }  # fmt: skip
    assert (loss.positives, loss.negatives) == ("mixed", "mixture")
