"""Label groups: what they do when asked for, and that nothing else ever looks at labels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.metrics.recall import retrieval_metrics
from ascl_plugin.registry import available
from ascl_plugin.reranking import rerank
from ascl_plugin.reranking.neighbors import group_neighbors

OWNER = np.arange(60) // 5


def noisy(seed):
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(12, 8))
    texts = np.repeat(images, 5, axis=0) + generator.normal(size=(60, 8))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    return unit[0] @ unit[1].T


def with_groups(sim, groups, **options):
    with pytest.warns(UserWarning, match="caption_groups says .* the label"):
        return rerank(sim, caption_groups=groups, **options)


@settings(deadline=None, max_examples=60)
@given(groups=st.lists(st.integers(-3, 4), min_size=1, max_size=15))
def test_neighbours_are_those_of_the_group(groups):
    found = group_neighbors(torch.tensor(groups)).tolist()
    for text, near in enumerate(found):
        assert set(near) == {t for t, group in enumerate(groups) if group == groups[text]}
    assert len(found[0]) == max(groups.count(group) for group in groups)


def test_equals_embeddings_that_tell_the_group():
    sim = noisy(0)
    embeddings = np.eye(12)[OWNER]
    wanted = rerank(sim, text_neighbors=5, text_embeddings=embeddings)
    for groups in (OWNER, torch.from_numpy(OWNER), OWNER.astype(np.uint8), (3 - OWNER).tolist()):
        result = with_groups(sim, groups)
        np.testing.assert_array_equal(result.t2i, wanted.t2i)
        np.testing.assert_array_equal(result.i2t, wanted.i2t)
        assert (wanted.oracle, result.oracle, result.transductive) == (False, True, True)


def test_the_oracle_gains_what_shuffled_labels_do_not():
    """A check that the leak is one: true groups lift recall, the same groups shuffled do not."""
    sim = noisy(1)
    shuffled = np.random.default_rng(0).permutation(OWNER)
    recall = [
        retrieval_metrics(matrix, OWNER)["t2i_r1"]
        for matrix in (sim, with_groups(sim, OWNER).t2i, with_groups(sim, shuffled).t2i)
    ]
    assert recall[1] > recall[0] + 10 and recall[2] < recall[0]


@pytest.mark.parametrize("method", available("rerank"))
def test_labels_are_never_used_by_default(method):
    """Shuffle images and captions, re-rank, undo it: the same, and no warning."""
    sim, draw = noisy(2), np.random.default_rng(0)
    rows, columns = draw.permutation(12)[:, None], draw.permutation(60)
    options = [{}]
    if method == "bidirectional":
        options.append({"text_neighbors": 4})
    for given_options in options:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plain = rerank(sim, method=method, **given_options)
            moved = rerank(sim[rows, columns], method=method, **given_options)
        assert not plain.oracle
        np.testing.assert_array_equal(moved.i2t, plain.i2t[rows, columns])
        np.testing.assert_array_equal(moved.t2i, plain.t2i[rows, columns])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text_neighbors": 2}, ValueError, "leave text_neighbors and"),
        ({"text_embeddings": np.eye(3)}, ValueError, "leave text_neighbors and"),
        ({"method": "csls"}, TypeError, "'csls' has no option 'caption_groups'"),
        ({"method": "none"}, TypeError, "'none' has no option 'caption_groups'"),
        ({"caption_groups": [0, 1]}, ValueError, r"caption_groups has shape \(2,\), sim has 3"),
        ({"caption_groups": [0.0, 1.0, 1.0]}, TypeError, "caption_groups must hold integers"),
        ({"caption_groups": [[0], [1], [1]]}, ValueError, r"has shape \(3, 1\)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:rerank. caption_groups")
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        rerank(np.eye(3), **{"caption_groups": [0, 0, 1], **options})


def test_evaluation_has_the_row_only_when_asked():
    pytest.importorskip("yaml", reason="extra `recipes`")
    from ascl_plugin.retrieval.evaluator import Evaluator

    class Scored(Evaluator):
        def __init__(self):
            pass

        def score(self, rows, texts):
            return torch.from_numpy(noisy(1))

    rows = {"captions": [["a"] * 5] * 12}
    row = "oracle: label groups"
    honest = Scored().evaluate(rows, {"k": 10})
    assert [found.name for found in honest.rows] == ["initial", "reranked"]
    with pytest.warns(UserWarning, match="caption_groups"):
        both = Scored().evaluate(rows, {"k": 10, "text_neighbors": 3}, oracle=True)
    assert [found.name for found in both.rows] == ["initial", "reranked", row]
    assert [bool(found.leaks) for found in both.rows] == [False, False, True]
    assert both[row].metrics["t2i_r1"] > both["initial"].metrics["t2i_r1"]
    with pytest.raises(ValueError, match=r"caption_groups is among .* add --oracle"):
        Scored().evaluate(rows, {"caption_groups": OWNER.tolist()})
    with pytest.warns(UserWarning, match="caption_groups"):
        stored = Scored().evaluate(rows, {"k": 10, "caption_groups": OWNER.tolist()}, oracle=True)
    assert stored["reranked"] == honest["reranked"]
