"""RetrievalModel: image encoder + text encoder + fusion, saved and loaded together."""

from __future__ import annotations

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
from ascl_plugin.interfaces import ComponentSpec, ImageEncoder, Scorer, TextEncoder
from ascl_plugin.shares import shares

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file
except ImportError as error:
    raise ImportError('RetrievalModel needs `pip install "ascl-plugin[recipes]"`') from error

NORMS = ("layer", "l2", "none")
WEIGHTS = "model.safetensors"
HUB = ("revision", "cache_dir", "force_download", "local_files_only", "token")  # of a download
TEXTS = ("", "negative_", "positive_", "positive_negative_")  # prefixes of a batch's texts


class RetrievalModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ascl_plugin",
    tags=["image-text-retrieval"],
    license="apache-2.0",
):
    """Encoders, projections to the joint width, and a fusion head that scores pairs.

    Every option is JSON. `save_pretrained` writes everything that `from_pretrained` needs except
    the weights of frozen encoders, which are loaded again by name.

    Args:
        image_encoder, text_encoder, fusion: `{"name": ..., **options}` for `registry.build`.
        dim: joint width D; passed to a fusion that takes `dim`.
        feature_norm: normalization of projected regions, words and pooled features: "layer" (zero
            mean, unit variance), "l2" (unit length) or "none". The papers only say "normalized".
        align_local_weight, align_direction_weight: u2 and u1 of the `LateInteraction` that aligns
            features before the fusion.

    Shapes:
        N pairs in, score blocks (N, N) out, N over all ranks; I images and T texts, (I, T).
    """

    def __init__(
        self,
        image_encoder: ComponentSpec,
        text_encoder: ComponentSpec,
        fusion: ComponentSpec | None = None,
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
        self.image_encoder: ImageEncoder = _build("image_encoder", image_encoder)
        self.text_encoder: TextEncoder = _build("text_encoder", text_encoder)
        head = {"name": "cross_modal", **(fusion or {})}
        if "dim" in signature(registry.resolve("fusion", str(head["name"]))).parameters:
            head["dim"] = dim
        self.fusion: Scorer = _build("fusion", head)
        self.aligner = LateInteraction(align_local_weight, align_direction_weight)
        self.region_projection = nn.Linear(self.image_encoder.region_dim, dim)
        self.pooled_projection = nn.Linear(self.image_encoder.pooled_dim, dim)
        self.word_projection = nn.Linear(self.text_encoder.word_dim, dim)

    def encode_images(self, batch: dict[str, Tensor]) -> ImageFeatures:
        """Return features of N images from `pixel_values`, or cached `regions` and `pooled`."""
        if "regions" in batch:
            raw = ImageFeatures(batch["regions"], batch.get("region_mask"), batch["pooled"])
        else:
            raw = self.image_encoder(batch["pixel_values"])
        assert raw.pooled is not None
        regions = self._normalize(self.region_projection(raw.regions))
        return ImageFeatures(regions, raw.mask, self._normalize(self.pooled_projection(raw.pooled)))

    def encode_texts(self, batch: dict[str, Tensor], prefix: str = "") -> TextFeatures:
        """Return features of N texts from `input_ids` and `attention_mask`, or cached `words`."""
        if f"{prefix}words" in batch:
            raw = TextFeatures(batch[f"{prefix}words"], batch[f"{prefix}word_mask"])
        else:
            ids, mask = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
            raw = self.text_encoder(ids, mask)
        return TextFeatures(self._normalize(self.word_projection(raw.words)), raw.mask)

    def forward(
        self,
        batch: dict[str, Tensor],
        negatives: str = "mixture",
        strength: float | None = None,
        align: bool = False,
    ) -> dict[str, Tensor]:
        """Return score blocks over the pairs of all ranks. Collective.

        Each rank scores its own images against all texts; rows are gathered with gradients.

        Args:
            batch: this rank's batch, from `AsymmetryCollator`.
            negatives, strength: see `generate_negatives`; used if the batch has seeds. Negatives
                that it has as texts ("insert") are encoded like any other.
            align: score by late interaction instead of the fusion.

        Returns:
            `sim` and, if the batch has what they need, `negative_sim`, `positive_sim`,
            `positive_negative_sim`: (N, N) each, the inputs of `AsymmetryLoss`. If the batch has
            `image_of_text`, they are (I, T), and `targets` (T,) int64 has each text's image.
        """
        return self.score(*self.encode(batch), batch, negatives, strength, align)

    def encode(self, batch: dict[str, Tensor]) -> tuple[ImageFeatures, dict[str, TextFeatures]]:
        """Return the features of images, and of each kind in `TEXTS` that the batch has."""
        images = self.encode_images(batch)
        there = [p for p in TEXTS if f"{p}input_ids" in batch or f"{p}words" in batch]
        return images, {p: self.encode_texts(batch, p) for p in there}

    def score(
        self,
        images: ImageFeatures,
        texts: dict[str, TextFeatures],
        batch: dict[str, Tensor],
        negatives: str = "mixture",
        strength: float | None = None,
        align: bool = False,
    ) -> dict[str, Tensor]:
        """Return the score blocks of `forward`, of the features that `encode` returned."""
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
        # all texts in one call: images are prepared once
        scores = gather(scorer(images, concatenate(list(groups.values()))))
        each = scores.shape[1] // len(groups)
        blocks = dict(zip(groups, scores.split(each, dim=1), strict=True))
        if "image_of_text" in batch:
            before = shares("own", len(images), scores.device).own.start
            blocks["targets"] = gather(batch["image_of_text"] + before)
        return blocks

    def _normalize(self, x: Tensor) -> Tensor:
        if self.feature_norm == "layer":
            return nn.functional.layer_norm(x, x.shape[-1:])
        return unit(x) if self.feature_norm == "l2" else x

    def trained_state(self) -> dict[str, Tensor]:
        """Return the state dict without frozen encoders. Collective under FSDP2."""
        left_out = tuple(
            f"{name}." for name in ("image_encoder", "text_encoder") if getattr(self, name).frozen
        )
        state = {k: v for k, v in self.state_dict().items() if not k.startswith(left_out or "\0")}
        return {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in state.items()}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Load the output of `trained_state`.

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
        save_file(state, Path(save_directory) / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        allow_import: bool = False,
        **options: Any,
    ) -> RetrievalModel:
        """Return the model that `save_pretrained` wrote, in evaluation mode.

        None of its code is executed. Its `config.json` may name components that are ours,
        registered, or entry points of installed packages; their own options may name pretrained
        weights, which their libraries download and load.

        Args:
            pretrained_model_name_or_path: folder, or hub id.
            allow_import: also import components named by dotted path, ``package.module:Name``,
                which runs that code. Only for a model whose source you trust.
            options: options of `PyTorchModelHubMixin.from_pretrained`; or options of the model,
                which replace those in `config.json`.

        Raises:
            OSError: not found, or the hub does not answer.
            ImportError: a component whose package is not installed.
            ValueError: a dotted path without `allow_import`; a damaged file, or one that differs
                from `SHA256SUMS` beside it; options or weights that make no model. The message
                names the folder.
        """
        source = pretrained_model_name_or_path
        try:
            check_sums(Path(source))
            return super().from_pretrained(source, allow_import=allow_import, **options)
        except (OSError, ImportError):
            raise
        except SafetensorError as error:
            raise ValueError(f"{source}: {WEIGHTS} is damaged ({error})") from error
        except Exception as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        map_location: str = "cpu",
        allow_import: bool = False,
        **options: Any,
    ) -> RetrievalModel:
        for kind in ("image_encoder", "text_encoder", "fusion"):
            found = options.get(kind)
            if found is None and kind != "fusion":
                raise ValueError(f"config.json names no {kind}")
            if not isinstance(found, dict | None):
                raise ValueError(f"config.json: {kind} is {repr(found)[:80]}, expected options")
            if not allow_import:
                registry.refuse_import(kind, (found or {}).get("name", ""), "config.json")
        download = {name: options.pop(name) for name in HUB}
        with torch.random.fork_rng(devices=[]):  # layers draw weights before they are loaded
            model = cls(**options)
        local = Path(model_id).is_dir()
        file = Path(model_id, WEIGHTS) if local else hf_hub_download(model_id, WEIGHTS, **download)
        model.load_trained_state(load_file(file, device=str(map_location)))
        return model.eval()


def _build(kind: str, spec: ComponentSpec) -> Any:
    options = dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{kind}: expected {{'name': ..., **options}}, got {repr(spec)[:80]}")
    return registry.build(kind, name, **options)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of (trained, frozen) parameters."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in model.parameters()) - trained


@torch.no_grad()
def to_inputs(batch: dict[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    """Move a batch to a device, except seeds and row numbers."""
    stay = ("row", "caption_index")
    return {
        k: v if k in stay or k.endswith("noise_seed") else v.to(device, non_blocking=True)
        for k, v in batch.items()
    }
