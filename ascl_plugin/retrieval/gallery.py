"""Pictures that a model has encoded once, to be searched by any text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ascl_plugin.data.picture_folder import pictures_in
from ascl_plugin.data.store import image_key
from ascl_plugin.disk import written
from ascl_plugin.features import ImageFeatures, concatenate
from ascl_plugin.retrieval.embed import Picture, best, row_of
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.scoring.search import image_embeddings, text_embeddings


class Hit(NamedTuple):
    """A picture that was found.

    Attributes:
        image: the picture as it was given; its path, if it came from a folder.
        score: its score with the text, comparable within one search.
        corpus_id: its place in the gallery.
    """

    image: Picture
    score: float
    corpus_id: int


class Gallery:
    """Pictures to be searched by text.

    Args:
        model: the model, or the folder of a run or of a saved model.
        images: pictures; or a folder, whose pictures are taken, those of its folders too.
        file: keep the features here (safetensors), and read them from here the next time: what is
            new or changed is encoded. Features of another model are made anew.
        batch_size, progress: see `RetrievalModel.embed_images`.

    Raises:
        FileNotFoundError, ValueError: a folder without pictures, or a picture that does not decode.

    Examples:
        >>> gallery = Gallery("outputs/ascl_coco", "photos")  # doctest: +SKIP
        >>> gallery.search("two dogs on a beach", k=3)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: RetrievalModel | str | Path,
        images: Sequence[Picture] | str | Path,
        *,
        file: str | Path | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> None:
        if not isinstance(model, RetrievalModel):
            model = RetrievalModel.from_pretrained(model)
        self.model = model
        self.images = pictures_in(images) if isinstance(images, str | Path) else list(images)
        self.features = self._encoded(None if file is None else Path(file), batch_size, progress)

    def __len__(self) -> int:
        return len(self.images)

    def search(self, text: str, k: int = 5, candidates: int = 1000) -> list[Hit]:
        """Return the best k pictures for a text, the best first.

        Args:
            text: the query.
            k: number of pictures.
            candidates: in a gallery of more pictures, exact scores are taken of so many alone:
                those whose mean region, or whole picture, is nearest to the text.

        Raises:
            ValueError: k below 1 or above candidates.
        """
        if not 1 <= k <= candidates:
            raise ValueError(f"k must be from 1 to candidates, got {k} of {candidates}")
        query, images = self.model.embed_texts([text]), self.features
        place = torch.arange(len(self))
        if len(self) > candidates and not self.model.wholes_only:
            near = self._vectors @ text_embeddings(query, self._of)[0]
            place = near.topk(candidates).indices.sort().values
            images = images[place]
        ranked = best(self.model.score(images, query)[:, 0], k)
        found = [(int(place[hit["corpus_id"]]), hit["score"]) for hit in ranked]
        return [Hit(self.images[number], score, number) for number, score in found]

    @property
    def _of(self) -> str:
        return "regions" if self.model.text_pool is None else "pooled"

    @cached_property
    def _vectors(self) -> torch.Tensor:
        return image_embeddings(self.features, self._of)

    def _encoded(self, file: Path | None, batch_size: int, progress: bool) -> ImageFeatures:
        if file is None:
            return self.model.embed_images(self.images, batch_size, progress)
        keys = [_key(picture, place) for place, picture in enumerate(self.images)]
        model = _model_key(self.model)
        kept = _read(file, model)
        new = [n for n, key in enumerate(keys) if kept is None or key not in kept[0]]
        parts = [] if kept is None else [kept[1]]
        places = {} if kept is None else {key: n for n, key in enumerate(kept[0])}
        if new:
            parts.append(
                self.model.embed_images([self.images[n] for n in new], batch_size, progress)
            )
            places |= {keys[n]: len(places) + i for i, n in enumerate(new)}
        features = concatenate(parts)[torch.tensor([places[key] for key in keys])]
        if new or list(places) != keys:
            _write(file, model, keys, features)
        return features


def _key(picture: Picture, place: int) -> str:
    row = row_of(picture, place)
    image = row["image"]
    if not isinstance(image, Image.Image):
        return image_key(image, row["image_id"])
    pixels = hashlib.sha256(image.tobytes()).hexdigest()
    return f"pixels:{image.mode}|{image.size}|{pixels}"


def _model_key(model: RetrievalModel) -> str:
    """Return a digest of a model's options and trained weights."""
    digest = hashlib.sha256(json.dumps(model._hub_mixin_config, default=str).encode())
    for name, value in sorted(model.trained_state().items()):
        digest.update(name.encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(file: Path, model: str) -> tuple[list[str], ImageFeatures] | None:
    """Return the pictures' keys and features; None without a file, or for another model."""
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
            if about.get("model") != model:
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return json.loads(about["pictures"]), ImageFeatures(**tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} holds no features of a gallery ({error}): name another file, or remove it"
        ) from error


def _write(file: Path, model: str, keys: list[str], features: ImageFeatures) -> None:
    named = {"regions": features.regions, "mask": features.mask, "pooled": features.pooled}
    tensors = {k: v.contiguous() for k, v in named.items() if v is not None}
    with written(file) as aside:
        save_file(tensors, aside, {"model": model, "pictures": json.dumps(keys)})
