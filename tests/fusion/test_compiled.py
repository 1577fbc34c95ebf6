"""The kernels in C give the numbers of their twins in torch, or step aside."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, c_kernels, compiled_backend, proof, tile_scores

KINDS = ("projected", "parameter-free")
needs_compiler = pytest.mark.skipif(c_kernels.library() is None, reason="no C compiler works here")
close = torch.testing.assert_close


def cast(items, dtype=torch.float32):
    """Items with their features of another dtype."""
    tensors = items._tensors().items()
    return replace(items, **{n: x if x.dtype == torch.bool else x.to(dtype) for n, x in tensors})


@needs_compiler
@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 19), st.integers(1, 4), st.integers(1, 40),
    st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 9),
)  # fmt: skip
@torch.no_grad()
def test_attended_equals_its_twin(b, heads, n, a, m, turned, joint, projected, masked, seed):
    """Any sizes, so that columns and rows of a block remain; keys or queries side by side."""
    g = torch.Generator().manual_seed(seed)
    shape = (b, a * m, heads, n) if turned else (heads, b, n, a * m)
    order = (0, 2, 3, 1) if turned else (1, 0, 2, 3)
    logits, toward = (torch.randn(shape, generator=g).permute(order) * 4 for _ in range(2))
    size = heads * n if joint else n
    values = torch.randn(b, 1 if joint else heads, size, 8, generator=g)
    gram = values @ values.transpose(2, 3)
    mask = torch.rand(b, n, generator=g) < 0.7 if masked else None
    if mask is not None:
        mask[:, 0] = True
    shares = torch.rand(a, m, generator=g)
    given = logits, toward if projected else None, gram, shares, mask, 1.5
    found, wanted = c_kernels.attended(*given), tile_scores.attended(*given)
    for part, twin in zip(found, wanted, strict=True):
        close(part, twin, rtol=2e-5, atol=2e-5)
    dots, norms, means = c_kernels.attended(*given[:3], None, mask, 1.5)
    assert means is None
    close((dots, norms), found[:2], rtol=0, atol=0)


@needs_compiler
@pytest.mark.parametrize("instructions", ["DEFAULT", "AVX2", "AVX512"])
@torch.no_grad()
def test_every_width_of_registers_gives_the_same(draw, instructions, monkeypatch):
    levels = ["DEFAULT", "AVX2", "AVX512"]
    if instructions not in levels[: 1 + levels.index(torch.backends.cpu.get_cpu_capability())]:
        pytest.skip(f"no {instructions} here")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    kernels = c_kernels.library.__wrapped__()
    monkeypatch.setattr(c_kernels, "library", lambda: kernels)
    for attention in KINDS:
        head, images, texts = draw(regions=37, words=11, dim=8, texts=6, attention=attention)
        wanted = head(images, texts, backend="reference").float()
        found = head.float()(cast(images), cast(texts), backend="compiled")
        close(found, wanted, rtol=0, atol=2e-5)


@needs_compiler
@torch.no_grad()
def test_gated_cosines_equal_their_twin():
    g = torch.Generator().manual_seed(0)
    values, words = torch.randn(5, 7, 42, generator=g) * 9, torch.randn(7, 5, 21, generator=g)
    pooled, gate = torch.randn(2, 5, 21, generator=g)
    words[3] = 0
    given = values, words.transpose(0, 1), pooled, gate
    found = c_kernels.gated_cosines(*given)
    close(found, tile_scores.gated_cosines(*given), rtol=0, atol=1e-6)
    assert (found[:, 3] == 0).all() and (found[:, :3] != 0).all()


@needs_compiler
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 1},
        {"heads": 4, "dim": 8, "regions": 36, "words": 20, "images": 9, "texts": 30},
        {"masks": False},
        {"global_score": "both", "whole": True},
        {"local_weight": 1.0},
        {"word_pooling": "softmin"},
        {"spread": 4.0, "size": 3.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("attention", KINDS)
@torch.no_grad()
def test_scores_are_those_of_the_equations(draw, attention, options):
    given = {} if attention == "projected" else {"smoothing": (4.0, 9.0)}
    head, images, texts = draw(attention=attention, **options, **given)
    wanted = head(images, texts, backend="reference").float()
    head, images, texts = head.float(), cast(images), cast(texts)
    for x, y in ((images, texts), (head.prepare_images(images), head.prepare_texts(texts))):
        close(head(x, y, backend="compiled"), wanted, rtol=0, atol=2e-5)


@needs_compiler
@torch.no_grad()
def test_many_tiles_in_many_threads_are_one(draw, monkeypatch):
    """Tiles in threads of one core each, and a kernel's items in threads of their own."""
    head, images, texts = draw(images=20, texts=40, words=9, dim=8, attention="parameter-free")
    given = head.float(), cast(images), cast(texts)
    wanted = compiled_backend.score_parts(*given)
    monkeypatch.setattr(c_kernels, "WORTH", 1)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for memory in (20_000, 2**30):
                found = compiled_backend.score_parts(*given, memory=memory)
                close(found, wanted, rtol=0, atol=1e-6)
    finally:
        torch.set_num_threads(threads)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_is_that_of_factored(draw, dtype):
    head, images, texts = draw(dim=8, attention="projected")
    given = cast(images, dtype), cast(texts, dtype)
    found = head.to(dtype).score_parts(*given, backend="compiled")
    close(found, head.score_parts(*given, backend="factored"), rtol=0, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@torch.no_grad()
def test_what_is_no_number_is_not_hidden(bad):
    images = ImageFeatures(torch.randn(3, 4, 8), None, torch.randn(3, 8))
    texts = TextFeatures(torch.randn(5, 6, 8))
    texts.words[2, 3, 1] = bad
    scores = CrossModalFusion(8, 2)(images, texts, backend="compiled")
    assert scores[:, 2].isnan().all()
    assert scores[:, [0, 1, 3, 4]].isfinite().all()


@needs_compiler
@torch.no_grad()
def test_items_without_a_real_place_score_as_by_factored(draw):
    head, images, texts = draw(texts=4, attention="parameter-free")
    texts.mask[1] = False
    images.mask[2] = False
    head, images, texts = head.float(), cast(images), cast(texts)
    wanted = head.score_parts(images, texts, backend="factored")
    close(head.score_parts(images, texts, backend="compiled"), wanted, rtol=0, atol=1e-6)


@needs_compiler
def test_auto_takes_them_unless_a_gradient_is_wanted(draw, monkeypatch):
    head, images, texts = draw()
    head, images, texts = head.float(), cast(images), cast(texts)
    calls = []
    attended = c_kernels.attended
    kernels = compiled_backend.KERNELS._replace(
        attended=lambda *x, **o: calls.append(1) or attended(*x, **o)
    )
    monkeypatch.setattr(compiled_backend, "KERNELS", kernels)
    head(images, texts).sum().backward()
    head(images, texts, backend="compiled").sum().backward()
    assert not calls and all(p.grad is not None for p in head.parameters() if p.requires_grad)
    with torch.no_grad():
        head(images, texts)
    assert len(calls) >= 2
    del calls[:]
    with torch.no_grad():
        head.double()(cast(images, torch.float64), cast(texts, torch.float64))
    assert not calls


@needs_compiler
@torch.no_grad()
def test_local_scores_alone_need_no_pooled_feature_and_no_warning(draw, monkeypatch):
    """Kernels that are tried on images without it are not left out for those that have it."""
    monkeypatch.setattr(proof, "_AGREES", {})
    head, images, texts = draw()
    head, texts, whole = head.float(), cast(texts), cast(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = head.local_scores(replace(whole, pooled=None), texts)
        close(found, head.score_parts(whole, texts)[0], rtol=0, atol=1e-6)
    assert list(proof._AGREES.values()) == [True, True]


@needs_compiler
@torch.no_grad()
def test_features_that_are_no_numbers_say_nothing_of_the_kernels(draw, monkeypatch):
    monkeypatch.setattr(proof, "_AGREES", {})
    head, images, texts = draw(images=4)
    head, images, texts = head.float(), cast(images), cast(texts)
    spoilt = replace(images, regions=images.regions.clone())
    spoilt.regions[0] = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert head(spoilt, texts)[0].isnan().all()
        assert not proof._AGREES
        assert head(images, texts).isfinite().all()
    assert list(proof._AGREES.values()) == [True]


def test_without_a_compiler_scores_come_from_torch(tmp_path):
    """A compiler that is not there, one that fails, and a folder that cannot be written."""
    code = (
        "import torch, warnings; warnings.simplefilter('error')\n"
        "from ascl_plugin import CrossModalFusion, ImageFeatures, TextFeatures\n"
        "from ascl_plugin.fusion import c_kernels\n"
        "assert c_kernels.library() is None\n"
        "images = ImageFeatures(torch.randn(2, 3, 8), None, torch.randn(2, 8))\n"
        "head, texts = CrossModalFusion(8, 2), TextFeatures(torch.randn(3, 4, 8))\n"
        "with torch.no_grad():\n"
        "    assert head(images, texts).shape == (2, 3)\n"
        "    try: head(images, texts, backend='compiled')\n"
        "    except ValueError as error: print(error)\n"
    )
    (tmp_path / "file").touch()
    cases = [("no-such-compiler", tmp_path), ("false", tmp_path), ("cc", tmp_path / "file")]
    for compiler, cached in cases:
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | {"CC": compiler, "XDG_CACHE_HOME": str(cached)},
        ).stdout  # fmt: skip
        assert told == "the compiled backend cannot score this: no C compiler works here\n"
    assert not list((tmp_path / "ascl_plugin").glob("*"))  # nothing half-made is left


def test_asked_for_where_they_cannot_run_kernels_say_why(draw):
    head, images, texts = draw()
    with pytest.raises(ValueError, match=r"compiled backend cannot score this: .*float64"):
        head(images, texts, backend="compiled")
