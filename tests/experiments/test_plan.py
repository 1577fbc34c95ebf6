"""A study in a yaml file is read, or its mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml", reason="extra `recipes`")

from ascl_plugin.experiments.plan import EXPERIMENTS, read_plan
from ascl_plugin.experiments.study import Study
from ascl_plugin.yaml_file import named, read_yaml

STUDIES = Path(__file__).parents[2] / "recipes" / "experiments"


def written(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_defaults(tmp_path):
    plan = read_plan(written(tmp_path, "models: {full: , other: {loss: triplet}}"))
    assert plan.models == {"full": {}, "other": {"loss": "triplet"}}
    assert plan.models_of("main") == ["full", "other"] and plan.seeds == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a study"),
        ("seeds: [0]", "at least its models"),
        ("models: {a: {}}\nseed: [0]", r"'seed' is not known \(did you mean 'seeds'"),
        ("models: {a: {}}\nseeds: 3", "seeds is 3, expected a list"),
        ("models: {a: {}}\nseeds: []", r"seeds is \[\]"),
        ("models: {a: 3}", "models: a is 3"),
        ("models: {a: {}}\nexperiments: {ablation: {}}", "did you mean 'ablations'"),
        ("models: {a: {}}\nexperiments: {main: {models: [b]}}", "experiment main: model 'b'"),
        ("models: {start: {}}\nstart: {x: 1}", "start is the run that the others start from"),
        ("models: {", "is not yaml"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        read_plan(path)


@pytest.mark.parametrize("name", ["scenes", "flickr8k"])
def test_our_studies_are_whole(name):
    plan = read_plan(STUDIES / f"{name}.yaml")
    for experiment in plan.experiments:
        asked = plan.models_of(experiment)
        assert set(asked) <= {*plan.models, "start"}
        for kind in ("negatives", "positives"):
            assert set(plan.experiments[experiment].get(kind, {}).values()) <= set(asked)
    assert set(plan.experiments) <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", ["scenes", "flickr8k"])
def test_every_model_has_options_of_the_recipe(name):
    pytest.importorskip("transformers", reason="extra `recipes`")
    from ascl_plugin.training.parsing import CONFIGS, parse_options

    plan = read_plan(STUDIES / f"{name}.yaml")
    config = read_yaml(named(plan.config, CONFIGS))
    for options in plan.models.values():
        parse_options([], {**config, **plan.options, **options})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_there(name):
    pytest.importorskip("datasets", reason="extra `recipes`")
    from ascl_plugin.experiments.study import load

    assert callable(load(name))


def test_a_cell_is_measured_again_when_its_settings_change_and_not_for_one_more_model(tmp_path):
    def cell(settings):
        models = "models: {a: {}, b: {}}\n"
        plan = read_plan(written(tmp_path, f"{models}experiments: {{front: {settings}}}"))
        return Study(plan, tmp_path).cell("front", "a-0", lambda: settings)

    first = cell("{models: [a], rows: 2}")
    assert cell("{models: [a, b], baseline: b, rows: 2}") == first
    assert cell("{models: [a, b], rows: 3}") != first
