"""Tiny models and small pieces that the adapter tests share."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

# "[UNK]" is a word that was said; ids are the places in this list
WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "cat", "sleeps", "##ing",
    "two", "cats",
]  # fmt: skip
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
OPEN_CLIP = {
    "tiny-vit": {"vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-resnet": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": TEXT,
    },
    "tiny-convnext": {
        "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "image_size": 64},
        "text_cfg": {**TEXT, "no_causal_mask": True},
        "custom_text": True,
    },
    "tiny-timm-vit": {
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160}
        | {"timm_proj": "linear"},
        "text_cfg": {**TEXT, "proj_bias": True},
        "custom_text": True,
    },
    "tiny-bert": {
        "vision_cfg": VIT,
        "text_cfg": {"hf_pooler_type": "cls_pooler", "hf_proj_type": "mlp", "context_length": 12},
    },
}
SIDE, PATCH, WIDTH, CONTEXT = 32, 8, 16, 12


def save_tokenizer(folder):
    import transformers

    # vocab=, since vocab_file= is silently ignored and makes everything [UNK]
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """The folder of a BERT of two blocks, width 16, over `WORDS`."""
    transformers = pytest.importorskip("transformers", reason="extra `recipes`")
    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(path)
    save_tokenizer(path)
    return str(path)


@pytest.fixture(scope="session")
def dual_encoder(tmp_path_factory):
    """Return a function from a kind to the folder of such a model: two blocks, 4 x 4 patches."""
    transformers = pytest.importorskip("transformers", reason="extra `recipes`")
    tower = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2}
    tower["num_attention_heads"] = 2
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {**tower, **ids, "vocab_size": len(WORDS), "max_position_embeddings": CONTEXT}
    both = {
        "text_config": text,
        "vision_config": {**tower, "image_size": SIDE, "patch_size": PATCH},
    }
    sizes = {"projection_dim": 8, "image_text_hidden_size": 6}
    kinds = {  # class, options of its configuration, image processor
        "clip": ("CLIPModel", {"projection_dim": 8}, "CLIPImageProcessor"),
        "siglip": ("SiglipModel", {}, "SiglipImageProcessor"),
        "blip": ("BlipModel", sizes, "BlipImageProcessor"),
        "blip_itm": ("BlipForImageTextRetrieval", sizes, "BlipImageProcessor"),
    }
    saved = {}

    def save(kind):
        if kind not in saved:
            name, options, processor = kinds[kind]
            path = tmp_path_factory.mktemp(kind)
            torch.manual_seed(0)
            model = getattr(transformers, name)
            model(model.config_class(**both, **options)).save_pretrained(path)
            size = {"height": SIDE, "width": SIDE}
            crop = {"size": {"shortest_edge": SIDE}, "crop_size": size}
            options = crop if kind == "clip" else {"size": size}
            getattr(transformers, processor)(**options).save_pretrained(path)
            save_tokenizer(path)
            saved[kind] = str(path)
        return saved[kind]

    return save


@pytest.fixture(scope="session")
def clip(dual_encoder):
    return dual_encoder("clip")


@pytest.fixture(scope="session")
def clips(tmp_path_factory, bert):
    """{name: checkpoint} of models known to open_clip by those names."""
    open_clip = pytest.importorskip("open_clip", reason="extra `open-clip`")
    folder = tmp_path_factory.mktemp("open_clip")
    torch.manual_seed(0)
    (folder / "configs").mkdir()
    for name, config in OPEN_CLIP.items():
        config = {"embed_dim": 24, **config}
        if name == "tiny-bert":
            own = {key: bert for key in ("hf_model_name", "hf_tokenizer_name")}
            config["text_cfg"] = {**config["text_cfg"], **own}
        (folder / "configs" / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "configs")
    paths = {}
    for name in OPEN_CLIP:
        model = open_clip.create_model(name)
        for key, buffer in model.named_buffers():  # batch statistics that matter
            if "running" in key:
                buffer.uniform_(0.5, 1.5).sub_(0.0 if "var" in key else 1.0)
        for parameter in model.parameters():  # layers that begin as nothing would hide faults
            if parameter.abs().max() < 1e-3:
                torch.nn.init.normal_(parameter, std=0.3)
        paths[name] = str(folder / f"{name}.pt")
        torch.save(model.state_dict(), paths[name])
    yield paths
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder / "configs")
    open_clip.factory._rescan_model_configs()


@pytest.fixture
def import_again(monkeypatch, tmp_path):
    """Import an adapter ("towers/bert") anew beside a framework made of `source` (None: absent)."""

    def run(adapter: str, framework: str, source: str | None):
        loaded = [n for n in sys.modules if n == framework or n.startswith(f"{framework}.")]
        for name in loaded:
            monkeypatch.delitem(sys.modules, name)
        if source is None:
            # as the import system raises it for a package that is not installed
            source = f"raise ModuleNotFoundError('No module', name={framework!r})"
        (tmp_path / f"{framework}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        file = Path(__file__).resolve().parents[2] / "adapters" / f"{adapter}.py"
        name = f"ascl_plugin.adapters.{adapter.replace('/', '.')}_again"
        spec = importlib.util.spec_from_file_location(name, file)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    return run


@pytest.fixture
def samples():
    """The module `region_samples` beside this file."""
    file = Path(__file__).with_name("region_samples.py")
    spec = importlib.util.spec_from_file_location("region_samples", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
