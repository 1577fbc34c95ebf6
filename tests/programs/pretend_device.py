"""A device that is not the CPU, for machines without a GPU: CPU tensors that claim to be elsewhere.

Within `elsewhere()` the device "pretend" exists. What a GPU refuses is refused: an operation on
tensors of both devices, unless one has no axes or is an index; `numpy`; a generator of the CPU. The
code that runs is that for tensors off the CPU, except where it asks for "cuda" by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

NAME = "pretend"
_begun: list[object] = []
# they take tensors of two devices, or make one of the other
_MIXED = ("copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_")


class Elsewhere(Tensor):
    """A tensor on the device; `inner` is the one on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), inner.storage_offset(),
            dtype=inner.dtype, device=f"{NAME}:0",
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.inner!r} elsewhere"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor of a device to numpy; copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Makes tensors here that were asked for elsewhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat = tree_flatten((args, kwargs))[0]
    given = [x for x in flat if isinstance(x, Tensor)]
    there = [x for x in given if isinstance(x, Elsewhere)]
    asked = [x for x in flat if isinstance(x, torch.device)]
    name = func.overloadpacket.__name__
    here = [x for x in given if not isinstance(x, Elsewhere) and x.ndim]
    if there and here and name not in _MIXED:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    to_there = asked[-1].type == NAME if asked else bool(there)
    if name == "copy_":
        to_there = isinstance(args[0], Elsewhere)
    generator = kwargs.get("generator")
    if to_there and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{name}: expected a generator of {NAME}, found one of the CPU")
    cpu = torch.device("cpu")
    args, kwargs = tree_map_only(Elsewhere, lambda x: x.inner, (args, kwargs))
    args, kwargs = tree_map_only(torch.device, lambda _: cpu, (args, kwargs))
    found = func(*args, **kwargs)
    if not to_there:
        return found
    same = {id(x.inner): x for x in there}  # written in place
    return tree_map_only(Tensor, lambda x: same[id(x)] if id(x) in same else Elsewhere(x), found)


def _empty(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return Elsewhere(torch.empty_strided(size, stride, dtype=dtype))


def _copy(source: Tensor, target: Any, non_blocking: bool = False) -> Tensor:
    target.inner.copy_(source)
    return target


@contextmanager
def elsewhere() -> Iterator[str]:
    """Give the name of the device. To be entered before the first backward pass of the process."""
    from torch.utils import backend_registration

    if not _begun:
        module = backend_registration._DummyBackendModule()
        module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
        backend_registration._setup_privateuseone_for_python_backend(NAME, module)
        library = torch.library.Library("aten", "IMPL")  # `torch.tensor(..., device=)` needs them
        library.impl("empty_strided", _empty, "PrivateUse1")
        library.impl("_copy_from", _copy, "PrivateUse1")
        _begun.append(library)
    with _Factories():
        yield NAME
