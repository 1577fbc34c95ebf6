"""Candidates and exact scores on two machines: bytes sent and seconds of each step, a dry run.

    python benchmarks/two_machines.py --texts 1000      # two processes of one machine
    python benchmarks/two_machines.py --rank 0 --address HOST:PORT     # one process on each machine
    python benchmarks/two_machines.py --rank 1 --address HOST:PORT

Each machine holds its half of the images and texts, as vectors and as regions and words (made data:
a text is its image with noise), and talks to the other over gloo. Steps, each collective:

    index       a faiss shard of the machine's own texts
    candidates  vectors of all images go to the other machine, which answers with the best of its
                texts; each image keeps the best of both
    words       the words of candidates that the other machine holds are asked for and sent
    exact       each machine scores its own images with their candidates

"Sent" is the payload of the tensors that a machine gives to gloo for the other. The lists are
checked against one process that holds everything. Needs faiss.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from ascl_plugin import CrossModalFusion, ImageFeatures, TextFeatures
from ascl_plugin.scoring.pairs import score_pairs
from ascl_plugin.scoring.search import image_embeddings, text_embeddings
from ascl_plugin.scoring.topk import best_of_pairs
from ascl_plugin.scoring.vector_index import make_index


class Link:
    """The connection to the other machine; counts the bytes sent through it."""

    def __init__(self, rank: int) -> None:
        self.rank, self.sent = rank, 0
        self.steps: list[tuple[str, float, int]] = []

    def swap(self, mine: Tensor) -> Tensor:
        """Send a tensor and return the other machine's, of any length. Collective."""
        length = torch.tensor([len(mine)])
        theirs = torch.empty_like(length)
        self._swap(length, theirs)
        result = mine.new_empty(int(theirs), *mine.shape[1:])
        self._swap(mine.contiguous(), result)
        return result

    def _swap(self, mine: Tensor, theirs: Tensor) -> None:
        waits = [dist.isend(mine, 1 - self.rank), dist.irecv(theirs, 1 - self.rank)]
        for wait in waits:
            wait.wait()
        self.sent += mine.nbytes

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step and count its bytes."""
        dist.barrier()
        start, before = time.perf_counter(), self.sent
        yield
        self.steps.append((name, time.perf_counter() - start, self.sent - before))


def data(args: argparse.Namespace) -> tuple[ImageFeatures, TextFeatures]:
    """Draw all images and texts; a machine keeps its half."""
    g = torch.Generator().manual_seed(0)
    topics = torch.randn(args.images, 1, args.dim, generator=g)
    regions = topics + torch.randn(args.images, args.regions, args.dim, generator=g)
    owner = torch.arange(args.texts) * args.images // args.texts
    words = topics[owner] + torch.randn(args.texts, args.words, args.dim, generator=g)
    return ImageFeatures(regions, None, regions.mean(1)), TextFeatures(words)


def share(count: int, rank: int) -> slice:
    """Return the half of a machine."""
    return slice(rank * (count // 2), count if rank else count // 2)


def scorer(args: argparse.Namespace) -> CrossModalFusion:
    """Return the exact scorer, with the same weights on both machines."""
    torch.manual_seed(0)
    return CrossModalFusion(args.dim, args.heads, attention="parameter-free").requires_grad_(False)


def best_texts(link: Link, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return the best texts of this machine's images and their exact scores, (I / 2, topk)."""
    images, texts = data(args)
    held = share(args.texts, link.rank)
    images, texts = images[share(args.images, link.rank)], texts[held]
    v, w = image_embeddings(images), text_embeddings(texts)
    other = share(args.texts, 1 - link.rank)
    with link.step("index"):
        index = make_index(w, args.index, "")
    with link.step("candidates"):
        asked = torch.cat([v, link.swap(v)])
        near, ids = (torch.from_numpy(x) for x in index.search(asked.numpy(), args.candidates))
        ids = ids + held.start
        near = torch.cat([near[: len(v)], link.swap(near[len(v) :])], 1)
        ids = torch.cat([ids[: len(v)], link.swap(ids[len(v) :])], 1)
        ids = ids.gather(1, near.topk(args.candidates, dim=1).indices)
    with link.step("words"):
        elsewhere = ids[(ids >= other.start) & (ids < other.stop)].unique()
        wanted = link.swap(elsewhere)
        fetched = link.swap(texts.words[wanted - held.start])
    with link.step("exact"):
        local = torch.arange(held.start, held.stop)
        place = torch.empty(args.texts, dtype=torch.int64)
        place[local], place[elsewhere] = (
            local - held.start,
            len(local) + torch.arange(len(elsewhere)),
        )
        every = TextFeatures(torch.cat([texts.words, fetched]))
        rows = torch.arange(len(ids)).repeat_interleave(ids.shape[1])
        scores = score_pairs(scorer(args), images, every, rows, place[ids.flatten()])
        return best_of_pairs(rows, ids.flatten(), scores, len(ids), args.topk)


def alone(args: argparse.Namespace) -> Tensor:
    """Return the best texts of all images, found by one process."""
    images, texts = data(args)
    index = make_index(text_embeddings(texts), args.index, "")
    _, found = index.search(image_embeddings(images).numpy(), args.candidates)
    ids = torch.from_numpy(found)
    rows = torch.arange(len(ids)).repeat_interleave(ids.shape[1])
    scores = score_pairs(scorer(args), images, texts, rows, ids.flatten())
    return best_of_pairs(rows, ids.flatten(), scores, len(ids), args.topk)[0]


def machine(rank: int, args: argparse.Namespace) -> None:
    """Do one machine's part; rank 0 prints the table."""
    torch.set_num_threads(args.threads)
    host, _, port = args.address.rpartition(":")
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    link = Link(rank)
    ids, _ = best_texts(link, args)
    with link.step("check"):
        found = torch.cat([ids, link.swap(ids)]) if rank == 0 else link.swap(ids)
    if rank == 0:
        print("| step | seconds | MB sent by this machine |\n|---|---:|---:|")
        for name, seconds, sent in link.steps[:-1]:
            print(f"| {name} | {seconds:.2f} | {sent / 1e6:.2f} |")
        same = (found == alone(args)).float().mean()
        print(f"\n{100 * same:.2f} % of the places hold the text that one process finds")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Start both processes, or this machine's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"images": 1000, "texts": 1000, "regions": 36, "words": 14, "dim": 1024, "heads": 8}
    for name, default in (sizes | {"candidates": 20, "topk": 10, "threads": 1}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--index", default="Flat", help="faiss factory string of a shard")
    parser.add_argument("--rank", type=int, choices=(0, 1))
    parser.add_argument("--address", metavar="HOST:PORT", help="of rank 0")
    args = parser.parse_args()
    if args.address is None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            args.address = f"127.0.0.1:{free.getsockname()[1]}"
    if args.rank is None:
        mp.spawn(machine, (args,), nprocs=2)
    else:
        machine(args.rank, args)


if __name__ == "__main__":
    main()
