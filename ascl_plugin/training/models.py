"""Model and loss of a run, from its options."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature

import torch
from torch import nn

from ascl_plugin import registry
from ascl_plugin.retrieval.lexical import LatentSemantics, vocabulary_of
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.arguments import Component, DataArguments
from ascl_plugin.training.resolve import Resolved


def make_model(options: Resolved, captions: Sequence[Sequence[str]]) -> RetrievalModel:
    """Return the model, its weights drawn from the run's seed.

    A text encoder with a classmethod `options_from(captions)` gets the options it returns, such as
    the vocabulary of one that trains from scratch; options given by the user go before them.
    `lexical` gets its vocabulary in the same way.
    """
    args = options.model
    image = args.image_encoder
    if options.data.region_files is not None:
        image = _region_encoder(options.data)
    text = {**args.text_encoder}
    encoder = registry.resolve("text_encoder", args.text_encoder.name)
    if hasattr(encoder, "options_from"):
        text = {**encoder.options_from(captions), **text}
    lexical: dict[str, object] | None = None
    if args.lexical != "none":
        lexical = {
            "kind": args.lexical,
            "vocabulary": vocabulary_of(captions, args.lexical_minimum),
        } | (
            {"word_dropout": args.lexical_word_dropout}
            if args.lexical == "bag"
            else {"dim": args.lexical_dim}
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(options.train.seed)
        model = RetrievalModel(
            dict(image), text, dict(args.fusion), args.dim, args.feature_norm,
            args.align_local_weight, args.align_direction_weight, args.image_dropout,
            args.text_dropout, args.input_norm, args.text_pool, lexical, args.projection,
        )  # fmt: skip
    if isinstance(model.lexical, LatentSemantics):
        model.lexical.fit(captions)
    return model


def make_loss(given: Component) -> nn.Module:
    """Return the loss.

    Raises:
        ValueError: it has parameters of its own, which the trainer would not train.
    """
    loss = registry.build("loss", **given)  # type: ignore[arg-type]
    parameters = loss.named_parameters() if isinstance(loss, nn.Module) else ()
    learned = [name for name, weight in parameters if weight.requires_grad]
    if learned:
        raise ValueError(
            f"loss {given.name!r} learns {learned[0]!r}, but only the model's weights are trained"
        )
    return loss


def check_targets(loss: nn.Module, captions_per_image: int) -> None:
    """Check that the loss is told which texts are an image's, if it can be several.

    Raises:
        ValueError: it takes no `targets`.
    """
    if captions_per_image > 1 and "targets" not in signature(loss.forward).parameters:
        raise ValueError(
            f"captions_per_image is {captions_per_image}, but {type(loss).__name__} takes no "
            "`targets`, the image of each text; choose another loss, or captions_per_image 1"
        )


def _region_encoder(data: DataArguments) -> Component:
    inputs = registry.build(
        "image_inputs", "region_files", region_files=data.region_files,
        pooled_files=data.pooled_files, num_regions=data.num_regions,
    )  # fmt: skip
    return Component(
        {
            "name": "region_files",
            "region_dim": inputs.region_dim,
            "pooled_dim": inputs.pooled_dim,
            "num_regions": data.num_regions,
        }
    )
