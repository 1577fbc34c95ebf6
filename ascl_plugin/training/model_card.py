"""The README.md beside a trained model: its use, its data, its figures and their command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ascl_plugin import __version__
from ascl_plugin.disk import write_text
from ascl_plugin.metrics.result_row import SplitResults
from ascl_plugin.report.table import LEAK_NOTE, markdown_table, results_table

CARD = """---
library_name: ascl_plugin
license: apache-2.0
tags:
- image-text-retrieval
---

# {name}

An image-text retrieval model of ascl_plugin {version}: {parts}.

    pip install "ascl-plugin[recipes]"

```python
from ascl_plugin import Gallery

gallery = Gallery("FOLDER OF THIS FILE", "FOLDER OF PHOTOS")
for hit in gallery.search("two dogs on a beach", k=5):
    print(hit.image, hit.score)
```

The licence named above is the library's; data and pretrained encoders have their own.

## Training

- data: {data}; {sizes}
- seed: {seed}
- command: `{command}`; all options are in `config.yaml` of the run

## Results
{tables}
{notes}
"""


def write_card(
    folder: Path,
    name: str,
    components: Mapping[str, object],
    data: str,
    sizes: Mapping[str, int],
    seed: int,
    command: Sequence[str],
    results: Mapping[str, SplitResults],
) -> None:
    """Write `README.md` of a saved model.

    Args:
        folder: folder of the model.
        name: title.
        components: name of each component, such as `fusion`, to its kind.
        data: the training data, in words.
        sizes: split to its number of images.
        seed: seed of the run.
        command: words of the command that trained it.
        results: split to its results.
    """
    tables = [
        f"\n### {split}\n\n{markdown_table(results_table(found.rows))}"
        for split, found in results.items()
    ]
    rows = [row for found in results.values() for row in found.rows]
    notes = ["A single model; the gallery of each table is the whole split."]
    if any(row.transductive for row in rows):
        notes.append("Re-ranked results depend on the other queries of the split (transductive).")
    if any(row.leaks for row in rows):
        notes.append(LEAK_NOTE)
    card = CARD.format(
        name=name,
        version=__version__,
        parts=", ".join(f"{part} {kind}" for part, kind in components.items()),
        data=data,
        sizes=", ".join(f"{split} {count:,} images" for split, count in sizes.items()),
        seed=seed,
        command=shlex.join(command),
        tables="\n".join(tables),
        notes=" ".join(notes),
    )
    write_text(folder / "README.md", card)
