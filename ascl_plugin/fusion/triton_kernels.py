"""Local scores of a tile of pairs in one pass through a GPU's on-chip memory, in Triton.

A program takes one image and a few texts. Rows of its tile are the image's regions, columns the
words of its texts side by side: `ROWS` and `TEXTS` x `WORDS`, padded to powers of two. The logits,
a matrix product, stay on chip; so do both softmaxes and the quadratic forms a^T G a, which are
matrix products too (Gram matrices of texts side by side are blocks on a diagonal). Only scores and,
for the global score, mean attention leave the chip.

Parameter-free attention: one tile of logits a head serves both directions. Heads are orthogonal, so
each is finished before the next begins.

Projected attention: each direction has its own logits, and its Gram matrix couples all pairs of
heads, whose weights together exceed the registers. A program writes each head's weights to its own
scratch and reads them back beside every later head: with a symmetric Gram matrix that is
H (H + 1) / 2 small products. Only as many programs start as run at once, each with many tiles, so
that all scratches together fit the second-level cache.

Sums are in fp32; logits are products in the dtype of the features. Beside bf16 features, weights
enter the quadratic forms as bf16; beside fp16 as TF32, since a Gram matrix may leave the range of
fp16. `triton_backend` imports this file when it needs it: it needs triton.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

from functools import partial

import triton
import triton.language as tl

from ascl_plugin.fusion.reference import EPS

INTERPRETED: bool = triton.knobs.runtime.interpret  # when the kernels below were made
FLOOR = tl.constexpr(EPS**2)
# Triton compiles a kernel anew for counts that are 1 or multiples of 16, and for addresses that are
# no multiples of 16, as slices of items have. A compilation takes seconds and these gain nothing.
COUNTS = ["I", "T", "K", "L"]
SLICES = ["region_norms", "word_norms", "region_shares", "word_shares"]
one_kernel = partial(triton.jit, do_not_specialize=COUNTS, do_not_specialize_on_alignment=SLICES)


@one_kernel()
def parameter_free(
    regions, words,  # (I, K, H, d), (T, L, H, d)
    region_gram, word_gram,  # (I, H, ROWS, ROWS), (T, H, WORDS, WORDS), zeros for no place
    region_norms, word_norms, region_shares, word_shares,  # (I, K), (T, L)
    local, over_words, over_regions,  # out: (I, T), (T, I, H L), (I, T, H K)
    I, T, K, L, to_words, to_regions, direction_weight,  # noqa: E741
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
    ROWS: tl.constexpr, TEXTS: tl.constexpr, WORDS: tl.constexpr,
    PRECISION: tl.constexpr, WITH_GLOBAL: tl.constexpr,
):  # fmt: skip
    """Score one image and TEXTS texts, both directions from one tile of logits a head."""
    image = (tl.program_id(0) % I).to(tl.int64)
    first = (tl.program_id(0) // I).to(tl.int64) * TEXTS
    k = tl.arange(0, ROWS)
    text = tl.arange(0, TEXTS * WORDS) // WORDS
    j = tl.arange(0, TEXTS * WORDS) % WORDS
    texts = tl.arange(0, TEXTS)
    written = (first + text < T) & (j < L)
    region_share = tl.load(region_shares + image * K + k, mask=k < K, other=0.0)
    word_share = tl.load(word_shares + first * L + text * L + j, mask=written, other=0.0)
    region_real, word_real = region_share > 0, word_share > 0

    v_at = regions + image * K * (HEADS * WIDTH) + k * (HEADS * WIDTH)
    w_at = words + first * L * (HEADS * WIDTH) + (text * L + j) * (HEADS * WIDTH)
    of_image = region_gram + image * (HEADS * ROWS * ROWS)
    of_texts = word_gram + first * (HEADS * WORDS * WORDS)
    dots_of_regions = tl.zeros((ROWS, TEXTS), tl.float32)
    norms_of_regions = tl.zeros((ROWS, TEXTS), tl.float32)
    dots_of_words = tl.zeros((TEXTS * WORDS,), tl.float32)
    norms_of_words = tl.zeros((TEXTS * WORDS,), tl.float32)
    for head in range(HEADS):
        products = tl.zeros((ROWS, TEXTS * WORDS), tl.float32)
        for start in range(0, WIDTH, CHUNK):
            v = _rows(v_at + head * WIDTH, region_real, start, WIDTH, CHUNK)
            w = _rows(w_at + head * WIDTH, word_real, start, WIDTH, CHUNK)
            products = tl.dot(v, tl.trans(w), products, input_precision=PRECISION)

        weights = _softmax_in_groups(products * to_words, word_real, TEXTS)
        gram = _on_diagonal(
            of_texts + head * (WORDS * WORDS), HEADS * WORDS * WORDS, T - first, TEXTS, WORDS
        )
        spread = tl.dot(weights.to(gram.dtype), gram, input_precision=PRECISION)
        dots_of_regions += _sum_in_groups(weights * products, TEXTS)
        norms_of_regions += _sum_in_groups(weights * spread, TEXTS)
        if WITH_GLOBAL:
            mean = tl.sum(weights * region_share[:, None], 0)
            at = over_words + (first * I + image) * (HEADS * L) + head * L
            tl.store(at + text * I * (HEADS * L) + j, mean, mask=written)

        logits = tl.where(region_real[:, None], products * to_regions, float("-inf"))
        weights = _softmax(logits, 0)
        gram = tl.load(of_image + head * (ROWS * ROWS) + k[:, None] * ROWS + k[None, :])
        spread = tl.dot(gram, weights.to(gram.dtype), input_precision=PRECISION)
        dots_of_words += tl.sum(weights * products, 0)
        norms_of_words += tl.sum(weights * spread, 0)
        if WITH_GLOBAL:
            mean = _sum_in_groups(weights * word_share[None, :], TEXTS)  # (ROWS, TEXTS)
            at = over_regions + (image * T + first) * (HEADS * K) + head * K
            tl.store(
                at + texts[None, :] * (HEADS * K) + k[:, None], mean,
                mask=(first + texts < T)[None, :] & (k < K)[:, None],
            )  # fmt: skip

    lengths = tl.load(region_norms + image * K + k, mask=k < K, other=0.0)
    cosines = _cosine(dots_of_regions, norms_of_regions, lengths[:, None])
    by_region = tl.sum(cosines * region_share[:, None], 0)
    lengths = tl.load(word_norms + first * L + text * L + j, mask=written, other=0.0)
    cosines = _cosine(dots_of_words, norms_of_words, lengths) * word_share
    by_word = tl.sum(tl.reshape(cosines, (TEXTS, WORDS)), 1)
    score = direction_weight * by_region + (1 - direction_weight) * by_word
    tl.store(local + image * T + first + texts, score, mask=first + texts < T)


@one_kernel()
def projected(
    region_queries, region_toward, region_keys,  # (I, K, H, d)
    word_queries, word_toward, word_keys,  # (T, L, H, d)
    region_gram, word_gram,  # (I, H, H, ROWS, ROWS), (T, H, H, WORDS, WORDS), zeros for no place
    region_norms, word_norms, region_shares, word_shares,  # (I, K), (T, L)
    local, over_words, over_regions,  # out: (I, T), (T, I, H L), (I, T, H K)
    scratch,  # (programs, H, ROWS TEXTS WORDS)
    I, T, K, L, direction_weight,  # noqa: E741
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
    ROWS: tl.constexpr, TEXTS: tl.constexpr, WORDS: tl.constexpr,
    PRECISION: tl.constexpr, WITH_GLOBAL: tl.constexpr,
):  # fmt: skip
    """Score one image and TEXTS texts at a time: regions attend to words, then words to regions."""
    k = tl.arange(0, ROWS)
    text = tl.arange(0, TEXTS * WORDS) // WORDS
    j = tl.arange(0, TEXTS * WORDS) % WORDS
    texts = tl.arange(0, TEXTS)
    kept = scratch + tl.program_id(0).to(tl.int64) * (HEADS * ROWS * TEXTS * WORDS)
    for tile in range(tl.program_id(0), I * tl.cdiv(T, TEXTS), tl.num_programs(0)):
        image, first = (tile % I).to(tl.int64), (tile // I).to(tl.int64) * TEXTS
        written = (first + text < T) & (j < L)
        region_share = tl.load(region_shares + image * K + k, mask=k < K, other=0.0)
        word_share = tl.load(word_shares + first * L + text * L + j, mask=written, other=0.0)
        v_at = image * K * (HEADS * WIDTH) + k * (HEADS * WIDTH)
        w_at = first * L * (HEADS * WIDTH) + (text * L + j) * (HEADS * WIDTH)

        means = over_words + (first * I + image) * (HEADS * L) + text * I * (HEADS * L) + j
        dots, norms = _attend(
            region_queries + v_at, region_toward + v_at, region_share,
            word_keys + w_at, word_share > 0,
            word_gram + first * (HEADS * HEADS * WORDS * WORDS), T - first, kept,
            means[None, :], L, written[None, :],
            1, TEXTS, HEADS, WIDTH, CHUNK, PRECISION, WITH_GLOBAL,
        )  # fmt: skip
        lengths = tl.load(region_norms + image * K + k, mask=k < K, other=0.0)
        cosines = _cosine(dots, norms, lengths[:, None])
        by_region = tl.sum(cosines * region_share[:, None], 0)

        means = over_regions + (image * T + first) * (HEADS * K) + texts[:, None] * (HEADS * K)
        dots, norms = _attend(
            word_queries + w_at, word_toward + w_at, word_share,
            region_keys + v_at, region_share > 0,
            region_gram + image * (HEADS * HEADS * ROWS * ROWS), 1, kept,
            means + k[None, :], K, (first + texts < T)[:, None] & (k < K)[None, :],
            TEXTS, 1, HEADS, WIDTH, CHUNK, PRECISION, WITH_GLOBAL,
        )  # fmt: skip
        lengths = tl.load(word_norms + first * L + text * L + j, mask=written, other=0.0)
        cosines = _cosine(dots, norms, lengths[:, None]) * word_share[:, None]
        by_word = tl.sum(tl.reshape(cosines, (TEXTS, WORDS)), 1)
        score = direction_weight * by_region + (1 - direction_weight) * by_word
        tl.store(local + image * T + first + texts, score, mask=first + texts < T)


@triton.jit
def _attend(
    queries, toward, share,  # (M,) pointers, pointers, numbers: rows ask, of ASKING items
    keys, real,  # (N,) columns answer, of ANSWERING items
    gram, items, kept,  # pointers to the first answering item's matrices, how many, to the scratch
    means, places, written,  # (ASKING, N) where mean attention goes, a head's step, whether at all
    ASKING: tl.constexpr, ANSWERING: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr, WITH_GLOBAL: tl.constexpr,
):  # fmt: skip
    """Return x . y* and |y*|^2 (M, ANSWERING) of rows x that attend to each answering item."""
    M: tl.constexpr = queries.shape[0]
    N: tl.constexpr = keys.shape[0]
    PLACES: tl.constexpr = N // ANSWERING
    BLOCK: tl.constexpr = PLACES * PLACES
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    dots = tl.zeros((M, ANSWERING), tl.float32)
    norms = tl.zeros((M, ANSWERING), tl.float32)
    for head in range(HEADS):
        logits = tl.zeros((M, N), tl.float32)
        values = tl.zeros((M, N), tl.float32)
        for start in range(0, WIDTH, CHUNK):
            y = tl.trans(_rows(keys + head * WIDTH, real, start, WIDTH, CHUNK))
            x = _rows(queries + head * WIDTH, share > 0, start, WIDTH, CHUNK)
            logits = tl.dot(x, y, logits, input_precision=PRECISION)
            x = _rows(toward + head * WIDTH, share > 0, start, WIDTH, CHUNK)
            values = tl.dot(x, y, values, input_precision=PRECISION)
        weights = _softmax_in_groups(logits, real, ANSWERING)
        dots += _sum_in_groups(weights * values, ANSWERING)
        if WITH_GLOBAL:
            mean = tl.reshape(weights * share[:, None], (ASKING, M // ASKING, N))
            tl.store(means + head * places, tl.sum(mean, 1), mask=written)

        # blocks of the Gram matrix whose columns are this head's
        column = gram + head * BLOCK
        step: tl.constexpr = HEADS * HEADS * BLOCK
        spread = tl.zeros((M, N), tl.float32)
        for earlier in range(head):
            other = tl.load(kept + earlier * (M * N) + at)
            block = _on_diagonal(column + earlier * HEADS * BLOCK, step, items, ANSWERING, PLACES)
            spread = tl.dot(other, block, spread, input_precision=PRECISION)
        block = _on_diagonal(column + head * HEADS * BLOCK, step, items, ANSWERING, PLACES)
        narrow = weights.to(block.dtype)
        spread = tl.dot(narrow, block, 2 * spread, input_precision=PRECISION)
        norms += _sum_in_groups(weights * spread, ANSWERING)
        # threads read what others wrote: from here on this head's, until here that of the direction
        # or tile before
        tl.debug_barrier()
        tl.store(kept + head * (M * N) + at, narrow)
        tl.debug_barrier()
    return dots, norms


@triton.jit
def _rows(at, real, start, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    """Load numbers start... of the slices at `at` (M,): (M, CHUNK), 0 where not real."""
    number = start + tl.arange(0, CHUNK)
    inside = real[:, None] & (number < WIDTH)[None, :]
    return tl.load(at[:, None] + number[None, :], mask=inside, other=0.0)


@triton.jit
def _on_diagonal(at, step, items, ITEMS: tl.constexpr, PLACES: tl.constexpr):
    """Load ITEMS matrices, `step` apart, as blocks on a diagonal; zeros from `items` on."""
    row = tl.arange(0, ITEMS * PLACES)
    item, place = row // PLACES, row % PLACES
    blocks = tl.load(
        at + (item * step + place * PLACES)[:, None] + tl.arange(0, PLACES)[None, :],
        mask=(item < items)[:, None], other=0.0,
    )  # fmt: skip
    if ITEMS == 1:
        return blocks
    else:
        own = item[:, None] == tl.arange(0, ITEMS)[None, :]
        wide = tl.where(own[:, :, None], blocks[:, None, :], 0.0)
        return tl.reshape(wide, (ITEMS * PLACES, ITEMS * PLACES)).to(blocks.dtype)


@triton.jit
def _softmax(logits, AXIS: tl.constexpr):
    """Return the softmax over an axis; zeros where all logits are -inf."""
    top = tl.max(logits, AXIS, keep_dims=True)
    weights = tl.exp(logits - tl.where(top == float("-inf"), 0.0, top))
    total = tl.sum(weights, AXIS, keep_dims=True)
    return weights * (1.0 / tl.where(total == 0.0, 1.0, total))


@triton.jit
def _softmax_in_groups(logits, real, GROUPS: tl.constexpr):
    """Return the softmax of (M, GROUPS n) over each n columns, of which some are real."""
    M: tl.constexpr = logits.shape[0]
    N: tl.constexpr = logits.shape[1]
    logits = tl.where(real[None, :], logits, float("-inf"))
    weights = _softmax(tl.reshape(logits, (M, GROUPS, N // GROUPS)), 2)
    return tl.reshape(weights, (M, N))


@triton.jit
def _sum_in_groups(x, GROUPS: tl.constexpr):
    """Sum (M, GROUPS n) to (M, GROUPS)."""
    return tl.sum(tl.reshape(x, (x.shape[0], GROUPS, x.shape[1] // GROUPS)), 2)


@triton.jit
def _cosine(dots, norms, lengths):
    return dots / tl.sqrt(tl.maximum(tl.maximum(norms, 0.0) * lengths, FLOOR))
