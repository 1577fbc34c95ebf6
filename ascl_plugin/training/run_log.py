"""`log.jsonl` of a run: one line for each event, and none for a step that was repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ascl_plugin.disk import write_text, writing


class RunLog:
    """The log in a run's folder, written by rank 0.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def write(self, values: Mapping[str, object]) -> None:
        """Add a line.

        Raises:
            OSError: it cannot be written.
        """
        with writing(self.path), open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")

    def drop_after(self, step: int) -> None:
        """Remove lines of steps after the checkpoint that a run resumes from.

        Raises:
            OSError: it cannot be written.
        """
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:  # a line cut short by the kill
                continue
        write_text(self.path, "".join(kept))
