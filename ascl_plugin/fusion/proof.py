"""A faster backend is used where its first scores are those of `factored`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable

from ascl_plugin.fusion.factored import score_parts as by_factored
from ascl_plugin.fusion.parameters import FusionParameters
from ascl_plugin.fusion.prepared import Images, Texts
from ascl_plugin.fusion.tile_scores import Parts

_AGREES: dict[Hashable, bool] = {}


def agrees(
    kind: Hashable,
    score_parts: Callable[..., Parts],
    tolerance: float,
    head: FusionParameters,
    images: Images,
    texts: Texts,
    with_global: bool,
) -> bool:
    """Return True if a backend agrees with `factored` on the first few items of a kind.

    Compared once per kind, e.g. of kernel and device. A backend that differs, or does not run, is
    not used and a warning says so: a slower score is better than a wrong one.
    """
    kind = kind, with_global  # images of local scores alone may lack what the global one needs
    if kind not in _AGREES:
        few = head, images[:3], texts[:9], with_global
        right = by_factored(*few)
        if not all(x.isfinite().all() for x in right):
            return (
                False  # nothing to compare by: these are scored by `factored`, the next ask again
            )
        try:
            pairs = zip(score_parts(*few), right, strict=True)
            off = max((found - wanted).abs().max().item() for found, wanted in pairs)
            reason = None if off <= tolerance else f"scores are off by {off:.1e}"
        except Exception as error:  # from the compiler, the driver or the launch
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            warnings.warn(f"fusion kernels are not used for {kind}: {reason}", stacklevel=5)
        _AGREES[kind] = reason is None
    return _AGREES[kind]
