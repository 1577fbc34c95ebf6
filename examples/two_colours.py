"""Made data of the loss examples: pictures of two colours, texts about them, and a small model."""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor, nn

COLOURS = {
    "red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0),
    "cyan": (0, 1, 1), "pink": (1, 0, 1), "white": (1, 1, 1), "black": (0, 0, 0),
}  # fmt: skip
WORDS = ["[PAD]", "[START]", "[END]", "a", "left", "of", "right", "and", ".", *COLOURS]


def rows() -> list[dict]:
    """Return 56 rows: a picture (3, 32, 32) of two colours side by side, and three captions."""
    made = []
    for number, (left, right) in enumerate(permutations(COLOURS, 2)):
        sides = torch.tensor([COLOURS[left], COLOURS[right]], dtype=torch.float).T
        made.append(
            {
                "row": number,
                "picture": sides[:, None, :].repeat_interleave(16, 2).expand(3, 32, 32),
                "captions": [f"{left} left of {right}", f"{right} right of {left}", f"a {left}"],
            }
        )
    return made


def batches(size: int = 28):
    """Yield rows without end, in a new order each epoch; each row holds its epoch."""
    data, epoch = rows(), 0
    while True:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch)).tolist()
        for start in range(0, len(data), size):
            yield [{**data[i], "epoch": epoch} for i in order[start : start + size]]
        epoch += 1


def pictures(rows: list[dict]) -> dict[str, Tensor]:
    """Return the images of rows as a batch, for the collator."""
    return {"pixel_values": torch.stack([row["picture"] for row in rows])}


def tokenize(texts: list[str]) -> dict[str, Tensor]:
    """Return token ids between a start and an end, padded to the longest."""
    ids = [[1, *(WORDS.index(w) for w in text.split()), 2] for text in texts]
    input_ids = torch.zeros(len(ids), max(map(len, ids)), dtype=torch.long)
    for row, numbers in enumerate(ids):
        input_ids[row, : len(numbers)] = torch.tensor(numbers)
    return {"input_ids": input_ids, "attention_mask": (input_ids > 0).long()}


class DualEncoder(nn.Module):
    """A small dual encoder: unit vectors of pictures, features of words."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            nn.Conv2d(3, width, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, width)
        )
        self.embedding = nn.Embedding(len(WORDS), width, padding_idx=0)
        self.context = nn.GRU(width, width, batch_first=True)

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, width)."""
        return nn.functional.normalize(self.picture(pixel_values), dim=-1)

    def words(self, input_ids: Tensor) -> Tensor:
        """(N, L) -> (N, L, width)."""
        return self.context(self.embedding(input_ids))[0]

    def pool(self, words: Tensor, mask: Tensor) -> Tensor:
        """Words (N, L, width) -> the unit vector of each text (N, width)."""
        return nn.functional.normalize((words * mask[..., None]).sum(1), dim=-1)

    def encode_text(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """(N, L) -> (N, width)."""
        return self.pool(self.words(input_ids), mask)
