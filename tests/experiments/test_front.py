"""The front of recall and half-truths, on scenes, with a made scorer."""

from __future__ import annotations

import pytest

pytest.importorskip("datasets", reason="extra `recipes`")
pytest.importorskip("matplotlib", reason="extra `report`")
from ascl_plugin.experiments.front import COLUMNS, experiment


def test_each_model_is_a_point(read_study):
    result = experiment(read_study, {"rows": 5, "baseline": "none"})
    (table,) = result.tables
    assert [row["model"] for row in table.rows] == ["full", "none"]
    for row in table.rows:  # words that the captions do not say are found out, but for a tie
        value = {name: float(row[name].split()[0]) for name in COLUMNS.values()}
        assert value["phrase added"] == 100 and 0 < value["Rsum"] <= 600
        assert 80 < value["balanced groups"] < value["balanced pairs"] < 100
    (figure,) = result.figures
    drawn = figure.path.read_text()
    assert "half-truths told" in drawn and "full" in drawn and figure.dark.exists()
    made = len(read_study.evaluators)
    experiment(read_study, {"rows": 5})
    assert made == len(read_study.evaluators) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"baseline": "other"}, "baseline 'other' is not one of full"), ({"row": 5}, "no setting")],
)
def test_settings_that_there_are_not(read_study, settings, message):
    with pytest.raises(ValueError, match=message):
        experiment(read_study, settings)
