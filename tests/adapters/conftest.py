"""Tiny models and small pieces that the adapter tests share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

# "[UNK]" is a word that was said; ids are the places in this list
WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "cat", "sleeps", "##ing",
    "two", "cats",
]  # fmt: skip
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
