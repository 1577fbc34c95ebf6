"""Which folders a report takes, and what it says of those it does not."""

from __future__ import annotations

import pytest

pytest.importorskip("yaml", reason="extra `recipes`")

from ascl_plugin.report.read import read_folders


def test_runs_and_studies_in_any_mix(folders):
    runs, experiments = read_folders([folders.study, folders.runs[1]])
    assert [run.name for run in runs] == ["second"]
    assert [section.folder.name for section in experiments] == ["cases"]
    assert read_folders([folders.study / "cases"])[1] == experiments


def test_a_folder_of_runs(tmp_path, write_run):
    for seed in (1, 0):
        write_run(tmp_path / "runs" / f"full-{seed}", 50.0, seed=seed)
    assert [run.name for run in read_folders([tmp_path / "runs"])[0]] == ["full-0", "full-1"]


def test_two_folders_of_one_name_are_told_apart(tmp_path, write_run):
    paths = [write_run(tmp_path / name / "run", 50.0) for name in "ab"]
    assert [run.name for run in read_folders(paths)[0]] == [str(path) for path in paths]


def test_only_what_is_measured_is_read_as_results(folders):
    first = folders.runs[0]
    (first / "notes.json").write_text('{"protocol": "none"}')
    run = read_folders([first])[0][0]
    assert [(split, results.protocol) for split, results in run.measured] == [
        ("test", "full"),
        ("test", "paired"),
    ]
    assert "notes.json" not in run.files


def test_a_run_that_was_killed(tmp_path, write_run):
    run = write_run(tmp_path / "run", 50.0)
    (run / "metrics.json").unlink()
    with open(run / "log.jsonl", "a") as log:
        log.write('{"step": 3, "lo')
    found = read_folders([run])[0][0]
    assert (found.measured, len(found.log)) == ([], 3)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", "{", "metrics.json: not JSON"),
        ("metrics.json", "[]", "expected a mapping, got list"),
        (
            "metrics.json",
            '{"test": 3}',
            r"test: expected results .*, got 3",
        ),
        ("log.jsonl", "{\n{}\n", "line 1 is no JSON object"),
        ("config.yaml", "- a\n", "config.yaml: expected option: value, got list"),
        ("config.yaml", "a: [", "config.yaml is not yaml"),
    ],
)
def test_a_broken_file_is_named(tmp_path, file, content, message, write_run):
    run = write_run(tmp_path / "run", 50.0)
    (run / file).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_folders([run])
    assert str(run / file) in str(error.value)


def test_folders_with_nothing_in_them(tmp_path, write_experiment):
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        read_folders([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: nothing to report here"):
        read_folders([tmp_path / "empty"])
    write_experiment(tmp_path / "odd").joinpath("result.json").write_text('{"title": "T"}')
    with pytest.raises(ValueError, match=r"odd/result\.json: no 'tables' in it"):
        read_folders([tmp_path / "odd"])
