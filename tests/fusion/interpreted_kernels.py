"""The kernels, by Triton's interpreter, held to the printed equations; `test_triton.py` runs this.

In a process of its own, with TRITON_INTERPRET=1 before anything imports triton.
"""

from __future__ import annotations

import pytest
import torch

from ascl_plugin.features import ImageFeatures, TextFeatures
from ascl_plugin.fusion import CrossModalFusion, factored, reference
from ascl_plugin.fusion import triton_backend as kernels

KINDS = ("projected", "parameter-free")


@pytest.fixture(scope="session")
def make(draw):
    """A function that gives a head with weights of the size that training meets, and features."""

    def made(attention, heads=2, regions=5, words=7, images=1, width=4, **options):
        dim, seed = heads * width, heads * 100 + regions * 10 + words
        sizes = {"images": images, "regions": regions, "words": words, "dim": dim, "heads": heads}
        options = {"direction_weight": 0.3, "attention": attention, **sizes, **options}
        return draw(seed, spread=dim**-0.5, **options)

    return made


def cast(dtype, head, images, texts):
    images = ImageFeatures(images.regions.to(dtype), images.mask, images.pooled.to(dtype))
    return head.to(dtype), images, TextFeatures(texts.words.to(dtype), texts.mask)


def assert_close(found, expected, atol):
    for part, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(part, wanted.to(part), rtol=0, atol=atol)


# A tile is at least 16 x 16. Four short texts share one, so five of them leave it partly empty; 17
# regions and 33 words fill more than a block; heads of width 40 come in two chunks, the second
# partly empty. Short vectors have cosines, too.
CASES = (
    {"heads": 1, "regions": 3, "words": 5, "texts": 5, "masks": False},
    {"heads": 2, "regions": 17, "words": 7, "images": 2, "texts": 1},
    {"heads": 4, "regions": 5, "words": 33, "texts": 1},
    {"heads": 2, "regions": 6, "words": 9, "width": 40, "texts": 1},
    {"heads": 2, "regions": 16, "words": 16, "masks": False},
    {"heads": 1, "regions": 1, "words": 1, "texts": 1, "width": 2},
    {"texts": 1, "size": 0.01},
)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_reference(make, attention, case):
    head, images, texts = make(attention, **case)
    expected = reference.score_parts(head, images, texts)
    head, images, texts = cast(torch.float32, head, images, texts)
    found = head.score_parts(images, texts, backend="triton")
    assert_close(found, expected, atol=1e-5)
    local, _ = kernels.score_parts(head, images, texts, with_global=False)
    torch.testing.assert_close(local, found[0], rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [(1.0, 1.0), (4.0, 9.0), (30.0, 60.0)])
def test_smoothing_and_sharp_attention(make, smoothing):
    """Logits of hundreds: a softmax that took no care would overflow."""
    head, images, texts = make("parameter-free", smoothing=smoothing)
    expected = reference.score_parts(head, images, texts)
    found = kernels.score_parts(*cast(torch.float32, head, images, texts))
    assert_close(found, expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
def test_tiles_and_prepared_items_change_nothing(make, attention):
    """Prepared, five texts of all lengths make one tile of two blocks; else tiles of a pair."""
    head, images, texts = cast(torch.float32, *make(attention, heads=1, images=2, texts=5))
    pairs = kernels.score_parts(head, images, texts, memory=1)
    prepared = head.prepare_images(images), head.prepare_texts(texts)
    assert_close(head.score_parts(*prepared, backend="triton"), pairs, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("what", ["no words", "no regions", "zero words", "zero regions"])
def test_empty_and_zero_items_score_as_in_factored(make, attention, what):
    head, images, texts = cast(torch.float32, *make(attention, images=1 + ("regions" in what)))
    side = texts if "words" in what else images
    if what.startswith("no "):
        side.mask[0] = False
    else:
        (side.words if "words" in what else side.regions)[0] = 0
    found = kernels.score_parts(head, images, texts)
    assert all(part.isfinite().all() for part in found)
    assert_close(found, factored.score_parts(head, images, texts), atol=1e-5)


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
def test_half_precision_stays_close_and_comes_back_wide(make, attention, dtype, bf16):
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
@pytest.mark.parametrize("attention", KINDS)
def test_autocast_changes_no_local_score(make, attention, bf16):
    """Rankings do not depend on it: in bf16 equal and better neighbors would change places."""
    head, images, texts = cast(torch.float32, *make(attention))
    exact = kernels.score_parts(head, images, texts, with_global=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kernels.score_parts(head, images, texts, with_global=False)
    assert_close(found, exact, atol=0)


@pytest.mark.parametrize("wanted", ["parameters", "regions", "words", "prepared", "nothing"])
def test_what_wants_a_gradient_goes_through_factored(make, wanted, monkeypatch):
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


def test_refused_is_what_the_interpreter_cannot(make):
    drawn = make("parameter-free")
    reasons = {
        dtype: kernels.refusal(*cast(dtype, *drawn)[1:])
        for dtype in (*kernels.PER_THREAD, torch.float64)
    }
    assert reasons[torch.float32] is reasons[torch.float16] is None
    assert reasons[torch.bfloat16] == "Triton's interpreter multiplies no bf16"
    assert "features are torch.float64" in reasons[torch.float64]


@pytest.mark.parametrize(
    ("regions", "words", "dtype", "fits"),
    [
        (36, 32, torch.float32, True),
        (36, 33, torch.float32, False),
        (128, 64, torch.float16, True),
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
