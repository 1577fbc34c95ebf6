"""Options resolved: files found, folder chosen, components checked before work begins."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

pytest.importorskip("accelerate", reason="extra `recipes`")

from ascl_plugin import registry
from ascl_plugin.experiments import study as studies
from ascl_plugin.experiments.plan import Plan
from ascl_plugin.retrieval.encoders import GridEncoder
from ascl_plugin.training.parsing import parse_options
from ascl_plugin.training.resolve import resolve


def resolved(*argv):
    return resolve(parse_options(list(argv)), "name")


def files(*argv):
    data = resolved(*argv).data
    return data.region_files, data.pooled_files


def test_feature_files_are_looked_for_in_the_data_root_first(tmp_path, monkeypatch):
    root, here = tmp_path / "root", tmp_path / "here"
    here.mkdir()
    (root / "regions").mkdir(parents=True)
    monkeypatch.chdir(here)
    (here / "regions").touch()
    (here / "pooled").touch()
    flags = [f"--data_root={root}", "--region_files=regions"]
    assert files(*flags, "--pooled_files=pooled") == (str(root / "regions"), "pooled")
    # neither: the one that a preset means is named in the error
    assert files(*flags, "--pooled_files=none.h5")[1] == str(root / "none.h5")
    assert files(*flags, f"--pooled_files={here}/pooled")[1] == f"{here}/pooled"


def test_none_is_none(tmp_path):
    flags = [f"--data_root={tmp_path}", "--pooled_files=b"]
    assert files(*flags, "--region_files=none") == files(*flags) == (None, None)
    both = [f"--data_root={tmp_path}", "--region_files=a", "--pooled_files=none"]
    assert files(*both) == (str(tmp_path / "a"), None)


def test_the_folder_is_the_first_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "name-1").mkdir(parents=True)
    assert str(resolved().folder) == "runs/name-2"
    assert not (tmp_path / "runs" / "name-2").exists()
    assert str(resolved("--output_dir=a", "--resume").folder) == "a"
    with pytest.raises(FileNotFoundError, match="--resume needs --output_dir"):
        resolved("--resume")


def test_options_are_frozen_and_resolving_changes_none():
    given = parse_options(["--train_stream=x.tar", "--max_steps=10", "--epochs=2"])
    before = given.flat()
    found = resolve(given)
    assert given.flat() == before and found.train.steps_per_epoch == 5
    assert resolve(found) == found
    with pytest.raises(FrozenInstanceError):
        found.train.epochs = 3


def test_a_study_resolves_as_a_recipe_does(tmp_path, monkeypatch):
    """Streams included, whose epochs the study did not count."""
    options = {"train_stream": "x.tar", "max_steps": 10, "epochs": 2, "fusion.num_heads": 2}
    seen = []
    monkeypatch.setattr(studies, "load_splits", lambda options: seen.append(options) or {"test": 1})
    study = studies.Study(Plan(models={"a": {"dim": 8}}, options=options), tmp_path)
    assert study.rows() == 1
    flags = ["--log_with=none", "--save_scores", "--seed=0", "--dim=8"]
    flags += [f"--{name}={value}" for name, value in options.items()]
    assert seen == [resolve(parse_options(flags))] and seen[0].train.steps_per_epoch == 5


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--image_encoder.gird=3",
            r"'grid' has no option 'gird' \(did you mean 'grid'\?\); its options: width, grid",
        ),
        (
            "--text_encoder={name: transformer, bias: 2}",
            "text_encoder 'transformer' has no option 'bias'; its options: vocabulary,",
        ),
        (
            "--text_encoder={name: bert, max_word: 9}",
            r"'bert' has no option 'max_word' \(did you mean 'max_words'\?\); its options: model, "
            "max_words, keep_special_tokens, layers, tune, unfrozen_blocks, "
            "gradient_checkpointing$",
        ),
        (
            "--image_encoder={name: transformers_clip, model: a, tuned: full}",
            r"'transformers_clip' has no option 'tuned' \(did you mean 'tune'\?\)",
        ),
        (
            "--text_encoder={name: open_clip, model: a, loras: {}}",
            r"'open_clip' has no option 'loras' \(did you mean 'lora'\?\); .*_blocks, lora,",
        ),
        ("--fusion={name: pooled, num_heads: 2}", "fusion 'pooled' has no option 'num_heads'"),
        ("--loss={name: triplet, temperature: 2}", "loss 'triplet' has no option 'temperature'"),
    ],
)
def test_an_option_that_a_component_does_not_have(flag, message):
    """Of towers, whose `**options` are a TypedDict's, too."""
    if "open_clip" in flag:
        pytest.importorskip("open_clip", reason="extra `open-clip`")
    with pytest.raises(ValueError, match=message):
        resolved(flag)


def test_a_component_that_takes_any_option_is_not_judged(monkeypatch):
    class Open(GridEncoder):
        def __init__(self, **options):
            super().__init__(width=8)

    known = {**registry._registered, ("image_encoder", "open"): Open}
    monkeypatch.setattr(registry, "_registered", known)
    assert resolved("--image_encoder={name: open, x: 1}").model.image_encoder["x"] == 1


def test_an_encoder_that_region_files_replace_need_not_be_there():
    flags = ["--image_encoder={name: 'no.such:Thing', x: 1}"]
    assert resolved(*flags, "--region_files=a").data.region_files == "a"
    with pytest.raises(ImportError):
        resolved(*flags)


def told(capsys, *argv):
    """What is said of options that are refused, by the parser or when they are resolved."""
    try:
        resolved(*argv)
    except SystemExit:
        return capsys.readouterr().err
    except (ValueError, ImportError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "flag",
    [
        "noise_strength=-1", "warmup_steps=-5", "dim=0", "num_workers=-1", "learning_rate=0",
        "learning_rate=nan", "weight_decay=-1", "patience=-1", "text_dropout=1", "ema_decay=1",
        "wise_ft_alpha=1.5", "decay_every=0", "balanced_temperature=0", "scenes_train=-4",
        "rerank_k=-1", "rerank_text_neighbors=0", "align_local_weight=2", "learning_rate=inf",
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_before_anything_is_done(capsys, flag):
    name, _, _ = flag.partition("=")
    assert f"argument --{name}: expected" in (said := told(capsys, f"--{flag}")) and "got" in said


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("loss.temperature=0", "temperature must be in (0, inf), got 0"),
        ("loss.balance=2", "balance must be in [0, 1], got 2"),
        ("fusion.num_heads=0", "dim and num_heads must be at least 1"),
        ("fusion.num_heads=7", "dim 1024 is not divisible by num_heads 7"),
        ("fusion.local_weight=2", "local_weight must be in [0, 1], got 2"),
        ("log_with=nothing", "--log_with nothing: no tracker"),
    ],
)
def test_a_component_is_built_once_before_anything_is_done(capsys, flag, said):
    assert said in told(capsys, f"--{flag}")


def test_a_tracker_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    assert "tensorboard is not installed: pip install" in told(capsys, "--log_with=tensorboard")


def test_all_that_is_wrong_is_said_at_once(capsys):
    said = told(capsys, "--dim=0", "--warmup_steps=-5")
    assert "--dim" in said and "--warmup_steps" in said
    said = told(capsys, "--loss.temperature=0", "--fusion.num_heads=7", "--positives=join")
    assert said.startswith("3 options cannot be used: ")
    assert "join" in said and "temperature" in said and "divisible" in said


def test_no_reranking_and_resuming_or_not():
    assert resolved("--rerank_k=0").train.rerank_k == 0
    for flags in (["--resume", "auto"], ["--resume=auto"]):
        train = resolved("--output_dir=a", *flags).train
        assert train.resume and train.resume_auto
    assert not resolved("--output_dir=a", "--resume").train.resume_auto
