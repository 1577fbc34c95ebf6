"""The collator: what is drawn is a function of (seed, epoch, row, caption) and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ascl_plugin.asymmetry import AsymmetryCollator

ALPHABET = "abcdefgh"


def tokenize(texts):
    """Letters and stops as numbers, 0 for padding: enough to read a batch back."""
    rows = [[ord(c) for c in text] for text in texts]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, codes in enumerate(rows):
        ids[row, : len(codes)] = torch.tensor(codes)
    return {"input_ids": ids, "attention_mask": ids != 0}


def read(ids):
    return ["".join(chr(c) for c in row if c) for row in ids.tolist()]


def captions(row):
    """3, 4, 5, 3, ... captions of four words each, no two alike in the whole set."""
    return [f"{ALPHABET[row]}{n} w{n} x{n} y{n}" for n in range(3 + row % 3)]


def rows(epoch=0):
    return [{"captions": captions(r), "row": r, "epoch": epoch} for r in range(8)]


def by_row(*batches):
    """Everything drawn for each row, whatever batch it was in."""
    return {
        int(row): (
            read(batch["input_ids"])[n],
            read(batch["positive_input_ids"])[n],
            int(batch["noise_seed"][n]),
            int(batch["positive_noise_seed"][n]),
            int(batch["caption_index"][n]),
        )
        for batch in batches
        for n, row in enumerate(batch["row"])
    }


class Rows(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return rows()[index]


def test_a_batch_holds_captions_positives_and_seeds():
    batch = AsymmetryCollator(tokenize)(rows()[:3])
    assert set(batch) == {
        "input_ids", "attention_mask", "positive_input_ids", "positive_attention_mask",
        "row", "caption_index", "noise_seed", "positive_noise_seed",
    }  # fmt: skip
    for row, (caption, positive, *_) in by_row(batch).items():
        assert caption in captions(row)
        joined = {f"{a} . {b}" for a in captions(row) for b in captions(row) if a != b}
        assert positive in joined | {" ".join(caption.split()[:2])}
    assert batch["noise_seed"].dtype == batch["row"].dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_in_any_batch_for_any_number_of_workers(workers):
    collator = AsymmetryCollator(tokenize)
    loader = DataLoader(Rows(), batch_size=3, collate_fn=collator, num_workers=workers)
    expected = by_row(collator(rows()[::-1]))
    torch.manual_seed(99)
    assert by_row(*loader) == expected and len(expected) == 8


def test_epochs_seeds_rows_and_captions_draw_their_own():
    collator = AsymmetryCollator(tokenize)
    drawn = [
        by_row(collator(rows(0))),
        by_row(collator(rows(1))),
        by_row(AsymmetryCollator(tokenize, seed=1)(rows(0))),
    ]
    noise = [found[row][2:4] for found in drawn for row in found]
    noise = [seed for pair in noise for seed in pair]
    assert len(set(noise)) == len(noise) == 48
    assert drawn[0] != drawn[1] != drawn[2]
    fixed = [{**rows()[2], "caption_index": n} for n in range(5)]
    seeds = collator(fixed)["noise_seed"].tolist()
    assert len(set(seeds)) == 5


def test_the_caption_is_drawn_unless_the_row_says_which():
    collator = AsymmetryCollator(tokenize)
    drawn = {
        collator.draw({"captions": captions(2), "row": 2, "epoch": e})["caption_index"]
        for e in range(60)
    }
    assert drawn == {0, 1, 2, 3, 4}
    batch = collator([{**row, "caption_index": 1} for row in rows()])
    assert read(batch["input_ids"]) == [captions(r)[1] for r in range(8)]


def test_several_captions_of_an_image():
    """Row 0 has three captions, rows 1 and 2 four and five: of at most four each, 3 + 4 + 4 texts.

    Each text's positive and seeds are those that it gets alone.
    """
    collator = AsymmetryCollator(
        tokenize, lambda rows: {"place": torch.tensor([r["row"] for r in rows])},
        captions_per_image=4,
    )  # fmt: skip
    batch = collator(rows()[:3])
    assert batch["row"].tolist() == batch["place"].tolist() == [0, 1, 2]
    owners = batch["image_of_text"].tolist()
    assert owners == [0] * 3 + [1] * 4 + [2] * 4
    chosen = batch["caption_index"].tolist()
    assert len(set(zip(owners, chosen, strict=True))) == 11
    texts = read(batch["input_ids"])
    assert texts == [captions(r)[c] for r, c in zip(owners, chosen, strict=True)]
    alone = AsymmetryCollator(tokenize)(
        [{**rows()[r], "caption_index": c} for r, c in zip(owners, chosen, strict=True)]
    )
    for name in ("positive_input_ids", "noise_seed", "positive_noise_seed"):
        assert torch.equal(batch[name], alone[name])
    given = collator([{**row, "caption_index": [2, 0]} for row in rows()[:2]])
    assert given["caption_index"].tolist() == [2, 0, 2, 0]
    with pytest.raises(ValueError, match="captions_per_image must be at least 1, got 0"):
        AsymmetryCollator(tokenize, captions_per_image=0)


def test_joined_captions_are_others_of_the_image():
    """Each caption of an image has one partner and is one; a caption alone is its own."""
    collator = AsymmetryCollator(
        tokenize, positives="join", negatives="gaussian", captions_per_image=4
    )
    given = [*rows()[:3], {"captions": ["alone"], "row": 8}]
    batch = collator(given)
    partner, owner = batch["partner"], batch["image_of_text"]
    assert partner.sort().values.tolist() == list(range(12)) and partner[11] == 11
    assert torch.equal(owner[partner], owner)
    assert (partner != torch.arange(12))[:11].all()
    assert len(batch["positive_noise_seed"]) == 12 and "positive_input_ids" not in batch
    again, later = collator(given), collator([{**row, "epoch": 1} for row in given])
    assert torch.equal(partner, again["partner"]) and not torch.equal(partner, later["partner"])
    assert "partner" not in collator.without_generated()(given)
    with pytest.raises(ValueError, match="captions_per_image of at least 2"):
        AsymmetryCollator(tokenize, positives="join")


def test_half_of_the_images_are_mirrored_and_others_in_another_epoch():
    def views(rows):
        return {"mirrored": torch.tensor([row.get("mirrored", False) for row in rows])}

    plain, mirrored = (
        AsymmetryCollator(tokenize, views, mirror_views=mirror) for mirror in (False, True)
    )
    assert not plain(rows())["mirrored"].any()
    drawn = torch.stack([mirrored(rows(epoch))["mirrored"] for epoch in range(100)])
    assert torch.equal(mirrored(rows(7)[::-1])["mirrored"].flip(0), drawn[7])
    # 800 draws: 400 expected, deviation 14; of each row 50, deviation 5
    assert abs(drawn.sum() - 400) < 70 and ((drawn.sum(0) - 50).abs() < 25).all()


def test_switching_one_strategy_off_leaves_the_others_as_they_were():
    whole = AsymmetryCollator(tokenize)(rows())
    no_positives = AsymmetryCollator(tokenize, positives="none")(rows())
    assert set(no_positives) == {
        "input_ids", "attention_mask", "row", "caption_index", "noise_seed"
    }  # fmt: skip
    no_negatives = AsymmetryCollator(tokenize, negatives="none")(rows())
    assert set(no_negatives) == {k for k in whole if "noise_seed" not in k}
    neither = AsymmetryCollator(tokenize, positives="none", negatives="none")(rows())
    assert set(neither) == {"input_ids", "attention_mask", "row", "caption_index"}
    for batch in (no_positives, no_negatives, neither):
        for key, value in batch.items():
            assert torch.equal(value, whole[key])


def test_generated_texts_come_again_and_noises_do_not():
    def drawn(epoch, text_draws):
        fixed = [{**row, "caption_index": 1} for row in rows(epoch)]
        return AsymmetryCollator(tokenize, text_draws=text_draws)(fixed)

    def texts(batch):
        return read(batch["positive_input_ids"])

    first, second, third = (drawn(epoch, 2) for epoch in range(3))
    assert texts(first) == texts(third) != texts(second)
    assert texts(first) == texts(drawn(0, 0)) and texts(drawn(2, 0)) != texts(third)
    assert not set(first["noise_seed"].tolist()) & set(third["noise_seed"].tolist())
    assert torch.equal(third["noise_seed"], drawn(2, 0)["noise_seed"])
    with pytest.raises(ValueError, match="text_draws must be 0 or more, got -1"):
        AsymmetryCollator(tokenize, text_draws=-1)


def test_images_are_read_from_the_rows():
    collator = AsymmetryCollator(
        tokenize, lambda rows: {"pixel_values": torch.tensor([r["colour"] for r in rows])}
    )
    batch = collator([{**row, "colour": row["row"] * 2.0} for row in rows()])
    assert batch["pixel_values"].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


def test_a_row_that_says_nothing_of_itself_is_its_place():
    batch = AsymmetryCollator(tokenize)([{"captions": ["one"]}, {"captions": ["two", "three"]}])
    assert batch["row"].tolist() == [0, 1] and read(batch["input_ids"])[0] == "one"


@pytest.mark.parametrize("wrong", [[], ["a b", "  "], [""]])
def test_captions_that_are_empty_name_the_row_and_the_image(wrong):
    with pytest.raises(ValueError, match=r"row 7 \(image 391895\) has no captions or an empty one"):
        AsymmetryCollator(tokenize)([{"captions": wrong, "row": 7, "image_id": "391895"}])


def test_strategies_that_there_are_not_are_refused():
    with pytest.raises(
        ValueError, match=r"positives must be one of .*mixed_text, none, got 'both'"
    ):
        AsymmetryCollator(tokenize, positives="both")
    with pytest.raises(ValueError, match=r"negatives must be one of gaussian, .* got 'noise'"):
        AsymmetryCollator(tokenize, negatives="noise")


# ---------------------------------------------------------------- without row and epoch


class Plain(Dataset):
    """64 images of five captions, as any data set has them."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return {"image_id": str(index), "captions": [f"{index} {n} w x" for n in range(5)]}


def drawn_in(epochs, collator, workers=0, shuffle=False, before=lambda epoch: None):
    """[(caption, noise seed)] of each epoch."""
    loader = DataLoader(
        Plain(), 16, shuffle, collate_fn=collator, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    found = []
    for epoch in range(epochs):
        before(epoch)
        found.append(
            [
                pair
                for batch in loader
                for pair in zip(read(batch["input_ids"]), batch["noise_seed"].tolist(), strict=True)
            ]
        )
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_without_an_epoch_draws_come_from_torch(workers):
    """5 epochs of 64 pairs: 320 seeds, all distinct, and most images show several captions."""
    torch.manual_seed(3)
    found = drawn_in(5, AsymmetryCollator(tokenize), workers)
    seeds = [seed for epoch in found for _, seed in epoch]
    assert len(set(seeds)) == 320
    assert len({caption for epoch in found for caption, _ in epoch}) > 150  # 64 if none ever change
    torch.manual_seed(3)
    assert drawn_in(5, AsymmetryCollator(tokenize), workers) == found
    torch.manual_seed(4)
    assert drawn_in(5, AsymmetryCollator(tokenize), workers) != found


@pytest.mark.parametrize("workers", [0, 2])
def test_set_epoch_repeats_exactly_in_any_order(workers):
    def run(seed):
        torch.manual_seed(seed)
        collator = AsymmetryCollator(tokenize)
        return drawn_in(3, collator, workers, shuffle=True, before=collator.set_epoch)

    one, other = run(3), run(4)
    assert one != other  # another order
    assert [sorted(epoch) for epoch in one] == [sorted(epoch) for epoch in other]
    assert len({seed for epoch in one for _, seed in epoch}) == 192


def test_views_and_partners_without_an_epoch_differ_too():
    rows = [Plain()[n] for n in range(40)]
    collator = AsymmetryCollator(
        tokenize, lambda rows: {"mirrored": torch.tensor([r["mirrored"] for r in rows])}, "join",
        captions_per_image=3, mirror_views=True,
    )  # fmt: skip
    one, other = collator(rows), collator(rows)
    for key in ("mirrored", "partner", "caption_index"):
        assert not torch.equal(one[key], other[key])
