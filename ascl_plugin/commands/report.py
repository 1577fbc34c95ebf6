"""``ascl report``: runs and studies on one page."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ascl_plugin.disk import write_text

_SUFFIXES = (".html", ".md", ".tex")


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command and its options."""
    command = commands.add_parser(
        "report",
        description="Results, training curves, experiments and their figures on one page that "
        "needs no network; or the same in Markdown; or its tables in LaTeX.",
    )
    command.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="RUN_DIR",
        help="folder of a run, of an experiment, or of such folders (a study)",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        default=Path("report.html"),
        help="its suffix decides: .html; .md, with curves in a folder beside it; .tex, tables only "
        "(default: %(default)s)",
    )
    command.add_argument("--title", help="(default: the names of the folders)")
    command.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from ascl_plugin.report.build import build_report
    from ascl_plugin.report.text_formats import latex_tables, markdown_page

    output: Path = args.output
    if output.suffix not in _SUFFIXES:
        raise ValueError(f"{output}: expected a name that ends in {', '.join(_SUFFIXES)}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent}: no such folder to write to")
    if output.suffix == ".tex":
        write_text(output, latex_tables(build_report(args.folders, args.title)))
    elif output.suffix == ".md":
        drawings = output.with_name(f"{output.stem}_files")
        document = build_report(args.folders, args.title, drawings)
        write_text(output, markdown_page(document, output.parent))
    else:
        from ascl_plugin.report.page import html_page

        with tempfile.TemporaryDirectory() as folder:
            document = build_report(args.folders, args.title, Path(folder))
            page = html_page(document, output.parent)
        write_text(output, page)
    print(f"wrote {output}")
    return 0
