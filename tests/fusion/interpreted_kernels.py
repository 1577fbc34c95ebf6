"""The kernels, by Triton's interpreter, held to the printed equations; `test_triton.py` runs this.

In a process of its own, with TRITON_INTERPRET=1 before anything imports triton.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, factored, reference
from ascl_plugin.fusion import triton_backend as kernels

KINDS = ("projected", "parameter-free")


def make(attention, heads=2, regions=5, words=7, images=1, texts=2, width=4, masks=True, **options):
    """A head with weights drawn at random, and features with holes in their masks, in fp64."""
    generator = torch.Generator().manual_seed(heads * 100 + regions * 10 + words)
    dim = heads * width

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def mask(items, places):
        if not masks:
            return None
        real = torch.rand(items, places, generator=generator) < 0.6
        real[torch.arange(items), torch.randint(places, (items,), generator=generator)] = True
        return real

    head = CrossModalFusion(
        dim, heads, direction_weight=0.3, attention=attention, **options
    ).double()
    with torch.no_grad():  # of the size that training meets, not of unit variance
        for parameter in head.parameters():
            parameter.copy_(normal(*parameter.shape) / dim**0.5)
    v = ImageFeatures(normal(images, regions, dim), mask(images, regions), normal(images, dim))
    return head, v, TextFeatures(normal(texts, words, dim), mask(texts, words))


def cast(dtype, head, images, texts):
    images = ImageFeatures(images.regions.to(dtype), images.mask, images.pooled.to(dtype))
    return head.to(dtype), images, TextFeatures(texts.words.to(dtype), texts.mask)


def assert_close(found, expected, atol):
    for part, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(part, wanted.to(part), rtol=0, atol=atol)


# A tile is at least 16 x 16. Four short texts share one, so five of them leave it partly empty; 17
# regions and 33 words fill more than a block; heads of width 40 come in two chunks, the second
# partly empty.
CASES = (
    {"heads": 1, "regions": 3, "words": 5, "texts": 5, "masks": False},
    {"heads": 2, "regions": 17, "words": 7, "images": 2, "texts": 1},
    {"heads": 4, "regions": 5, "words": 33, "texts": 1},
    {"heads": 2, "regions": 6, "words": 9, "width": 40, "texts": 1},
    {"heads": 2, "regions": 16, "words": 16, "masks": False},
    {"heads": 1, "regions": 1, "words": 1, "texts": 1, "width": 2},
)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_reference(attention, case):
    head, images, texts = make(attention, **case)
    expected = reference.score_parts(head, images, texts)
    head, images, texts = cast(torch.float32, head, images, texts)
    found = head.score_parts(images, texts, backend="triton")
    assert_close(found, expected, atol=1e-5)
    local, _ = kernels.score_parts(head, images, texts, with_global=False)
    torch.testing.assert_close(local, found[0], rtol=0, atol=0)


@torch.no_grad()
@settings(deadline=None, max_examples=6)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 2),
    st.fixed_dictionaries(
        {
            "regions": st.integers(1, 20),
            "words": st.integers(1, 20),
            "width": st.integers(1, 20),
            "masks": st.booleans(),
        }
    ),
)
def test_kernels_equal_reference_whatever_the_shape(attention, heads, shape):
    head, images, texts = make(attention, heads, images=1, texts=1, **shape)
    expected = reference.score_parts(head, images, texts)
    found = kernels.score_parts(*cast(torch.float32, head, images, texts))
    assert_close(found, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [(1.0, 1.0), (4.0, 9.0), (30.0, 60.0)])
def test_smoothing_and_sharp_attention(smoothing):
    """Logits of hundreds: a softmax that took no care would overflow."""
    head, images, texts = make("parameter-free", smoothing=smoothing)
    expected = reference.score_parts(head, images, texts)
    found = kernels.score_parts(*cast(torch.float32, head, images, texts))
    assert_close(found, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_tiles_and_prepared_items_change_nothing(attention):
    """Prepared, five texts of all lengths make one tile of two blocks; else tiles of a pair."""
    head, images, texts = cast(torch.float32, *make(attention, heads=1, images=2, texts=5))
    pairs = kernels.score_parts(head, images, texts, memory=1)
    prepared = head.prepare_images(images), head.prepare_texts(texts)
    assert_close(head.score_parts(*prepared, backend="triton"), pairs, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("what", ["no words", "no regions", "zero words", "zero regions"])
def test_empty_and_zero_items_score_as_in_factored(attention, what):
    head, images, texts = cast(torch.float32, *make(attention, images=1 + ("regions" in what)))
    side = texts if "words" in what else images
    if what.startswith("no "):
        side.mask[0] = False
    else:
        (side.words if "words" in what else side.regions)[0] = 0
    found = kernels.score_parts(head, images, texts)
    assert all(part.isfinite().all() for part in found)
    assert_close(found, factored.score_parts(head, images, texts), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_short_vectors_have_cosines_too(attention):
    head, images, texts = make(attention, texts=1)
    images.regions.mul_(0.01)
    texts.words.mul_(0.01)
    expected = reference.score_parts(head, images, texts)
    found = kernels.score_parts(*cast(torch.float32, head, images, texts))
    assert_close(found, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_padding_means_nothing(attention):
    head, images, texts = cast(torch.float32, *make(attention))
    before = kernels.score_parts(head, images, texts)
    images.regions[~images.mask] = 99
    texts.words[~texts.mask] = -99
    assert_close(kernels.score_parts(head, images, texts), before, atol=1e-6)


@pytest.fixture
def bf16(monkeypatch):
    """The interpreter holds bf16 as its bits, and would multiply those: give it numbers."""
    from triton.runtime import interpreter

    dot = interpreter.InterpreterBuilder.create_dot

    def numbers(x):
        if x.dtype.scalar != interpreter.tl.bfloat16:
            return x
        data = (x.data.astype("uint32") << 16).view("float32")
        return interpreter.TensorHandle(data, interpreter.tl.float32)

    monkeypatch.setattr(
        interpreter.InterpreterBuilder,
        "create_dot",
        lambda self, a, b, *rest: dot(self, numbers(a), numbers(b), *rest),
    )
    monkeypatch.setattr(kernels, "refusal", lambda images, texts: None)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_close_and_comes_back_wide(attention, dtype, bf16):
    """bf16 keeps 8 bits, fp16 11; weights and logits are off by some of the last one."""
    head, images, texts = make(attention, width=16, words=9)
    exact = reference.score_parts(head, images, texts)
    found = kernels.score_parts(*cast(dtype, head, images, texts))
    assert all(part.dtype == torch.float32 for part in found)
    assert_close(found, exact, atol=0.03 if dtype == torch.bfloat16 else 0.004)
    # with features whose squares leave the range of fp16
    large = ImageFeatures(images.regions * 99, images.mask, images.pooled)
    local, _ = kernels.score_parts(*cast(dtype, head, large, texts), with_global=False)
    assert local.isfinite().all() and local.abs().max() <= 1.01


@torch.no_grad()
def test_autocast_multiplies_in_its_dtype(bf16):
    head, images, texts = cast(torch.float32, *make("parameter-free"))
    exact = kernels.score_parts(head, images, texts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = kernels.score_parts(head, images, texts)
    assert_close(rough, exact, atol=0.03)
    assert (rough[0] - exact[0]).abs().max() > 1e-5


@pytest.mark.parametrize("wanted", ["parameters", "regions", "words", "prepared", "nothing"])
def test_what_wants_a_gradient_goes_through_factored(wanted, monkeypatch):
    head, images, texts = cast(torch.float32, *make("parameter-free", images=1, texts=1))
    head.requires_grad_(wanted == "parameters")
    images.regions.requires_grad_(wanted in ("regions", "prepared"))
    texts.words.requires_grad_(wanted == "words")
    items = head.prepare_images(images) if wanted == "prepared" else images
    fused = []
    score_tile = kernels.score_tile
    monkeypatch.setattr(kernels, "score_tile", lambda *args: fused.append(1) or score_tile(*args))
    scores = head(items, texts, backend="triton")
    assert bool(fused) == (wanted == "nothing")
    assert scores.requires_grad == (wanted != "nothing")
    with torch.no_grad():
        found = head(items, texts, backend="triton")
    assert fused
    torch.testing.assert_close(found, scores.detach(), rtol=0, atol=1e-5)


def test_available_for_what_the_interpreter_can():
    found = {d for d in (*kernels.PER_THREAD, torch.float64) if kernels.available("cpu", d)}
    assert found == {torch.float32, torch.float16}
    _, images, texts = cast(torch.bfloat16, *make("parameter-free"))
    assert kernels.refusal(images, texts) == "Triton's interpreter multiplies no bf16"


@pytest.mark.parametrize(
    ("regions", "words", "dtype", "fits"),
    [
        (36, 32, torch.float32, True),
        (36, 33, torch.float32, False),
        (64, 128, torch.float16, True),
        (128, 64, torch.float16, True),
        (65, 65, torch.float16, False),
        (129, 5, torch.float16, False),
        (5, 129, torch.float16, False),
    ],
)
def test_more_places_than_fit_are_refused_and_still_scored_by_auto(regions, words, dtype, fits):
    head = CrossModalFusion(4, 2).to(dtype)
    images = ImageFeatures(torch.randn(1, regions, 4).to(dtype), None, torch.zeros(1, 4).to(dtype))
    texts = TextFeatures(torch.randn(1, words, 4).to(dtype))
    if fits:
        assert kernels.refusal(images, texts) is None
        return
    name = str(dtype).removeprefix("torch.")
    message = f"{regions} regions and {words} words in {name} are too many for a tile"
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        head(images, texts, backend="triton")
    assert head(images, texts).shape == (1, 1)
