"""The names at the top of the package."""

from __future__ import annotations

import pytest

import ascl_plugin

FUNCTIONS = (
    "asymmetry_loss", "contrast_loss", "triplet_loss", "generate_negatives", "audit",
    "gather_features", "search", "LateInteraction", "PooledSimilarity",
)  # fmt: skip


def test_dir_lists_what_a_user_needs_and_nothing_else():
    found = dir(ascl_plugin)
    assert found == sorted(found) and set(found) == {
        *ascl_plugin.__all__,
        "Gallery",
        "RetrievalModel",
    }
    assert not {"Any", "TYPE_CHECKING", "disk", "annotations"} & set(found)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_can_be_imported_from_the_top(name):
    assert name in ascl_plugin.__all__
    assert callable(getattr(ascl_plugin, name))


def test_the_packages_of_functions_are_not_hidden_by_them():
    import ascl_plugin.reranking.methods as methods

    assert methods.rerank is ascl_plugin.rerank
