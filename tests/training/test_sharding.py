"""FSDP2 on two processes: DDP's weights, checkpoints of either for either, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("accelerate", reason="extra `recipes`")
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from ascl_plugin.training.sharding import refuse_engines, set_up_fsdp

CONFIGS = sorted((Path(__file__).parents[2] / "recipes" / "accelerate").glob("*.yaml"))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, run_ranks):
    out = tmp_path_factory.mktemp("ranks")
    return run_ranks(Path(__file__).with_name("sharding_ranks.py"), out)


@pytest.mark.parametrize("way", ["fsdp", "fsdp after ddp", "ddp after fsdp"])
def test_weights_moments_and_scores_are_those_of_ddp(ranks, way):
    """Two steps of two batches, clipped; in the latter two the second step by the other engine."""
    for found in ranks:
        expected, got = found["ddp"], found[way]
        assert got["weights"].keys() == expected["weights"].keys()
        assert not any(name.startswith("text_encoder.") for name in got["weights"])
        for name, value in expected["weights"].items():
            torch.testing.assert_close(got["weights"][name], value, rtol=0, atol=1e-6, msg=name)
        for number, moments in expected["moments"].items():
            for name, value in moments.items():
                torch.testing.assert_close(got["moments"][number][name], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(got["sims"], expected["sims"], rtol=0, atol=1e-5)
        assert got["best"] == expected["best"]
        # before they were clipped: of both steps, or of the second
        assert got["norms"] == pytest.approx(expected["norms"][-len(got["norms"]) :], rel=1e-5)
        assert min(got["norms"]) > 0.5


def test_the_fusion_was_in_shards_and_the_frozen_encoder_was_not(ranks):
    for found in ranks:
        assert found["ddp"]["held"] == ["Parameter"]
        assert found["fsdp"]["held"] == ["DTensor"]
        assert found["fsdp"]["frozen"] == ["Parameter"]


def test_two_passes_are_refused_on_shards(ranks):
    assert all("cached_chunk needs one process, or several" in r["cached"] for r in ranks)


def test_engines_that_would_do_something_else_are_refused():
    refuse_engines({})
    refuse_engines({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})
    with pytest.raises(ValueError, match=r"Megatron-LM is not supported.*fsdp2\.yaml"):
        refuse_engines({"ACCELERATE_USE_MEGATRON_LM": "true"})
    with pytest.raises(ValueError, match="first version is not supported; set fsdp_version: 2"):
        refuse_engines({"ACCELERATE_USE_FSDP": "true"})


def test_fsdp_that_accelerate_leaves_out_without_a_word_is_an_error(monkeypatch):
    here = SimpleNamespace(is_fsdp2=False, num_processes=2, device=torch.device("cpu"))
    set_up_fsdp(here, None)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"shards on GPUs alone.*here are 2 on cpu"):
        set_up_fsdp(here, None)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_accelerate_reads_the_configurations(path):
    """And knows every option in them; what it starts, on CPUs, tests/recipes/test_engines.py."""
    config = load_config_from_file(str(path))
    for name, value in yaml.safe_load(path.read_text()).items():
        assert getattr(config, name) == value
