"""Options from a yaml file and from flags, and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="extra `recipes`")
import yaml

from ascl_plugin.training.arguments import COMPONENTS
from ascl_plugin.training.parsing import parse_options

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"


@pytest.fixture
def config(tmp_path):
    """Writes a yaml file and gives its path."""

    def write(text):
        path = tmp_path / "options.yaml"
        path.write_text(text)
        return str(path)

    return write


def refused(capsys, *argv):
    """What is printed of a command line that does not fit; the exit status is 2."""
    with pytest.raises(SystemExit) as stop:
        parse_options(list(argv))
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_without_anything_there_are_defaults():
    options = parse_options([])
    assert options.loss.loss == {"name": "ascl"} and options.data.data_root is None
    assert options.flat()["batch_size"] == 64


def test_flags_override_the_file_wherever_they_stand(config):
    path = config("epochs: 3\nbatch_size: 8\ncpu: true\ndata_root: null\nlearning_rate: 1e-3\n")
    for argv in (
        ["--config", path, "--epochs", "5"],
        ["--epochs", "5", "--config", path],
        ["--epochs=5", f"--config={path}"],
    ):
        train = parse_options(argv).train
        assert (train.epochs, train.batch_size, train.cpu) == (5, 8, True)
        assert train.learning_rate == 1e-3


def test_the_default_file_is_read_unless_another_is_named(config):
    path = config("epochs: 3\n")
    assert parse_options([], path).train.epochs == 3
    assert parse_options(["--epochs", "4"], path).train.epochs == 4
    assert parse_options(["--config", str(CONFIGS / "small.yaml")], path).train.epochs != 3


def test_booleans_are_flags_or_values():
    assert parse_options(["--cpu"]).train.cpu is True
    assert parse_options(["--cpu", "True"]).train.cpu is True
    assert parse_options(["--cache_images", "false"]).data.cache_images is False
    assert parse_options([]).data.cache_images is True


def test_what_is_written_is_read_back(config):
    options = parse_options(
        ["--dim=16", "--cpu", "--noise_strength=0.3", "--loss={name: triplet, margin: 5e-1}"]
    )
    path = config(yaml.safe_dump(options.flat(), sort_keys=False))
    assert parse_options(["--config", path]) == options


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_configuration_of_the_recipes_parses(path):
    options = parse_options(["--config", str(path)]).flat()
    for name, value in yaml.safe_load(path.read_text()).items():
        if isinstance(value, dict | str) and name in COMPONENTS:
            assert options[name] == (value if isinstance(value, dict) else {"name": value})
            continue
        # yaml takes 5e-4 for a string, the parser for a number
        assert options[name] == (type(options[name])(value) if options[name] is not None else None)


def test_an_unknown_option_suggests_the_nearest(capsys, config):
    expected = "unknown option 'noise_strenght' (did you mean 'noise_strength'?)"
    assert expected in refused(capsys, "--noise_strenght", "0.1")
    assert expected in refused(capsys, "--noise_strenght=0.1", "--epochs", "2")
    path = config("epochs: 3\nnoise_strenght: 0.1\n")
    told = refused(capsys, "--config", path)
    assert expected in told and path in told
    far = refused(capsys, "--qqqq", "1")
    assert "unknown option 'qqqq'" in far and "did you mean" not in far


@pytest.mark.parametrize(
    ("given", "meant"), [("lr", "learning_rate"), ("workers", "num_workers"), ("Dim", "dim")]
)
def test_usual_short_names_are_understood_as_what_they_mean(capsys, given, meant):
    told = refused(capsys, f"--{given}", "1")
    assert told == f"error: unknown option {given!r} (did you mean {meant!r}?). See --help"


def test_help_has_the_values_of_the_run(capsys, config):
    def printed(*argv):
        with pytest.raises(SystemExit) as stop:
            parse_options([*argv, f"--config={config('dim: 48')}"], description="Trains.")
        assert stop.value.code == 0
        return capsys.readouterr().out

    usual = printed("--help", "--epochs", "7")
    assert usual.startswith("Trains.\n") and len(usual.splitlines()) < 80
    assert "  --dim 48  " in usual and "  --epochs 7  " in usual and "lexical" not in usual
    every = printed("--help-all")
    assert "  --epochs 20  " in every and "one of none, bag, lsa" in " ".join(every.split())
    assert max(map(len, usual.splitlines())) <= 100


def test_a_configuration_that_comes_along_has_a_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_options(["--config", "coco_acf"]) == parse_options(["--config", "coco_acf.yaml"])
    (tmp_path / "coco_acf.yaml").write_text("dim: 3\n")  # a file that is there is what is meant
    assert parse_options(["--config", "coco_acf.yaml"]).model.dim == 3
    assert "--config coco: no such file" in refused(capsys, "--config", "coco")


def test_no_prefix_of_an_option_is_taken_for_it(capsys):
    assert "unknown option 'noise_s'" in refused(capsys, "--noise_s", "0.1")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("epochs", "ten", "argument --epochs: invalid int value: 'ten'"),
        ("dim", "wide", "--dim: invalid int value: 'wide'"),
        ("loss", "{margin: 1}", "--loss: expected NAME or {name: NAME, option: value, ...}, got"),
        ("fusion", "[1]", "--fusion: expected NAME or {name: NAME, option: value, ...}, got"),
        ("negatives", "noise", "--negatives: invalid choice: 'noise' (choose from"),
        ("schedule", "linear", "--schedule: invalid choice: 'linear' (choose from"),
        ("cpu", "perhaps", "--cpu"),
    ],
)
def test_a_value_that_does_not_fit_names_the_option(capsys, config, name, value, told):
    assert told in refused(capsys, f"--{name}", value)
    assert told in refused(capsys, "--config", config(f"{name}: {value}\n"))


def test_files_that_cannot_be_read_are_named(capsys, config, tmp_path):
    assert "absent.yaml: no such file" in refused(capsys, "--config", str(tmp_path / "absent.yaml"))
    assert "options.yaml is not yaml" in refused(capsys, "--config", config("a: [1"))
    for content in ("", "- epochs\n", "epochs"):
        told = refused(capsys, "--config", config(content))
        assert "options.yaml: expected options, 'name: value' a line" in told
    assert f"{tmp_path}: Is a directory" in refused(capsys, "--config", str(tmp_path))
    for argv in (["--config"], ["--config="], ["--epochs", "2", "--config"]):
        assert "--config: expected a file" in refused(capsys, *argv)


@pytest.mark.parametrize(
    ("name", "least"),
    [("batch_size", 1), ("eval_every", 1), ("cached_chunk", 0), ("skip_bad_batches", 0)],
)
def test_numbers_that_count_something_start_at_one_or_zero(capsys, config, name, least):
    told = f"argument --{name}: expected at least {least}, got"
    assert f"{told} {least - 1}" in refused(capsys, f"--{name}={least - 1}")
    assert f"{told} -2" in refused(capsys, "--config", config(f"{name}: -2\n"))


def test_a_component_is_a_name_or_a_mapping(config):
    """A name or mapping replaces what the file has; a dotted option keeps the rest of it."""
    path = config("image_encoder: {name: grid, width: 8}\ntext_encoder.width: 16\n")

    def encoders(*argv):
        model = parse_options(["--config", path, *argv]).model
        return model.image_encoder, model.text_encoder

    words = {"name": "transformer", "width": 16}
    assert encoders() == ({"name": "grid", "width": 8}, words)
    grid = {"name": "grid", "width": 8, "grid": 3}
    assert encoders("--image_encoder.grid", "3") == encoders("--image_encoder.grid=3")
    assert encoders("--image_encoder.grid=3") == (grid, words)
    own = {"name": "a.b:C", "x": {"y": [1]}, "rate": 1e-3}
    assert encoders("--image_encoder", "{name: 'a.b:C', x: {y: [1]}, rate: 1e-3}")[0] == own
    named = encoders("--image_encoder.tune=full", "--image_encoder=timm_grid")
    assert named == ({"name": "timm_grid", "tune": "full"}, words)


def test_a_mapping_stands_for_a_file():
    options = parse_options(["--epochs=3"], {"dim": 8, "loss": "triplet", "epochs": 2})
    assert (options.model.dim, options.train.epochs, options.loss.loss.name) == (8, 3, "triplet")
