"""Model and loss of a run, from its options."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ascl_plugin import registry
from ascl_plugin.retrieval.encoders import WordTransformer
from ascl_plugin.retrieval.model import RetrievalModel
from ascl_plugin.training.arguments import DataArguments, LossArguments, ModelArguments, Options
from ascl_plugin.yaml_file import mapping


def make_model(options: Options, captions: list[list[str]]) -> RetrievalModel:
    """The model, its weights drawn from the seed of the run.

    Args:
        options: of the run.
        captions: of the training images; the word transformer's vocabulary comes from them.
    """
    args = options.model
    image_encoder = {**_image_encoder(args, options.data), **mapping(args.image_options)}
    torch.manual_seed(options.train.seed)
    try:
        return RetrievalModel(
            image_encoder, _text_encoder(args, captions), _fusion(args), args.dim,
            args.feature_norm, args.align_local_weight, args.align_direction_weight,
        )  # fmt: skip
    except TypeError as error:
        if args.image_options and "unexpected keyword" in str(error):
            raise ValueError(f"--image_options: {error}") from error
        raise


def make_loss(args: LossArguments) -> nn.Module:
    """The objective.

    Raises:
        ValueError: it has parameters of its own, which nothing here would train.
    """
    known: dict[str, dict[str, Any]] = {
        "ascl": {"temperature": args.temperature, "balance": args.balance, "form": args.form},
        "triplet": {"margin": args.margin, "balance": args.balance},
    }
    loss = registry.build("loss", args.loss, **known.get(args.loss, {}))
    parameters = loss.named_parameters() if isinstance(loss, nn.Module) else ()
    learned = [name for name, weight in parameters if weight.requires_grad]
    if learned:
        raise ValueError(
            f"--loss {args.loss} learns {learned[0]!r}, and only the model's weights are trained"
        )
    return loss


def _image_encoder(args: ModelArguments, data: DataArguments) -> dict[str, Any]:
    if data.region_files is not None:
        files = {n: getattr(data, n) for n in ("region_files", "pooled_files")}
        inputs = registry.build(
            "image_inputs", "region_files", num_regions=args.num_regions, **files
        )
        return {
            "name": "region_files",
            "region_dim": inputs.region_dim,
            "pooled_dim": inputs.pooled_dim,
            "num_regions": args.num_regions,
        }
    if args.image_encoder == "grid":
        side = round(args.num_regions**0.5)
        if side * side != args.num_regions:
            raise ValueError(f"num_regions must be a square for a grid, got {args.num_regions}")
        return {"name": "grid", "width": args.encoder_width, "grid": side}
    weights: dict[str, Any] = {"name": args.image_encoder, "weights": args.image_checkpoint}
    fetched = {**weights, "weights": "pretrained"} if args.image_pretrained else {**weights}
    if args.image_model is not None:
        fetched["model"] = args.image_model
    if args.image_encoder == "timm_grid":
        return {**fetched, "num_regions": args.num_regions, "tune": _tune(args)}
    if args.image_encoder == "resnet":
        return {**fetched, "tune": _tune(args)}
    if args.image_encoder == "faster_rcnn":
        return {**fetched, "num_regions": args.num_regions}
    if args.image_encoder == "bottom_up":
        return {**weights, "num_regions": args.num_regions}
    if args.image_encoder == "transformers_clip":
        _require_model(args)
        return {
            "name": "transformers_clip",
            "model": args.image_model,
            "tune": "frozen" if args.freeze_encoders else args.tune,
            "num_regions": args.num_regions,
        }
    if args.image_encoder == "open_clip":
        return {**_open_clip(args), "num_regions": args.num_regions}
    return {"name": args.image_encoder}


def _text_encoder(args: ModelArguments, captions: list[list[str]]) -> dict[str, Any]:
    if args.text_encoder == "transformer":
        words = WordTransformer.vocabulary(c for several in captions for c in several)
        return {
            "name": "transformer",
            "vocabulary": words,
            "width": args.encoder_width,
            "max_words": args.max_words,
        }
    if args.text_encoder == "bert":
        return {
            "name": "bert",
            "model": args.text_model,
            "tune": _tune(args),
            "max_words": args.max_words,
            "keep_special_tokens": args.keep_special_tokens,
        }
    if args.text_encoder == "transformers_clip":
        return {
            "name": "transformers_clip",
            "model": args.text_model,
            "tune": "frozen" if args.freeze_encoders else args.tune,
            "max_words": args.max_words,
            "keep_special_tokens": args.keep_special_tokens,
        }
    if args.text_encoder == "open_clip":
        return {
            **_open_clip(args),
            "max_words": args.max_words,
            "keep_special_tokens": args.keep_special_tokens,
        }
    return {"name": args.text_encoder}


def _open_clip(args: ModelArguments) -> dict[str, Any]:
    """What both towers are built with."""
    _require_model(args)
    return {
        "name": "open_clip",
        "model": args.image_model,
        "weights": args.image_checkpoint,
        "tune": "frozen" if args.freeze_encoders else args.tune,
    }


def _tune(args: ModelArguments) -> str:
    return "frozen" if args.freeze_encoders else "full"


def _require_model(args: ModelArguments) -> None:
    if args.image_model is None:
        raise ValueError(f"image_encoder {args.image_encoder}: --image_model says which model")


def _fusion(args: ModelArguments) -> dict[str, Any]:
    if args.fusion == "cross_modal":
        return {
            "name": "cross_modal",
            "num_heads": args.num_heads,
            "attention": args.attention,
            "local_weight": args.local_weight,
            "direction_weight": args.direction_weight,
            "gate_bias": args.gate_bias,
        }
    return {"name": args.fusion} | ({"image": args.pooled_image} if args.fusion == "pooled" else {})
