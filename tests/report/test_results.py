"""Runs side by side: what is compared with what."""

from __future__ import annotations

import pytest

pytest.importorskip("yaml", reason="extra `recipes`")

from ascl_plugin.report.read import read_folders
from ascl_plugin.report.results import headline, run_sections


def sections(*folders):
    return {section.title: section for section in run_sections(read_folders(folders)[0])}


def table(section, start):
    return next((t.rows for t in section.tables if t.caption.startswith(start)), None)


def test_only_runs_of_the_same_data_are_compared(tmp_path, write_run):
    """Scenes of another number are other data; of Flickr, the number of scenes does not matter."""
    found = sections(
        write_run(tmp_path / "a", 50.0, scenes_test=500),
        write_run(tmp_path / "b", 51.0, scenes_test=100),
        write_run(tmp_path / "c", 52.0, data_root="/x/flickr", scenes_test=500),
        write_run(tmp_path / "d", 53.0, data_root="/x/flickr", scenes_test=100),
    )
    runs = {title: [row["run"] for row in table(section, "Recall")]
            for title, section in found.items() if title.startswith("Results")}  # fmt: skip
    assert runs == {
        "Results on drawn scenes, test": ["a", "a"],
        "Results on drawn scenes (2), test": ["b", "b"],
        "Results on flickr, test": ["c", "c", "d", "d"],
    }


def test_seeds_of_the_same_options_are_put_together(tmp_path, write_run):
    """50 and 52: mean 51, deviation sqrt(2) = 1.4; their Rsums 300 and 312: 306 and 8.5."""
    found = sections(
        write_run(tmp_path / "a", 50.0, seed=0, output_dir="x", loss="ascl"),
        write_run(tmp_path / "b", 52.0, seed=1, output_dir="y", loss="ascl"),
        write_run(tmp_path / "c", 60.0, seed=1, output_dir="z", loss="triplet"),
    )
    section = found["Results on drawn scenes, test"]
    rows = table(section, "Mean")
    assert [(row["run"], row["result"], row["transductive"]) for row in rows] == [
        ("a, b", "initial", False),
        ("a, b", "reranked", True),
    ]
    captions = [t.caption for t in section.tables if t.caption.startswith("Mean")]
    assert captions[0].endswith("; every row: seed 0, 1")  # a column of equal cells is none
    assert table(section, "Recall")[0]["seed"] == 0
    assert (rows[0]["I2T R@1"], rows[0]["Rsum"]) == ("51.0 ± 1.4", "306.0 ± 8.5")


def test_the_headline_names_the_best_run_and_the_next(tmp_path, write_run):
    """Rsum is 6 times the recall, 6 more once re-ranked; the runs of Flickr stand alone."""
    for name, value, options in (
        ("a", 50.0, {"loss": "x"}),
        ("b", 52.0, {"loss": "y"}),
        ("d", 51.0, {"loss": "y", "seed": 1}),
        ("c", 40.0, {"data_root": "f"}),
    ):
        write_run(tmp_path / name, value, **options)
    runs, _ = read_folders([tmp_path / name for name in "abcd"])
    assert headline(runs) == (
        "drawn scenes, test: b has Rsum 312.0, against 300.0 of a; 318.0 re-ranked. "
        "f, test: c has Rsum 240.0; 246.0 re-ranked. "
    )
    assert headline([]) == ""


def test_words_of_a_table_are_explained_once(tmp_path, write_run):
    found = sections(
        write_run(tmp_path / "a", 50.0), write_run(tmp_path / "b", 51.0, data_root="/x/flickr")
    )
    notes = [section.notes for section in found.values() if section.title.startswith("Results")]
    assert [sum("Rsum: the sum of the six" in note for note in some) for some in notes] == [1, 0]


def test_options_that_differ(tmp_path, write_run):
    found = sections(
        write_run(tmp_path / "a", 50.0, loss="ascl", dim=8, output_dir="x"),
        write_run(tmp_path / "b", 50.0, loss="triplet", dim=8, output_dir="y", gate_bias=-2.0),
    )
    assert table(found["Options that differ between runs"], "One") == [
        {"option": "loss", "a": "ascl", "b": "triplet"},
        {"option": "gate_bias", "a": "", "b": "-2.0"},
    ]
    late = write_run(tmp_path / "c", 50.0, fusion={"name": "late", "weight": 0.1})
    pooled = write_run(tmp_path / "d", 50.0, fusion="pooled")
    assert table(sections(late, pooled)["Options that differ between runs"], "One") == [
        {"option": "fusion", "c": "late", "d": "pooled"},
        {"option": "fusion.weight", "c": "0.1", "d": ""},
    ]
    alone = sections(tmp_path / "a")
    assert "Options that differ between runs" not in alone


def test_only_re_ranked_rows_are_transductive(folders):
    found = sections(folders.runs[0])
    rows = [*table(found["Results on flickr, test"], "Recall"),
            *table(found["Results on flickr, test, paired"], "Recall")]  # fmt: skip
    assert {row["result"]: row["transductive"] for row in rows} == {
        "initial": False,
        "reranked": True,
        "AsCL, oracle: label groups": True,
        "paired": False,
    }
