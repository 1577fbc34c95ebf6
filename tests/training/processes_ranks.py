"""What one process of a test in test_processes.py does: gradients of every component, and runs."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn

from ascl_plugin import AsymmetryLoss, TripletLoss
from ascl_plugin.retrieval import evaluator as evaluation
from ascl_plugin.retrieval.balanced_scores import BALANCED, balanced_loss
from ascl_plugin.retrieval.encoders import GridEncoder
from ascl_plugin.retrieval.hard_pairs import HardPairs
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.shares import shares
from ascl_plugin.training import step as loop
from ascl_plugin.training.gradient_cache import CachedEncoding, average_gradients
from ascl_plugin.training.models import make_model
from ascl_plugin.training.nonfinite import BadBatches

PAIRS = 7  # 3 + 4 of two processes, 2 + 2 + 3 of three
CAPTIONS = ["a", "the b", "c", "a b c d e", "c a d", "d d", "e a b b"]
POSITIVES = ["b", "a c b", "d", "c a e e", "a d", "e e e e e e", "b"]
OWNERS = [0, 0, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6]  # image of each text, of several an image
# what differs from: projected attention, noise of one kind, positives, encoders that train.
COMPONENTS = {
    "nll": {},
    "ratio": {"loss": AsymmetryLoss(0.1, form="ratio")},
    "own": {"loss": AsymmetryLoss(0.1, negative_mode="own", violations="keep")},
    "pairwise": {"loss": AsymmetryLoss(0.1, negative_mode="pairwise", focal=2.0)},
    "triplet": {"loss": TripletLoss()},
    "parameter-free": {"fusion": {"num_heads": 2, "attention": "parameter-free"}},
    "pooled": {"fusion": {"name": "pooled"}},
    "pooled image": {"fusion": {"name": "pooled", "image": "pooled"}},
    "late": {"align": True},
    "feature_cutoff": {"negatives": "feature_cutoff"},
    "token_cutoff": {"negatives": "token_cutoff"},
    "dropout": {"negatives": "dropout", "strength": 0.6},
    "shuffle": {"negatives": "shuffle"},
    "mixture": {"negatives": "mixture"},
    "insert": {"of": "inserted"},
    "captions alone": {"of": "captions"},
    "features of a cache": {"of": "cache"},
    "several captions": {"of": "several", "batches": 2},
    "balanced": {"of": "balanced"},
    "balanced, hard pairs": {
        "of": "balanced",
        "hard_pairs": HardPairs(1, 1),
        "fusion": {"num_heads": 2, "global_score": "plain"},
    },
    "accumulated": {"batches": 2},
    "in parts": {"batches": 2, "chunk": 2},
}
RECIPE = Path(__file__).parents[2] / "recipes" / "ascl_coco.py"
# 2 epochs of 4 batches of 7 pairs, 2 steps each; the first by late interaction
OPTIONS = [
    "--scenes_train=16", "--scenes_val=5", "--scenes_test=5", "--epochs=2", "--batch_size=7",
    "--captions_per_epoch=2", "--gradient_accumulation_steps=2", "--dim=16",
    "--image_encoder.grid=3",
    "--image_encoder.width=16", "--text_encoder.width=16", "--save_every=3", "--log_every=1",
    "--align_epochs=1", "--eval_every=2", "--wise_ft_alpha=0.7", "--balanced_pairs=4",
    "--negatives=gaussian", "--cpu=True", "--num_threads=1", "--log_with=none",
]  # fmt: skip


class SeveralCaptions(nn.Module):
    """Both sides of InfoNCE with several right texts an image, of all blocks; negatives beside."""

    def forward(
        self, sim, negative_sim=None, positive_sim=None, positive_negative_sim=None, *, targets
    ):
        texts = torch.arange(sim.shape[1])
        right = torch.zeros(sim.shape).index_put((targets, texts), torch.tensor(1.0))
        total = torch.zeros(())
        for own, negatives in ((sim, negative_sim), (positive_sim, positive_negative_sim)):
            if own is None:
                continue
            every = own if negatives is None else torch.cat([own, negatives], 1)
            of_images = every.div(0.1).log_softmax(1)[:, : len(texts)]
            of_texts = own.div(0.1).log_softmax(0)
            total = total - (of_images * right / right.sum(1, keepdim=True)).sum() / len(sim)
            total = total - of_texts[targets, texts].mean()
        return total


class Normed(GridEncoder):
    """Its running means are each process's own during a step."""

    def __init__(self, width, grid):
        super().__init__(width, grid)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, pixel_values):
        return super().forward(self.norm(pixel_values))


def make(fusion, dtype=torch.float32, **words):
    """A small model and no chance: every process has the same."""
    torch.manual_seed(0)
    words = {"name": "transformer", "vocabulary": list("abcde"), "width": 8, **words}
    images = {"name": "grid", "width": 8, "grid": 2}
    return RetrievalModel(images, words, fusion, dim=8).to(dtype)


def whole_batch(model, of, number):
    """All pairs of a batch: pixels and tokens, or what a cache holds; noise seeds or texts."""
    torch.manual_seed(number + 1)
    dtype = next(model.parameters()).dtype
    if of == "cache":
        lengths = torch.randint(1, 6, (PAIRS, 1))
        words = {
            "words": torch.randn(PAIRS, 5, 8, dtype=dtype),
            "word_mask": torch.arange(5) < lengths,
        }
        regions = torch.arange(4) < torch.randint(1, 5, (PAIRS, 1))
        batch = {"regions": torch.randn(PAIRS, 4, 8, dtype=dtype), "region_mask": regions, **words}
        batch |= {"pooled": torch.randn(PAIRS, 8, dtype=dtype)}
        batch |= {f"positive_{k}": v.flip(0) for k, v in words.items()}
        return batch | {"noise_seed": torch.arange(PAIRS)}
    texts = {"": CAPTIONS, "positive_": POSITIVES}
    if of == "several":
        texts = {p: (t + t)[: len(OWNERS)] for p, t in texts.items()}
    if of == "inserted":
        texts |= {"negative_": [f"{text} e d" for text in CAPTIONS]}
        texts |= {"positive_negative_": [f"d {text}" for text in POSITIVES]}
    batch = {"pixel_values": torch.rand(PAIRS, 3, 32, 32, dtype=dtype) * 2 - 1}
    for prefix in [""] if of == "captions" else texts:
        tokens = model.text_encoder.tokenize(texts[prefix])
        batch |= {f"{prefix}{k}": v.roll(number, 0) for k, v in tokens.items()}
    if of == "several":
        batch["image_of_text"] = torch.tensor(OWNERS)
    if of == "balanced":  # images 0 and 1, 2 and 3, ..., and a text of each
        batch |= {f"balanced_{key}": value.flip(0) for key, value in batch.items()}
    if of in ("pixels", "several"):
        count = PAIRS if of == "pixels" else len(OWNERS)
        batch |= {p + "noise_seed": torch.randint(999, (count,)) for p in ("", "positive_")}
    return batch


def own_part(batch):
    """This process's pairs; their texts no longer than the longest of them."""
    own = shares("split", PAIRS, torch.device("cpu")).own
    paired = shares("split", PAIRS // 2, torch.device("cpu")).own
    paired = slice(2 * paired.start, 2 * paired.stop)
    part = {
        name: value[paired if name.startswith(BALANCED) else own] for name, value in batch.items()
    }
    if "image_of_text" in batch:
        owners = batch["image_of_text"]
        texts = (owners >= own.start) & (owners < own.stop)
        part = {k: part[k] if k == "pixel_values" else v[texts] for k, v in batch.items()}
        part["image_of_text"] = part["image_of_text"] - own.start
    for mask in [name for name in part if name.endswith(("attention_mask", "word_mask"))]:
        longest = int(part[mask].sum(1).max())
        values = mask.replace("attention_mask", "input_ids").replace("word_mask", "words")
        part |= {name: part[name][:, :longest] for name in (mask, values)}
    return part


def gradients(
    fusion=None, loss=None, of="pixels", batches=1, chunk=0, negatives="gaussian", model=None,
    **options,
):  # fmt: skip
    """Losses, score blocks and averaged gradients; what was sent and scored on the way."""
    loss = loss or (SeveralCaptions() if of == "several" else AsymmetryLoss(0.1))
    model = model or make(fusion or {"num_heads": 2})
    model.zero_grad()
    ranks = dist.is_initialized()
    wrapped = model
    if ranks:
        wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    sent, scored, found = [], [], {}
    model.fusion.register_forward_hook(
        lambda _, pair, out: scored.append([len(pair[0].regions), len(pair[1].words)])
    )
    plain = dist.all_gather

    def counting(parts, local):
        sent.append([*local.shape, local.element_size()])
        plain(parts, local)

    dist.all_gather = counting
    try:
        for number in range(batches):
            batch = own_part(whole_batch(model, of, number))
            last = number == batches - 1
            with wrapped.no_sync() if ranks and not last else nullcontext():
                if chunk:
                    cached = CachedEncoding(model, batch, chunk, nullcontext)
                    blocks = model.score_blocks(
                        cached.images, cached.texts, batch, negatives, **options
                    )
                else:
                    blocks = wrapped(batch, negatives, **options)
                pairs, hard = blocks.pop("balanced_sim", None), blocks.pop("hard_sim", None)
                value = loss(**blocks) / batches
                if pairs is not None:
                    value = value + balanced_loss(pairs, 0.1)
                if hard is not None:
                    value = value + loss(hard)
                value.backward()
                if chunk:
                    cached.carry_on()
            found |= {f"{k} {number}": v.detach() for k, v in blocks.items()}
            found[f"loss {number}"] = value.detach()
    finally:
        dist.all_gather = plain
    if chunk:
        average_gradients(model)
    grads = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    return {"values": found, "gradients": grads, "sent": sent, "scored": scored}


def run(folder, *more, stop_at=None, kill_at=None):
    """The recipe in doubles, until SIGTERM or a death in a batch (from 0), if any.

    Returns:
        Exit status, and all that each batch holds of this process's pairs.
    """
    main = runpy.run_module("ascl_plugin.training.recipe")["main"]  # of its own
    # rounding differs with the number of processes, and Adam blows up what is near zero
    main.__globals__["make_model"] = lambda *options: make_model(*options).double()
    plain, seen = loop.to_inputs, []

    def to_inputs(batch, device):
        wide = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
        return plain(wide, device)

    def recorded(batch, device):
        if len(seen) == kill_at:
            raise OSError("died")
        if len(seen) == stop_at and int(os.environ.get("RANK", "0")) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(summary(batch))
        return to_inputs(batch, device)

    end, Accelerator.end_training = Accelerator.end_training, lambda self: None  # more runs follow
    loop.to_inputs, evaluation.to_inputs = recorded, to_inputs
    try:
        return main([*OPTIONS, f"--output_dir={folder}", *more]), seen
    finally:
        loop.to_inputs = evaluation.to_inputs = plain
        Accelerator.end_training = end


def judged(folder):
    """Sums of the running means that each validation and test of a run was scored with."""
    plain, seen = evaluation.Evaluator.score, []

    def score(evaluator, *arguments):
        seen.append([x.sum().item() for x in evaluator.model.buffers()])
        return plain(evaluator, *arguments)

    evaluation.Evaluator.score = score
    try:
        found = run(folder, "--image_encoder=processes_ranks:Normed", "--captions_per_epoch=1")
        return found[0], seen
    finally:
        evaluation.Evaluator.score = plain


def summary(batch):
    """A line for each pair: row, caption, its tokens, the positive's, seeds, sum of its pixels."""
    columns = [batch["row"].tolist(), batch["caption_index"].tolist()]
    for prefix in ("", "positive_"):
        if f"{prefix}input_ids" in batch:
            ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
            columns.append([row[real].tolist() for row, real in zip(ids, mask, strict=True)])
        if f"{prefix}noise_seed" in batch:
            columns.append(batch[f"{prefix}noise_seed"].tolist())
    columns.append(batch["pixel_values"].sum((1, 2, 3)).tolist())
    return [list(line) for line in zip(*columns, strict=True)]


def bad_steps(rank):
    """Only rank 1's losses are bad, at steps 2 and 4; one may be."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(nn.Linear(2, 2))
    bad = BadBatches(
        accelerator, model.module, lambda rows: [f"image {row}" for row in rows], 1, print
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    found = {"error": ""}
    for step in range(1, 5):
        bad.begin()
        loss = model(torch.ones(2, 2) * (rank + 1)).sum()
        try:
            kept = bad.all_finite(not (rank and step % 2 == 0), "loss is nan", step, [rank])
        except FloatingPointError as error:
            found["error"] = str(error)
            break
        if kept:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return found | {"steps": bad.steps, "weight": model.module.weight.detach()}


def one_process(rank, out, world):
    """One of two or three; what it found goes into a file, its runs into folders beside it."""
    dist.init_process_group("gloo", init_method=os.environ["INIT_METHOD"])
    bad = bad_steps(rank)
    runs = {"alone": run(out / f"alone-{world}")}
    if world == 2:
        runs["2-2, first"] = run(out / "2-2", stop_at=4)
        runs["2-2, then"] = run(out / "2-2", "--resume", "--num_workers=2")
        runs["2-1, first"] = run(out / "2-1", stop_at=0)
        run(out / "parts-2", "--cached_chunk=2", "--balanced_pairs=0")
        runs["batch norm"] = judged(out / "norm")
    else:
        runs["1-3, then"] = run(out / "1-3", "--resume", "--num_workers=2")
    found = {name: gradients(**options) for name, options in COMPONENTS.items()}
    torch.save({"components": found, "runs": runs, "bad": bad}, out / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), Path(sys.argv[1]), int(os.environ["WORLD_SIZE"]))
