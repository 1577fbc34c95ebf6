"""RetrievalModel: image encoder + text encoder + fusion, saved and loaded as one thing."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ascl_plugin import registry
from ascl_plugin.asymmetry.embedding import generate_negatives
from ascl_plugin.disk import check_sums
from ascl_plugin.distributed import gather, gather_features
from ascl_plugin.features import ImageFeatures, TextFeatures, concatenate
from ascl_plugin.fusion import LateInteraction
from ascl_plugin.fusion.pooled import unit

try:
    from huggingface_hub import PyTorchModelHubMixin
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file
except ImportError as error:
    raise ImportError('RetrievalModel needs `pip install "ascl-plugin[recipes]"`') from error

NORMS = ("layer", "l2", "none")
TEXTS = ("", "negative_", "positive_", "positive_negative_")  # prefixes of a batch's texts


class RetrievalModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ascl_plugin",
    tags=["image-text-retrieval"],
    license="apache-2.0",
):
    """Encoders, projections to the joint width, and a fusion head that scores pairs.

    Every option is JSON, so `save_pretrained` writes all that `from_pretrained` needs, but for the
    weights of frozen encoders: those are named, not copied, and fetched again by name.

    Args:
        image_encoder, text_encoder, fusion: `{"name": ..., **options}` for `registry.build`.
        dim: joint width D; passed to a fusion that takes `dim`.
        feature_norm: of projected regions, words and pooled features: "layer" (zero mean, unit
            variance), "l2" (unit length) or "none". The papers say "normalized" and no more.
        align_local_weight, align_direction_weight: u2 and u1 of the `LateInteraction` that aligns
            features before the fusion.

    Shapes:
        N pairs in, score blocks (N, N) out, N over all processes.
    """

    def __init__(
        self,
        image_encoder: dict[str, Any],
        text_encoder: dict[str, Any],
        fusion: dict[str, Any] | None = None,
        dim: int = 1024,
        feature_norm: str = "layer",
        align_local_weight: float = 1.0,
        align_direction_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if feature_norm not in NORMS:
            raise ValueError(
                f"feature_norm must be one of {', '.join(NORMS)}, got {feature_norm!r}"
            )
        self.feature_norm = feature_norm
        self.image_encoder = _build("image_encoder", image_encoder)
        self.text_encoder = _build("text_encoder", text_encoder)
        options = {"name": "cross_modal", **(fusion or {})}
        if "dim" in signature(registry.resolve("fusion", options["name"])).parameters:
            options["dim"] = dim
        self.fusion = _build("fusion", options)
        self.aligner = LateInteraction(align_local_weight, align_direction_weight)
        self.region_projection = nn.Linear(self.image_encoder.region_dim, dim)
        self.pooled_projection = nn.Linear(self.image_encoder.pooled_dim, dim)
        self.word_projection = nn.Linear(self.text_encoder.word_dim, dim)

    def encode_images(self, batch: dict[str, Tensor]) -> ImageFeatures:
        """Projected features of N images from `pixel_values`, or cached `regions`, `pooled`."""
        if "regions" in batch:
            raw = ImageFeatures(batch["regions"], batch.get("region_mask"), batch["pooled"])
        else:
            raw = self.image_encoder(batch["pixel_values"])
        regions = self._normalise(self.region_projection(raw.regions))
        return ImageFeatures(regions, raw.mask, self._normalise(self.pooled_projection(raw.pooled)))

    def encode_texts(self, batch: dict[str, Tensor], prefix: str = "") -> TextFeatures:
        """Projected words of N texts from `input_ids`, `attention_mask`, or from cached `words`."""
        if f"{prefix}words" in batch:
            raw = TextFeatures(batch[f"{prefix}words"], batch[f"{prefix}word_mask"])
        else:
            ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
            raw = self.text_encoder(ids, mask)
        return TextFeatures(self._normalise(self.word_projection(raw.words)), raw.mask)

    def forward(
        self,
        batch: dict[str, Tensor],
        negatives: str = "mixture",
        strength: float | None = None,
        align: bool = False,
    ) -> dict[str, Tensor]:
        """Score blocks of a batch from `AsymmetryCollator`, over the pairs of all processes.

        Args:
            batch: of this process.
            negatives, strength: of `generate_negatives`, where the batch brings seeds; negatives
                that it brings as texts ("insert") are encoded like any other.
            align: score by late interaction instead of the fusion.

        Returns:
            `sim`, and as far as the batch goes `negative_sim`, `positive_sim`,
            `positive_negative_sim`: (N, N) each, the inputs of `AsymmetryLoss`. Each process
            scores its own images against all texts; rows are gathered with gradients.
        """
        return self.score(*self.encode(batch), batch, negatives, strength, align)

    def encode(self, batch: dict[str, Tensor]) -> tuple[ImageFeatures, dict[str, TextFeatures]]:
        """The first half of `forward`: images, and each of `TEXTS` that the batch brings."""
        images = self.encode_images(batch)
        return images, {p: self.encode_texts(batch, p) for p in TEXTS if _brings_texts(batch, p)}

    def score(
        self,
        images: ImageFeatures,
        texts: dict[str, TextFeatures],
        batch: dict[str, Tensor],
        negatives: str = "mixture",
        strength: float | None = None,
        align: bool = False,
    ) -> dict[str, Tensor]:
        """The second half of `forward`: score blocks of what `encode` returned for the batch."""
        scorer = self.aligner if align else self.fusion
        groups: dict[str, TextFeatures] = {}
        for prefix in ("", "positive_"):
            if prefix not in texts:
                continue
            groups[f"{prefix}sim"] = gather_features(texts[prefix])
            if f"{prefix}negative_" in texts:
                inserted = texts[f"{prefix}negative_"]
                groups[f"{prefix}negative_sim"] = gather_features(inserted)
            elif f"{prefix}noise_seed" in batch:
                seeds = batch[f"{prefix}noise_seed"]
                noisy = generate_negatives(texts[prefix], seeds, negatives, strength)
                groups[f"{prefix}negative_sim"] = gather_features(noisy)
        # all texts at once: what the images bring to a score is made once
        scores = gather(scorer(images, concatenate(list(groups.values()))))
        return dict(zip(groups, scores.split(scores.shape[1] // len(groups), dim=1), strict=True))

    def _normalise(self, x: Tensor) -> Tensor:
        if self.feature_norm == "layer":
            return nn.functional.layer_norm(x, x.shape[-1:])
        return unit(x) if self.feature_norm == "l2" else x

    def trained_state(self) -> dict[str, Tensor]:
        """The state dict less the encoders that are frozen.

        Whole tensors, also where processes share the weights (FSDP2); all of them must ask then.
        """
        left_out = tuple(
            f"{name}." for name in ("image_encoder", "text_encoder") if getattr(self, name).frozen
        )
        state = {k: v for k, v in self.state_dict().items() if not k.startswith(left_out or "\0")}
        return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in state.items()}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `trained_state`.

        Raises:
            ValueError: names or shapes that are not this model's; the message names the first.
        """
        own = self.trained_state()
        for name in sorted(own.keys() ^ state.keys()):
            where = "the file lacks" if name in own else "the model does not know"
            raise ValueError(f"weights do not fit the model: {where} {name!r}")
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise ValueError(
                    f"weights do not fit the model: {name!r} is {tuple(state[name].shape)} in the "
                    f"file and {tuple(value.shape)} in the model"
                )
        self.load_state_dict(state, strict=False)

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {k: v.detach().cpu().contiguous() for k, v in self.trained_state().items()}
        save_file(state, Path(save_directory) / "model.safetensors", metadata={"format": "pt"})

    @classmethod
    def _load_as_safetensor(
        cls, model: Any, model_file: str, map_location: str, strict: bool
    ) -> Any:
        model.load_trained_state(load_file(model_file, device=str(map_location)))
        return model.eval()

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise ValueError("there is no model.safetensors, and pickles are not loaded")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        allow_import: bool = False,
        **options: Any,
    ) -> Any:
        """The model that `save_pretrained` wrote, in evaluation mode.

        Nothing of it is executed, and of what its `config.json` names only components are built
        that are ours, registered, or of an installed package's entry points. What those options
        name in turn, such as a pretrained tower, its own library fetches and loads.

        Args:
            pretrained_model_name_or_path: folder, or hub id.
            allow_import: also import components named by dotted path, ``package.module:Name``,
                which runs that code. Only for a model whose source you trust.
            options: of `PyTorchModelHubMixin.from_pretrained`; or of the model, which then replace
                those in `config.json`.

        Raises:
            OSError: not found, or the hub does not answer.
            ImportError: a component whose package is not installed.
            ValueError: a dotted path without `allow_import`; a damaged file, or one that is not
                what `SHA256SUMS` beside it says; options or weights that make no model. The
                message names the folder.
        """
        source = pretrained_model_name_or_path
        try:
            check_sums(Path(source))
            return super().from_pretrained(source, allow_import=allow_import, **options)
        except (OSError, ImportError):
            raise
        except SafetensorError as error:
            raise ValueError(f"{source}: model.safetensors is damaged ({error})") from error
        except Exception as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def _from_pretrained(cls, *, allow_import: bool = False, **options: Any) -> Any:
        for kind in ("image_encoder", "text_encoder", "fusion"):
            found = options.get(kind)
            if found is None and kind != "fusion":
                raise ValueError(f"config.json names no {kind}")
            if not isinstance(found, dict | None):
                raise ValueError(f"config.json: {kind} is {repr(found)[:80]}, expected options")
            if not allow_import:
                registry.refuse_import(kind, (found or {}).get("name", ""), "config.json")
        return super()._from_pretrained(**options)

    def config_json(self) -> str:
        """The options the model was built with, as `save_pretrained` writes them."""
        return json.dumps(self._hub_mixin_config, indent=2, sort_keys=True)


def _brings_texts(batch: dict[str, Tensor], prefix: str) -> bool:
    return f"{prefix}input_ids" in batch or f"{prefix}words" in batch


def _build(kind: str, options: dict[str, Any]) -> Any:
    options = dict(options)
    return registry.build(kind, options.pop("name"), **options)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """(trained, frozen) parameters."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in model.parameters()) - trained


@torch.no_grad()
def to_inputs(batch: dict[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """The batch on a device; seeds and row numbers stay where they are."""
    stay = ("row", "caption_index")
    return {
        k: v if k in stay or k.endswith("noise_seed") else v.to(device, non_blocking=True)
        for k, v in batch.items()
    }
