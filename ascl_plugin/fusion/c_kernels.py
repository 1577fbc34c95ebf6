"""The kernels of `kernels.c`, compiled on first use where a C compiler is found."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from ascl_plugin.fusion.reference import EPS

SOURCE = Path(__file__).with_name("kernels.c")
COLUMNS = 32  # as in the source
WORTH = 2**20  # numbers that are worth a thread: a millisecond
FLAGS = "-O3 -fPIC -shared -fopenmp-simd -fno-math-errno -fno-trapping-math"
MACHINE = {  # by torch's name for the CPU's instructions
    "AVX512": "-mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma",
    "AVX2": "-mavx2 -mfma",
}


@cache
def library() -> ctypes.CDLL | None:
    """Return the kernels, or None where no C compiler is found or it fails.

    They are compiled once on a machine, in less than a second, by CC or else `cc`, and kept in
    ascl_plugin/ under XDG_CACHE_HOME or else `~/.cache`.
    """
    flags = f"{FLAGS} {MACHINE.get(torch.backends.cpu.get_cpu_capability(), '')}"
    command = shlex.split(f"{os.environ.get('CC') or 'cc'} {flags}")
    key = sha256(repr(command).encode() + SOURCE.read_bytes()).hexdigest()[:16]
    try:
        cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ascl_plugin"
        path = cached / f"kernels-{key}.so"
        if not path.exists():
            _compile(command, path)
        return _declared(ctypes.CDLL(str(path)))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def _compile(command: list[str], path: Path) -> None:
    """Compile the source to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [*command, str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        made.replace(path)


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    array, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_float
    library.attended.argtypes = [array] * 9 + [size] * 10 + [number]
    library.gated_cosines.argtypes = [array] * 5 + [size] * 4 + [number]
    library.attended.restype = library.gated_cosines.restype = None
    return library


def attended(
    logits: Tensor,
    toward: Tensor | None,
    gram: Tensor,
    shares: Tensor | None,
    mask: Tensor | None,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return dots, squared norms and mean attention, as `tile_scores.attended`, in fp32."""
    items, heads, n, queries = logits.shape
    logits = logits.float()
    toward = None if toward is None else toward.float()
    if toward is not None and toward.stride() != logits.stride():
        logits, toward = logits.contiguous(), toward.contiguous()
    gram = gram.float().contiguous()
    mask = None if mask is None else mask.contiguous()
    shares = None if shares is None else shares.float().contiguous()
    dots, norms = logits.new_empty(2, items, queries)
    places = queries if shares is None else shares.shape[1]
    means = None if shares is None else logits.new_zeros(items, len(shares), heads * n)
    sizes = heads, n, queries, places, gram.shape[1] > 1, *logits.stride()

    def part(start: int, stop: int) -> None:
        space = torch.empty(2 * heads * n * COLUMNS)
        inputs = (x if x is None else x[start:stop] for x in (logits, toward, gram, mask))
        outputs = (x if x is None else x[start:stop] for x in (dots, norms, means))
        arrays = [*inputs, shares, *outputs, space]
        _kernels().attended(*map(_address, arrays), stop - start, *sizes, factor)

    _in_threads(part, items, logits.numel())
    return dots, norms, means


def gated_cosines(values: Tensor, words: Tensor, pooled: Tensor, gate: Tensor) -> Tensor:
    """Return S_global (I, T), as `tile_scores.gated_cosines`, in fp32."""
    images, texts, width = values.shape
    # texts by images, as the product that made them left them
    words = words.transpose(0, 1).float().contiguous()
    values, pooled, gate = (x.float().contiguous() for x in (values, pooled, gate))
    found = values.new_empty(images, texts)

    def part(start: int, stop: int) -> None:
        arrays = [values[start:stop], words[:, start:stop], pooled[start:stop], gate[start:stop]]
        sizes = stop - start, texts, width // 2, words.stride(0)
        _kernels().gated_cosines(*map(_address, [*arrays, found[start:stop]]), *sizes, EPS**2)

    _in_threads(part, images, values.numel())
    return found


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None, "call library() first"
    return kernels


def _address(array: Tensor | None) -> int | None:
    return None if array is None else array.data_ptr()


def _in_threads(part: Callable[[int, int], None], items: int, work: int) -> None:
    """Call part(start, stop) for all items, in as many threads as torch has and `work` is worth."""
    threads = min(torch.get_num_threads(), items, 1 + work // WORTH)
    if threads < 2:
        return part(0, items)
    stops = [items * (i + 1) // threads for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, [0, *stops], stops))
