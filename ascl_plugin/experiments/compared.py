"""The models that a figure holds against each other, each measured with every seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ascl_plugin.experiments.study import Study, Trained


def cells_of(
    study: Study,
    experiment: str,
    settings: dict[str, Any],
    seeds: Sequence[int],
    measure: Callable[[Trained], Any],
) -> dict[str, list[Any]]:
    """Model -> `measure` of its runs, seed by seed; what is measured already is not opened.

    The models are `settings["models"]`, by default the first two of the study.
    """

    def cell(model: str, seed: int) -> Any:
        return study.cell(
            experiment, f"{model}-{seed}", lambda: measure(study.trained(model, seed))
        )

    models = settings.get("models", list(study.models)[:2])
    return {model: [cell(model, seed) for seed in seeds] for model in models}
