"""An index in several files: the results of one, exact or not, whatever the parts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("faiss", reason="extra `search`")
from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import LateInteraction
from ascl_plugin.scoring.search import image_embeddings, search, text_embeddings
from ascl_plugin.scoring.vector_index import make_index, open_shards, write_shards


def vectors(count, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 12))
def test_exact_shards_give_what_one_index_gives(tmp_path_factory, sizes, count):
    folder = tmp_path_factory.mktemp("shards")
    gallery, queries = vectors(sum(sizes)), vectors(9, seed=1)
    assert len(write_shards(gallery.split(sizes), folder)) == len(sizes)
    count = min(count, len(gallery))
    scores, ids = open_shards(folder).search(queries.numpy(), count)
    expected = (queries @ gallery.T).topk(count)
    torch.testing.assert_close(torch.from_numpy(scores), expected.values, rtol=0, atol=1e-6)
    assert torch.equal(torch.from_numpy(ids), expected.indices)


@pytest.mark.parametrize("mapped", [True, False])
def test_cells_are_those_of_one_index_that_learnt_of_the_first_part(tmp_path, mapped):
    gallery, queries = vectors(900), vectors(30, seed=1)
    parts = gallery.split([500, 150, 250])
    write_shards(parts, tmp_path, "IVF8,Flat")
    one = make_index(parts[0], "IVF8,Flat", "nprobe=2")
    for part in parts[1:]:
        one.add(part.contiguous().numpy())
    expected = one.search(queries.numpy(), 10)[1]
    found = open_shards(tmp_path, "nprobe=2", mapped).search(queries.numpy(), 10)[1]
    assert (found == expected).all()
    narrow = open_shards(tmp_path, "nprobe=1").search(queries.numpy(), 10)[1]
    assert (narrow != expected).any()  # so options arrive


def test_a_stopped_build_goes_on_with_the_cells_it_had(tmp_path):
    parts = vectors(300).split(100)
    whole, again = tmp_path / "whole", tmp_path / "again"
    write_shards(parts, whole, "IVF4,Flat")
    write_shards(parts[:1], again, "IVF4,Flat")
    before = (again / "shard-000000.faiss").stat().st_mtime_ns
    write_shards(parts, again, "IVF4,Flat")
    assert (again / "shard-000000.faiss").stat().st_mtime_ns == before
    for path in whole.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    assert not list(again.glob(".*"))


def test_search_takes_them_in_place_of_indexes_of_its_own(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = ImageFeatures(torch.randn(20, 3, 8, generator=generator))
    texts = TextFeatures(
        torch.randn(50, 4, 8, generator=generator), torch.ones(50, 4, dtype=torch.bool)
    )
    model = LateInteraction()
    write_shards(image_embeddings(images).split(7), tmp_path / "images")
    write_shards(text_embeddings(texts).split(20), tmp_path / "texts")
    shards = open_shards(tmp_path / "images"), open_shards(tmp_path / "texts")
    found = search(model, images, texts, 6, 3, index=shards)
    expected = search(model, images, texts, 6, 3)
    assert torch.equal(found.i2t_ids, expected.i2t_ids)
    assert torch.equal(found.t2i_ids, expected.t2i_ids)
    with pytest.raises(ValueError, match="an index of 20 vectors of 8 numbers was given for"):
        search(model, images, texts, 6, 3, index=shards[::-1])


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="no vectors to index"):
        write_shards([], tmp_path)
    with pytest.raises(ValueError, match="vectors of 4 numbers, before of 8"):
        write_shards([vectors(5), vectors(5, 4)], tmp_path / "a")
    with pytest.raises(ValueError, match="cannot make an index 'Nothing'"):
        write_shards([vectors(5)], tmp_path / "b", "Nothing")
    with pytest.raises(FileNotFoundError, match=r"no shard-000000\.faiss"):
        open_shards(tmp_path / "none")
    write_shards(vectors(9).split(3), tmp_path / "c")
    (tmp_path / "c" / "shard-000001.faiss").unlink()
    with pytest.raises(FileNotFoundError, match=r"no shard-000001\.faiss"):
        open_shards(tmp_path / "c")
