"""Pictures and texts as people have them: embedded, scored, ranked, searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("huggingface_hub", reason="extra `recipes`")
from PIL import Image

from ascl_plugin import Gallery, RetrievalModel
from ascl_plugin.features import ImageFeatures

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (99, 99, 99)}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RetrievalModel(
        {"name": "grid", "width": 8, "grid": 2},
        {"name": "transformer", "vocabulary": list("abcde"), "width": 8},
        {"num_heads": 2},
        dim=8,
        image_dropout=0.5,
    )


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos/older").mkdir(parents=True)
    for name, color in COLORS.items():
        folder = "older" if name == "grey" else "."
        Image.new("RGB", (40, 30), color).save(tmp_path / "photos" / folder / f"{name}.PNG")
    (tmp_path / "photos/notes.txt").write_text("no picture")
    return tmp_path / "photos"


def test_pictures_in_any_form_have_the_same_features(model, photos):
    """A path, a string, a PIL image and its pixels; dropout is off, and on again behind."""
    path = photos / "red.PNG"
    picture = Image.open(path)
    model.train()
    found = model.embed_images([path, str(path), picture, np.asarray(picture)], batch_size=3)
    assert model.training and not found.pooled.requires_grad
    for place in range(1, 4):
        torch.testing.assert_close(found.pooled[place], found.pooled[0])
    texts = model.embed_texts(["a b", "c"])
    torch.testing.assert_close(model.score([path], ["a b", "c"]), model.score(found, texts)[:1])


def test_ranks_in_both_directions(model, photos):
    """As sentence-transformers' CrossEncoder.rank: all places, the highest score first."""
    pictures = [photos / f"{name}.PNG" for name in ("red", "green", "blue")]
    texts = ["a b", "c", "d e"]
    sim = model.score(pictures, texts)
    by_text = model.rank("c", pictures)
    assert [hit["corpus_id"] for hit in by_text] == sim[:, 1].argsort(descending=True).tolist()
    assert [hit["score"] for hit in by_text] == pytest.approx(sorted(sim[:, 1].tolist())[::-1])
    by_picture = model.rank(pictures[2], texts, top_k=2)
    assert [hit["corpus_id"] for hit in by_picture] == sim[2].argsort(descending=True)[:2].tolist()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.embed_images("a.png"), TypeError, "pictures must come in a list, got str"),
        (lambda m: m.embed_images([]), ValueError, "pictures: the list is empty"),
        (lambda m: m.embed_images([7]), TypeError, "picture 0 must be a path, .* got int"),
        (lambda m: m.embed_images([np.zeros((2, 2, 3))]), ValueError, "picture 0: .* float64"),
        (lambda m: m.embed_images(["gone.png"]), FileNotFoundError, "gone.png"),
        (lambda m: m.embed_texts("a"), TypeError, "texts must come in a list"),
        (lambda m: m.embed_texts(["a", None]), TypeError, "text 1 must be a string, got NoneType"),
        (lambda m: m.rank("a", ["x.png"], top_k=0), ValueError, "top_k must be at least 1"),
    ],
)
def test_what_cannot_be_embedded_is_named(model, call, error, message):
    with pytest.raises(error, match=message):
        call(model)


def test_a_folder_is_searched_as_all_scores_say(model, photos):
    gallery = Gallery(model, photos)
    names = [path.stem for path in gallery.images]
    assert names == ["blue", "green", "grey", "red"]
    scores = model.score(gallery.images, ["a b"])[:, 0]
    hits = gallery.search("a b", k=3)
    assert [hit.corpus_id for hit in hits] == scores.argsort(descending=True)[:3].tolist()
    assert all(hit.image == gallery.images[hit.corpus_id] for hit in hits)
    # two stages: exact scores of the two nearest by mean region
    vectors = torch.nn.functional.normalize(gallery.features.regions.mean(1), dim=-1)
    words = model.embed_texts(["a b"])
    near = (vectors @ words.words[0][words.mask[0]].mean(0)).topk(2).indices
    expected = near[scores[near].argsort(descending=True)].tolist()
    assert [hit.corpus_id for hit in gallery.search("a b", k=2, candidates=2)] == expected
    with pytest.raises(ValueError, match="k must be from 1 to candidates, got 3 of 2"):
        gallery.search("a", k=3, candidates=2)


def test_kept_features_are_made_once(model, photos, tmp_path, monkeypatch):
    """What is new or changed is encoded; another model, or a file of something else, is noticed."""
    file = tmp_path / "gallery.safetensors"
    encoded = []
    real = RetrievalModel.embed_images

    def counted(self, images, *rest):
        encoded.append(len(images))
        return real(self, images, *rest)

    monkeypatch.setattr(RetrievalModel, "embed_images", counted)
    first = Gallery(model, photos, file=file)
    again = Gallery(model, photos, file=file)
    assert encoded == [4] and torch.equal(first.features.regions, again.features.regions)
    Image.new("RGB", (20, 20), "white").save(photos / "a.png")
    (photos / "green.PNG").unlink()
    changed = Gallery(model, [*sorted(photos.glob("*.[pP]*")), Image.new("L", (9, 9))], file=file)
    assert encoded == [4, 2]
    monkeypatch.setattr(RetrievalModel, "embed_images", real)
    expected = model.embed_images(changed.images)
    torch.testing.assert_close(changed.features.regions, expected.regions)
    torch.manual_seed(1)
    other = RetrievalModel(**{**model._hub_mixin_config})
    fresh = Gallery(other, changed.images, file=file).features
    torch.testing.assert_close(fresh.pooled, other.embed_images(changed.images).pooled)
    file.write_text("something else")
    with pytest.raises(ValueError, match="holds no features of a gallery"):
        Gallery(model, photos, file=file)


def test_a_folder_without_pictures(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no pictures here"):
        Gallery(model, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Gallery(model, tmp_path / "gone")


def test_a_run_is_opened_by_its_folder(model, photos, tmp_path):
    model.save_pretrained(tmp_path / "run" / "best")
    gallery = Gallery(tmp_path / "run", photos)
    assert isinstance(gallery.features, ImageFeatures)
    expected = model.score(gallery.images, ["a"])[:, 0].max()
    assert gallery.search("a", k=1)[0].score == pytest.approx(float(expected))
