"""A study of made features, with nothing trained."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ascl_plugin.data.rows import caption_to_image
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, PooledSimilarity

DIM = 8
SIZE = 8  # scenes


def trained(seed, images=12, per_image=3, fusion=None):
    """Texts that lie near their image; text t is called `t` and is 1 to 20 words long."""
    generator = torch.Generator().manual_seed(seed)
    regions = torch.randn(images, 4, DIM, generator=generator)
    owners = np.arange(images).repeat(per_image)
    texts = [" ".join([f"t{t}", *["word"] * (t % 20)]) for t in range(len(owners))]
    noise = torch.randn(len(owners), 2, DIM, generator=generator)
    words = regions.mean(1)[owners][:, None] + 0.3 * noise
    row_of = {text: t for t, text in enumerate(texts)}

    def encode_images(rows):
        chosen = torch.tensor([row["image_id"] for row in rows])
        return ImageFeatures(regions, None, regions.mean(1))[chosen]

    def encode_texts(wanted):
        return TextFeatures(words)[torch.tensor([row_of[text] for text in wanted])]

    torch.manual_seed(seed)
    head = fusion or CrossModalFusion(DIM, num_heads=2)
    rows = [{"image_id": i} for i in range(images)]
    return SimpleNamespace(
        seed=seed,
        model=SimpleNamespace(fusion=head),
        evaluator=SimpleNamespace(encode_images=encode_images, encode_texts=encode_texts),
        rows=rows,
        texts=texts,
        caption_to_image=owners,
        sim=PooledSimilarity()(encode_images(rows), encode_texts(texts)),
    )


class FakeStudy:
    """Models by name; each cell is made once and passes through JSON."""

    def __init__(self, folder, models=("full", "none", "third"), seeds=(0, 1), **options):
        self.folder, self.models, self.seeds = folder, {name: {} for name in models}, list(seeds)
        self.options, self.made = options, {}

    def trained(self, model, seed):
        return trained(10 * list(self.models).index(model) + seed, **self.options)

    def cell(self, experiment, key, make):
        if (experiment, key) not in self.made:
            self.made[experiment, key] = json.dumps(make(), allow_nan=False)
        return json.loads(self.made[experiment, key])

    def path(self, experiment, name):
        (self.folder / experiment).mkdir(parents=True, exist_ok=True)
        return self.folder / experiment / name


@pytest.fixture
def fake_study(tmp_path):
    """A function of `models`, `seeds` and what `trained` takes: a `FakeStudy`."""
    return partial(FakeStudy, tmp_path)


class Evaluator:
    """Scores a text by how many of its words the captions of the row say; a little by chance."""

    batch_size = 4

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.prepared = []
        self.images = SimpleNamespace(prepare=lambda rows, *_, **__: self.prepared.extend(rows))

    def _one(self, row, text):
        said = set(" ".join(row.get("captions", ["a dog"])).split())
        return sum(1 if word in said else -20 for word in text.split()) + self.rng.random() / 2

    def pairs(self, rows, texts, index=None):
        chosen = range(len(texts)) if index is None else index
        return torch.tensor([self._one(rows[i], t) for i, t in zip(chosen, texts, strict=True)])

    def score(self, rows, texts):
        return torch.tensor([[self._one(row, text) for text in texts] for row in rows])


@pytest.fixture
def read_study(fake_study):
    """A study of scenes, with `Evaluator` in place of models."""
    scenes = pytest.importorskip("ascl_plugin.data.scenes", reason="extra `recipes`")
    made = fake_study(models=("full", "none"))
    rows = scenes.make("test", SIZE)
    made.evaluators = []

    def trained(model, seed):
        texts, index = caption_to_image(made.data)
        made.evaluators.append(Evaluator(seed))
        return SimpleNamespace(
            rows=made.data,
            evaluator=made.evaluators[-1],
            caption_to_image=index,
            sim=made.evaluators[-1].score(made.data, texts),
        )

    made.data, made.rows, made.trained = rows, lambda: made.data, trained
    return made
