"""The section of an experiment in files: `result.json`, which a report reads, and `result.md`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ascl_plugin.disk import write_json, write_text
from ascl_plugin.report.document import Figure, Section, inside
from ascl_plugin.report.table import Table
from ascl_plugin.report.text_formats import markdown_section


@dataclass(frozen=True)
class Origin:
    """Command, seeds and split of an experiment, and its place in a study."""

    experiment: str
    place: int
    command: str
    seeds: list[int]
    split: str


def write_section(folder: Path, section: Section, origin: Origin) -> str:
    """Write `result.json` and `result.md` into `folder`; return the Markdown."""
    tables = [{"caption": t.caption, "rows": t.rows, "leaks": t.leaks} for t in section.tables]
    figures = [{"file": f.path.name, "caption": f.caption} for f in section.figures]
    parts = {"tables": tables, "figures": figures, "notes": section.notes, "cases": section.cases}
    write_json(folder / "result.json", {"title": section.title, **parts, **vars(origin)})
    section.commands["command"], section.facts["split"] = origin.command, origin.split
    section.facts |= {"seeds": ", ".join(map(str, origin.seeds)), "model": "single"}
    section.folder = folder
    text = markdown_section(section, folder)
    write_text(folder / "result.md", text)
    return text


def read_section(folder: Path, content: dict) -> Section:
    """Return the section whose `result.json` has this content.

    Raises:
        ValueError: an entry is missing or of another type; a figure outside the folder.
        FileNotFoundError: a figure is not there.
    """
    path = folder / "result.json"
    if missing := [name for name in ("title", "tables") if name not in content]:
        raise ValueError(f"{path}: no {missing[0]!r} in it; expected the result of an experiment")
    facts = {"split": content.get("split"), "seeds": ", ".join(map(str, content.get("seeds", [])))}
    try:
        figures = [
            Figure(inside(folder, each["file"]), each["caption"])
            for each in content.get("figures", [])
        ]
        tables = [
            Table(each["caption"], each["rows"], leaks=each.get("leaks", []))
            for each in content["tables"]
        ]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: a table or a figure lacks an entry: {error!r}") from error
    for figure in figures:
        if figure.dark:
            inside(folder, figure.dark.name)
    return Section(
        content["title"],
        commands={"command": str(content["command"])} if content.get("command") else {},
        facts={name: str(value) for name, value in facts.items() if value},
        tables=tables,
        figures=figures,
        notes=content.get("notes", []),
        cases=content.get("cases", []),
        folder=folder,
        files={p.name: p for p in (path, path.with_suffix(".md")) if p.is_file()},
    )
