"""The Triton kernels: they compute the equations, compile for GPUs, and step aside elsewhere."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, factored, head, proof
from ascl_plugin.fusion import triton_backend as kernels

KINDS = ("projected", "parameter-free")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="no NVIDIA GPU that the kernels run on",
)


def run(code, *arguments, **environment):
    """A Python process of its own; its output if it goes well."""
    done = subprocess.run(
        [sys.executable, *code, *arguments],
        capture_output=True, text=True, env=os.environ | environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    return done.stdout


@needs_triton
def test_kernels_in_the_interpreter():
    """All of `interpreted_kernels.py`: triton must be told before it is imported."""
    tests = Path(__file__).with_name("interpreted_kernels.py")
    out = run(["-m", "pytest", "-q", "-p", "no:cacheprovider"], str(tests), TRITON_INTERPRET="1")
    assert "[100%]" in out and "s" not in out.split("[")[0], out  # s: skipped


# A machine without a GPU can compile for one: what the interpreter is too lenient about shows here.
COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ascl_plugin.fusion import triton_kernels as tiles

narrow = ("regions", "words", "queries", "toward", "keys", "gram", "scratch")
for kernel in (tiles.parameter_free, tiles.projected):
    # else each number of items or places that is a multiple of 16 takes seconds to compile
    assert sum(p.do_not_specialize for p in kernel.params) == 4
    # Triton makes a constant of every argument that is 1
    for sizes in ({"ROWS": 64}, {"ROWS": 16, "I": 1, "T": 1, "K": 1, "L": 1}):
        constants = {"HEADS": 8, "WIDTH": 128, "CHUNK": 64, "TEXTS": 4, "WORDS": 16}
        constants |= {"PRECISION": "tf32", "WITH_GLOBAL": True} | sizes
        kinds = {"to_words": "fp32", "to_regions": "fp32", "direction_weight": "fp32"}
        kinds |= dict.fromkeys("ITKL", "i32") | dict.fromkeys(constants, "constexpr")
        for argument in kernel.arg_names:
            half = argument.endswith(narrow) and not argument.startswith("over")
            kinds.setdefault(argument, "*bf16" if half else "*fp32")
        source = ASTSource(kernel, {a: kinds[a] for a in kernel.arg_names}, constexprs=constants)
        options = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
        compiled = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert compiled.asm["cubin"]
        print(compiled.metadata.shared)
"""


@needs_triton
def test_kernels_compile_for_a_gpu_and_leave_room_for_more_programs(tmp_path):
    out = run(["-c", COMPILE], TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    shared = [int(line) for line in out.split()]
    assert len(shared) == 4 and max(shared) <= 48 * 1024


def items(dtype=torch.float32, device="cpu", regions=36, words=14, dim=64):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(device, dtype)

    lengths = torch.tensor([[words], [words // 2], [1], [words], [words - 1]], device=device)
    mask = torch.arange(words, device=device) < lengths
    images = ImageFeatures(normal(3, regions, dim), None, normal(3, dim))
    return images, TextFeatures(normal(5, words, dim), mask)


@pytest.mark.parametrize("fault", ["wrong", "does not run", None])
def test_kernels_that_fail_their_first_scores_are_left_out(fault, monkeypatch):
    images, texts = items()
    fusion = CrossModalFusion(64, 4)
    expected = fusion(images, texts, backend="factored")
    calls = []

    def by_kernels(*inputs):
        calls.append(len(inputs[1]))
        if fault == "does not run":
            raise RuntimeError("out of resources")
        local, whole = factored.score_parts(*inputs)
        return (local + 0.1, whole) if fault == "wrong" else (local, whole)

    monkeypatch.setattr(proof, "_AGREES", {})
    monkeypatch.setattr(kernels, "preferred", lambda *_: True)
    monkeypatch.setattr(kernels, "score_parts", by_kernels)
    monkeypatch.setitem(head.BACKENDS, "triton", by_kernels)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            torch.testing.assert_close(fusion(images, texts), expected)
    said = [str(w.message) for w in caught if "fusion kernels are not used" in str(w.message)]
    assert len(said) == (fault is not None)  # once
    assert len(calls) == (1 if fault else 3)
    if fault:
        assert {"wrong": "off by 1.0e-01", "does not run": "out of resources"}[fault] in said[0]


@pytest.mark.parametrize("wanted", [True, False])
def test_asked_for_where_they_cannot_run_kernels_say_why(wanted, monkeypatch):
    images, texts = items()
    fusion = CrossModalFusion(64, 4)
    double = items(torch.float64)
    with torch.set_grad_enabled(wanted):
        with pytest.raises(ValueError, match=r"triton backend cannot score this: .*float64"):
            fusion.double()(*double, backend="triton")
        monkeypatch.setattr(kernels, "_installed", lambda: True)
        with pytest.raises(ValueError, match="features are on cpu, not on an NVIDIA GPU"):
            fusion.float()(images, texts, backend="triton")
        monkeypatch.setattr(kernels, "_installed", lambda: False)
        with pytest.raises(ValueError, match="triton is not installed"):
            fusion(images, texts, backend="triton")


def test_importing_needs_no_triton():
    code = (
        "import sys; sys.modules['triton'] = None; import torch; import ascl_plugin.fusion.head;"
        "assert 'ascl_plugin.fusion.triton_kernels' not in sys.modules; print('fine')"
    )
    assert run(["-c", code]) == "fine\n"


@needs_gpu
@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-4), (torch.float16, 0.01), (torch.bfloat16, 0.03)]
)
@pytest.mark.parametrize("shape", [(36, 14), (5, 20), (60, 32)], ids=str)
def test_on_a_gpu_kernels_equal_factored(attention, dtype, atol, shape):
    fusion = CrossModalFusion(512, 8, attention=attention).cuda()
    images, texts = items(torch.float32, "cuda", *shape, dim=512)
    expected = factored.score_parts(fusion, images, texts)
    fusion, (images, texts) = fusion.to(dtype), items(dtype, "cuda", *shape, dim=512)
    assert kernels.preferred(fusion, images, texts)
    for _ in range(3):  # a race would not show each time
        found = fusion.score_parts(images, texts)
        for part, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(part, wanted, rtol=0, atol=atol)
