"""Components by name, by dotted path, or from another installed package.

Three ways to name a component of a kind ("loss", "fusion", "rerank", "image_encoder",
"image_inputs", "text_encoder"):

* a registered name: ``build("loss", "ascl", temperature=.05)``
* a dotted path: ``build("loss", "mypkg.losses:MyLoss", margin=.2)``
* an entry point of group ``ascl_plugin.components`` in any installed distribution, its name
  written ``kind.name``: ``"loss.mine" = "mypkg.losses:MyLoss"``, then ``build("loss", "mine")``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from ascl_plugin.spelling import did_you_mean

GROUP = "ascl_plugin.components"

Component = Callable[..., Any]
C = TypeVar("C", bound=Component)

# Our own names are dotted paths too, so that naming a component is what imports it: the base
# install never touches an adapter's dependencies.
BUILT_IN: dict[str, dict[str, str]] = {
    "loss": {
        "ascl": "ascl_plugin.losses:AsymmetryLoss",
        "triplet": "ascl_plugin.losses:TripletLoss",
    },
    "fusion": {
        "cross_modal": "ascl_plugin.fusion:CrossModalFusion",
        "late": "ascl_plugin.fusion:LateInteraction",
        "pooled": "ascl_plugin.fusion:PooledSimilarity",
    },
    "rerank": {
        "bidirectional": "ascl_plugin.reranking.bidirectional:bidirectional",
        "csls": "ascl_plugin.reranking.hubness:csls",
        "dbnorm": "ascl_plugin.reranking.dual_bank:dbnorm",
        "dbnorm_dynamic": "ascl_plugin.reranking.dual_bank:dbnorm_dynamic",
        "dn": "ascl_plugin.reranking.hubness:dn",
        "dual_softmax": "ascl_plugin.reranking.hubness:dual_softmax",
        "inverted_softmax": "ascl_plugin.reranking.hubness:inverted_softmax",
        "k_reciprocal": "ascl_plugin.reranking.k_reciprocal:k_reciprocal",
        "local_scaling": "ascl_plugin.reranking.scaling:local_scaling",
        "mutual_proximity": "ascl_plugin.reranking.scaling:mutual_proximity",
        "nnn": "ascl_plugin.reranking.hubness:nnn",
        "none": "ascl_plugin.reranking.hubness:none",
        "qb_norm": "ascl_plugin.reranking.hubness:qb_norm",
        "sinkhorn": "ascl_plugin.reranking.dual_bank:sinkhorn",
    },
    "image_inputs": {"region_files": "ascl_plugin.adapters.regions.inputs:RegionInputs"},
    "image_encoder": {
        "grid": "ascl_plugin.retrieval.encoders:GridEncoder",
        "region_files": "ascl_plugin.adapters.regions.inputs:PrecomputedRegions",
        "timm_grid": "ascl_plugin.adapters.towers.timm_grid:TimmGrid",
        "resnet": "ascl_plugin.adapters.towers.resnet:PooledImage",
        "faster_rcnn": "ascl_plugin.adapters.detectors.faster_rcnn:FasterRCNN",
        "bottom_up": "ascl_plugin.adapters.detectors.bottom_up:BottomUp",
        "transformers_clip": "ascl_plugin.adapters.towers.transformers_clip:ClipRegions",
        "open_clip": "ascl_plugin.adapters.towers.open_clip:OpenClipImages",
    },
    "text_encoder": {
        "transformer": "ascl_plugin.retrieval.encoders:WordTransformer",
        "bert": "ascl_plugin.adapters.towers.bert:BertWords",
        "transformers_clip": "ascl_plugin.adapters.towers.transformers_clip:ClipWords",
        "open_clip": "ascl_plugin.adapters.towers.open_clip_words:OpenClipWords",
    },
}
_registered: dict[tuple[str, str], Component] = {}


def register(kind: str, name: str) -> Callable[[C], C]:
    """Return a decorator that makes a class or function available under `name`; the last wins."""

    def add(component: C) -> C:
        _registered[kind, name] = component
        return component

    return add


def available(kind: str) -> list[str]:
    """Return the names that ``build(kind, name)`` knows, sorted. Imports no entry point."""
    names = {*BUILT_IN.get(kind, ()), *_installed(kind)}
    return sorted(names | {name for k, name in _registered if k == kind})


def kinds() -> list[str]:
    """Return every kind of which at least one component is known, sorted."""
    found = set(BUILT_IN) | {kind for kind, _ in _registered}
    return sorted(found | {e.name.split(".", 1)[0] for e in entry_points(group=GROUP)})


def resolve(kind: str, name: str) -> Component:
    """Return the component itself, not built.

    Raises:
        KeyError: no component of that kind has that name; the message lists the names.
        ImportError: a dotted path or entry point that cannot be imported.
    """
    if (kind, name) in _registered:
        return _registered[kind, name]
    if ":" in name:
        return _from_path(name)
    if name in BUILT_IN.get(kind, {}):
        return _from_path(BUILT_IN[kind][name])
    installed = _installed(kind)
    if name in installed:
        entry = installed[name]
        return _from_path(f"{entry.module}:{entry.attr}")
    names = available(kind)
    if not names:
        raise KeyError(f"no component kind {kind!r}; kinds are {', '.join(kinds())}")
    raise KeyError(
        f"no {kind} named {name!r}{did_you_mean(name, names)}; available: {', '.join(names)}, "
        "or a dotted path 'package.module:Name'"
    )


def refuse_import(kind: str, name: object, where: str) -> None:
    """Refuse a name from a file if it is a dotted path, which could import any code.

    Registered names, built-in names and entry points pass.

    Raises:
        ValueError: a dotted path, or not a name at all; the message names the file, `where`.
    """
    if not isinstance(name, str):
        raise ValueError(f"{where}: {kind} is {repr(name)[:80]}, expected a name")
    if ":" in name and (kind, name) not in _registered:
        raise ValueError(
            f"{where}: {kind} {name!r} is code to import. If you trust it: allow_import=True, or "
            "--allow_import"
        )


def build(kind: str, name: str, **options: object) -> Any:
    """Return ``resolve(kind, name)(**options)``; of kind "rerank" a partial of `rerank`.

    Raises:
        KeyError, ImportError: as `resolve`.
        TypeError: an option that the component does not take.
    """
    component = resolve(kind, name)
    if kind == "rerank":  # a method is a plain function; `rerank` checks and converts around it
        return partial(_from_path("ascl_plugin.reranking:rerank"), method=component, **options)
    try:
        return component(**options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise TypeError(f"{kind} {name!r}: {error}") from error
        raise


def _installed(kind: str) -> dict[str, EntryPoint]:
    prefix = f"{kind}."
    found = entry_points(group=GROUP)
    return {e.name.removeprefix(prefix): e for e in found if e.name.startswith(prefix)}


def _from_path(path: str) -> Component:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise ImportError(f"{path!r}: module {module!r} has no {attribute!r}") from error
