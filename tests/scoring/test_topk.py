"""The best k, kept block by block or taken from pairs, against a stable sort of everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import LateInteraction
from ascl_plugin.scoring.matrix import score_matrix
from ascl_plugin.scoring.topk import best_of_pairs


def from_table(table):
    """A scorer that looks scores up, and features of images and texts that are their numbers."""

    def scorer(images, texts):
        rows = images.regions[:, 0, 0].long()
        return table[rows][:, texts.words[:, 0, 0].long()]

    images, texts = table.shape
    return (
        scorer,
        ImageFeatures(torch.arange(float(images))[:, None, None]),
        TextFeatures(torch.arange(float(texts))[:, None, None]),
    )


def of_sorted(table, k):
    """ids and scores of the first k of each row, equal scores by lower index."""
    ids = table.argsort(dim=1, descending=True, stable=True)[:, :k]
    return ids, table.gather(1, ids)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 12), st.integers(1, 14), st.integers(1, 4),
    st.tuples(st.integers(1, 5), st.integers(1, 12)), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_lists_are_those_of_a_stable_sort(images, texts, k, levels, tile, shuffled, seed):
    """Few levels make many ties; lengths drawn at random bring texts out of their order."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(levels, (images, texts), generator=generator).float()
    table[table == 0] = -torch.inf
    scorer, v, w = from_table(table)
    if shuffled:
        lengths = torch.randint(1, 20, (texts, 1), generator=generator)
        w = TextFeatures(w.words.expand(-1, 20, -1), torch.arange(20) < lengths)
    found = score_matrix(scorer, v, w, tile, topk=k)
    for ids, scores, matrix in (
        (found.i2t_ids, found.i2t_scores, table),
        (found.t2i_ids, found.t2i_scores, table.T),
    ):
        expected_ids, expected = of_sorted(matrix, k)
        assert ids.dtype == torch.int64 and torch.equal(ids, expected_ids)
        assert scores.dtype == torch.float32 and torch.equal(scores, expected)


def test_nan_has_no_place_in_a_list():
    table = torch.zeros(5, 6)
    table[3, 4] = torch.nan
    scorer, v, w = from_table(table)
    with pytest.raises(ValueError, match="image 3 and text 4 score NaN"):
        score_matrix(scorer, v, w, (2, 3), topk=2)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
def test_best_of_pairs(queries, items, k, share, seed):
    """Against a sort of the matrix in which every other pair is -inf: empty slots."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(3, (queries, items), generator=generator).float()
    pairs = (torch.rand(queries, items, generator=generator) < share).nonzero()
    pairs = pairs[torch.randperm(len(pairs), generator=generator)]
    rows, columns = pairs.unbind(1)
    k = min(k, items)
    ids, scores = best_of_pairs(rows, columns, table[rows, columns], queries, k)
    sparse = torch.full_like(table, -torch.inf)
    sparse[rows, columns] = table[rows, columns]
    expected_ids, expected = of_sorted(sparse, k)
    assert torch.equal(scores, expected)
    assert torch.equal(ids, expected_ids.masked_fill(expected == -torch.inf, -1))


@pytest.mark.parametrize("tile", [(2, 4), (6, 3)])
def test_interrupted_lists_continue_and_are_then_read(features, tmp_path, monkeypatch, tile):
    """Blocks of (2, 4) or (6, 3) of (6, 8) scores; it dies at the third, and scores none twice."""
    monkeypatch.setattr("ascl_plugin.scoring.topk_file.SAVE_EVERY", 0)
    v, w = features(6, 8)
    calls = []

    class Killed(LateInteraction):
        def forward(self, images, texts):
            if len(calls) == 2:
                calls.append(0)
                raise KeyboardInterrupt
            calls.append(len(images) * len(texts))
            return super().forward(images, texts)

    path = tmp_path / "deep" / "best.npz"
    wanted = score_matrix(Killed.__base__(), v, w, tile, topk=3)
    with pytest.raises(KeyboardInterrupt):
        score_matrix(Killed(), v, w, tile, topk=3, path=path)
    assert not path.exists()
    for other, message in (({"topk": 2}, "topk 3, not 2"), ({"topk": 3, "memory": 9}, "blocks")):
        with pytest.raises(ValueError, match=f"part holds scores of {message}"):
            score_matrix(Killed(), v, w, tile, path=path, **other)
    for _ in range(2):  # continued, then read
        found = score_matrix(Killed(), v, w, tile, topk=3, path=path)
        for name in ("i2t_ids", "i2t_scores", "t2i_ids", "t2i_scores"):
            assert torch.equal(getattr(found, name), getattr(wanted, name))
        assert sum(calls) == 6 * 8
    assert sorted(p.name for p in path.parent.iterdir()) == ["best.npz", "best.npz.json"]
    with pytest.raises(ValueError, match="of other images"):
        score_matrix(Killed(), v[torch.arange(5, -1, -1)], w, tile, topk=3, path=path)
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"best\.npz is damaged"):
        score_matrix(Killed(), v, w, tile, topk=3, path=path)
