"""`log.jsonl` of a run: a line an event, none of a step that was done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ascl_plugin.disk import write_text, writing


class RunLog:
    """The log in a run's folder; one process writes it.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def write(self, values: dict[str, Any]) -> None:
        """Adds a line.

        Raises:
            OSError: it cannot be written.
        """
        with writing(self.path), open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")

    def drop_after(self, step: int) -> None:
        """Takes out what a run wrote behind the checkpoint that it goes on from.

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
