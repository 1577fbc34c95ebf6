"""The recipe: one run from options to a trained, tested and re-ranked model."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset

from ascl_plugin.asymmetry import AsymmetryCollator, TextEdits
from ascl_plugin.asymmetry.captions.text_edits import NEGATIVE_EDITS, POSITIVE_EDITS
from ascl_plugin.data.readers import caption_to_image
from ascl_plugin.disk import write_json
from ascl_plugin.metrics.result_row import SplitResults
from ascl_plugin.report.terminal import print_results
from ascl_plugin.retrieval.evaluator import Evaluator
from ascl_plugin.retrieval.inputs import ImageInputs, TextInputs, image_inputs
from ascl_plugin.retrieval.model import parameter_counts
from ascl_plugin.retrieval.views import MirroredRows
from ascl_plugin.scoring.matrix_file import write_matrix
from ascl_plugin.training.input_statistics import fit_input_norm
from ascl_plugin.training.model_card import write_card
from ascl_plugin.training.models import make_loss, make_model
from ascl_plugin.training.parsing import CONFIGS, parse_options
from ascl_plugin.training.resolve import Resolved, resolve
from ascl_plugin.training.setup import (
    freeze_wholes,
    load_splits,
    make_accelerator,
    occupied,
    refuse_finished,
    start_from,
    training_captions,
    with_dense,
)
from ascl_plugin.training.signals import end_with_launcher, lost_peer
from ascl_plugin.training.trainer import Trainer

HELP = """Trains an asymmetry-sensitive retrieval model, scores it, re-ranks.

    ascl train                                          # drawn scenes, no download
    ascl train --data_root DIR                          # a small model on DIR
    ascl train --data_root DIR --region_files FILES     # no pictures
    ascl train --data_root DIR --config coco_acf        # the papers' setup
    ascl train --train_stream 'shards/*.tar' --max_steps 100000
    ascl train --image_encoder timm_grid --image_encoder.model resnet18

DIR: COCO, Flickr30K, or most other layouts (docs/data.md). On several processes the same is
`accelerate launch -m ascl_plugin.training.recipe`, or in the sources `recipes/ascl_coco.py`.
"""


def main(argv: list[str] | None = None, name: str = "train") -> int:
    """Run the recipe and return the exit status.

    0: done. 130, 143: stopped by Ctrl-C or SIGTERM, as a shell counts signals. 2: an error, printed
    in one line (an image that does not decode, a missing split, a full disk, ...).
    """
    folder = "the folder"
    try:
        end_with_launcher()
        options = resolve(parse_options(argv, default_config(argv), HELP), name)
        folder = str(options.folder)
        refuse_finished(options.folder, options.train.resume)
        accelerator = make_accelerator(options)
        with occupied(accelerator, options):
            return run(options, accelerator)
    except KeyboardInterrupt:  # before the first step, or after the last, or the second Ctrl-C
        print("\nstopped; --resume goes on from the last checkpoint", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    except RuntimeError as error:
        if lost_peer(error):
            what = f"another process of the run has ended or hangs ({one_line(error)}). "
        elif "DataLoader worker" in str(error):
            what = f"{one_line(error)} Often it is memory: fewer --num_workers. "
        else:
            raise
        print(
            f"error: {what}The same options and --output_dir {folder} --resume "
            "go on from the last checkpoint",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return 2
    except (ValueError, KeyError, OSError, ImportError, FloatingPointError) as error:
        # on every rank: this may be the only one that met it
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        return 2


def default_config(argv: list[str] | None) -> Path:
    """Return the file of options without `--config`: of drawn scenes, or of given data."""
    flags = {word.partition("=")[0] for word in (sys.argv[1:] if argv is None else argv)}
    return CONFIGS / ("small.yaml" if flags & {"--data_root", "--train_stream"} else "scenes.yaml")


def run(options: Resolved, accelerator: Accelerator) -> int:
    """Train, validate, test and re-rank; return the exit status."""
    say, folder = accelerator.print, options.folder

    splits = load_splits(options)
    tables = {name: rows for name, rows in splits.items() if isinstance(rows, Dataset)}
    captions = training_captions(splits["train"])
    model = make_model(options, captions)
    start_from(model, options.train.start_from)
    if options.train.freeze_wholes:
        freeze_wholes(model)
    model.to(accelerator.device)
    trained, frozen = parameter_counts(model)
    say(f"run {folder}: " + ", ".join(f"{k} {len(v)} images" for k, v in tables.items()))
    if "train" not in tables:
        say(f"train: {splits['train']}; frozen encoders run on it each time, nothing of it is kept")
    say(f"parameters: {trained:,} trained, {frozen:,} frozen")
    say(f"processes: {accelerator.num_processes}, CPU threads each: {torch.get_num_threads()}")

    data, train, loss = options.data, options.train, options.loss
    cache = Path(data.cache_dir).expanduser()
    images = image_inputs(
        model.image_encoder, cache if data.cache_images else None, data.region_files,
        data.pooled_files, int(data.feature_memory * 2**30), model.wholes_only,
    )  # fmt: skip
    texts = TextInputs(
        model.text_encoder, cache if data.cache_texts else None, int(data.feature_memory * 2**30),
        model.lexical_ids, model.pool_words, not model.wholes_only,
    )  # fmt: skip
    splits["train"] = with_dense(splits["train"], data.dense_captions, texts)
    edits = None
    if loss.negatives in NEGATIVE_EDITS or loss.positives in POSITIVE_EDITS:
        edits = TextEdits(captions, progress=accelerator.is_main_process)
    del captions
    fed_texts, fed_images = texts, images
    if "train" not in tables:
        fed_texts = TextInputs(model.text_encoder, lexical=model.lexical_ids)
        if data.region_files is None:
            fed_images = ImageInputs(model.image_encoder, memory=0)
    collator = AsymmetryCollator(
        fed_texts, fed_images, loss.positives, loss.negatives, train.seed, edits,
        data.captions_per_image, data.mirror_views, loss.text_draws,
    )  # fmt: skip
    evaluator = Evaluator(
        model, images, texts, train.eval_batch_size, accelerator.is_main_process,
        train.average_views,
    )  # fmt: skip
    trainer = Trainer(
        accelerator, model, make_loss(loss.loss), collator, splits["train"], tables["val"],
        evaluator, options, folder,
    )  # fmt: skip

    if accelerator.is_main_process:
        every = [text for rows in tables.values() for text in caption_to_image(rows)[0]]
        if cut := texts.count_cut(every):
            say(f"texts: {cut:,} of {len(every):,} captions are longer than max_words and cut")
        for split, rows in tables.items():
            texts.say_unknown(caption_to_image(rows)[0], split, say)
    sharing = {
        "rank": accelerator.process_index,
        "world_size": accelerator.num_processes,
        "progress": accelerator.is_main_process,
    }
    for split, rows in tables.items():
        images.prepare(rows, train.eval_batch_size, **sharing)
        if data.mirror_views if split == "train" else train.average_views:
            images.prepare(MirroredRows(rows), train.eval_batch_size, **sharing)
    evaluated = [t for k, rows in tables.items() if k != "train" for t in evaluator.texts_of(rows)]
    if texts.store is not None:
        texts.prepare([*evaluated, *trainer.planned_texts()], train.eval_batch_size, **sharing)
    accelerator.wait_for_everyone()
    for inputs in (images, texts):
        if isinstance(inputs, ImageInputs | TextInputs):
            inputs.pack()
    fit_input_norm(model, images, texts, splits["train"], trainer.planned_texts())

    try:
        trainer.fit()
    except KeyboardInterrupt as stop:
        if not stop.args:  # a second Ctrl-C, which does not wait for a checkpoint
            raise
        say(
            f"\nstopped by {stop}; to go on: the same options and --output_dir {folder} --resume",
            file=sys.stderr,
        )
        return 128 + (trainer.stop_signal.number or 0)

    trainer.load_best()
    model.eval()
    rerank = (
        {"k": train.rerank_k, "text_neighbors": train.rerank_text_neighbors}
        if train.rerank_k
        else None
    )
    results = {"seed": train.seed, "best": trainer.best, "command": " ".join(sys.argv)}
    if train.skip_bad_batches:
        results["skipped_steps"] = trainer.bad_batches.steps
    tested: dict[str, SplitResults] = {}
    for split in ("val", "test"):
        if split in tables:
            rows = tables[split]
            sim = trainer.last_scores if split == "val" else None
            if sim is None:
                sim = evaluator.score(rows, caption_to_image(rows)[0])
            if train.save_scores and accelerator.is_main_process:
                write_matrix(folder / f"scores_{split}.npy", sim, caption_to_image(rows)[1])
            found = evaluator.evaluate(rows, rerank, sim=sim, intervals=True)
            results[split] = found.to_dict()
            tested[split] = found
            title = f"{split}: {len(rows)} images, seed {train.seed}, single model"
            if accelerator.is_main_process:
                print_results(found, title)
    if accelerator.is_main_process:
        write_json(folder / "metrics.json", results)
        source, about = data.train_stream or data.data_root, options.model
        parts = {"images": about.image_encoder, "texts": about.text_encoder, "fusion": about.fusion}
        named = {part: component.name for part, component in parts.items()}
        write_card(
            folder / "best", folder.name, named, source or "drawn scenes",
            {name: len(rows) for name, rows in tables.items()}, train.seed, sys.argv, tested,
        )  # fmt: skip
    say(f"results and model in {folder}")
    say(
        f"next: ascl demo {folder} | ascl report {folder} | "
        f"RetrievalModel.from_pretrained({str(folder)!r})"
    )
    accelerator.end_training()
    return 0


def one_line(error: Exception) -> str:
    """Return the message of an error, without the traceback that a data worker adds."""
    message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if message.startswith("Caught "):
        message = message.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(message.split())


if __name__ == "__main__":
    sys.exit(main())
