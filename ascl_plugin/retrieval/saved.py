"""A retrieval model in a folder or on a hub: options as JSON, and the weights that were trained."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from ascl_plugin import registry
from ascl_plugin.disk import check_sums
from ascl_plugin.interfaces import ImageEncoder, TextEncoder
from ascl_plugin.retrieval.saved_paths import paths_found, paths_from, paths_lost

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file
except ImportError as error:
    raise ImportError('RetrievalModel needs `pip install "ascl-plugin[recipes]"`') from error

WEIGHTS, CARD = "model.safetensors", "README.md"
HUB = ("revision", "cache_dir", "force_download", "local_files_only", "token")  # of a download


class SavedModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="ascl_plugin",
    tags=["image-text-retrieval"],
    license="apache-2.0",
):
    """A model of two encoders that saves its options, and all weights but frozen encoders'.

    Attributes:
        source: folder it was loaded from. Saved or pushed with the same weights, it keeps the card
            that lies there.
    """

    image_encoder: ImageEncoder
    text_encoder: TextEncoder
    source: Path | None = None

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
        card = None if self.source is None else self.source / CARD
        if card and card.is_file() and not (save_directory / CARD).exists():
            own, theirs = save_directory / WEIGHTS, card.with_name(WEIGHTS)
            if theirs.is_file() and filecmp.cmp(own, theirs, shallow=False):
                shutil.copyfile(card, save_directory / CARD)
        config = {
            name: paths_from(save_directory, value) if isinstance(value, dict) else value
            for name, value in cast("dict[str, object]", self._hub_mixin_config or {}).items()
        }
        text = json.dumps(config, sort_keys=True, indent=2)
        (Path(save_directory) / "config.json").write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        allow_import: bool = False,
        **options: Any,
    ) -> Self:
        """Return the model that `save_pretrained` wrote, in evaluation mode.

        None of its code is executed. Its `config.json` may name components that are ours,
        registered, or entry points of installed packages; their own options may name pretrained
        weights, which their libraries download and load. Relative paths in it start at its folder.

        Args:
            pretrained_model_name_or_path: folder of a model, or of a run, whose best model it is;
                or hub id.
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
        if not Path(source, "config.json").exists() and Path(source, "best").is_dir():
            source = Path(source, "best")
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
    ) -> Self:
        for kind in ("image_encoder", "text_encoder", "fusion"):
            found = options.get(kind)
            if found is None and kind != "fusion":
                raise ValueError(f"config.json names no {kind}")
            if not isinstance(found, dict | None):
                raise ValueError(f"config.json: {kind} is {repr(found)[:80]}, expected options")
            if not allow_import:
                registry.refuse_import(kind, (found or {}).get("name", ""), "config.json")
            if found is not None:
                options[kind] = paths_found(model_id, found)
        download = {name: options.pop(name) for name in HUB}
        try:
            with torch.random.fork_rng(devices=[]):  # layers draw weights before they are loaded
                model = cls(**options)
        except (OSError, ValueError) as error:
            encoders = options["image_encoder"], options["text_encoder"]
            if lost := ", ".join({path: 0 for spec in encoders for path in paths_lost(spec)}):
                raised = OSError if isinstance(error, OSError) else ValueError
                raise raised(
                    f"{error}; if {lost} is a path, it is relative, and found neither from "
                    f"{model_id} nor from {Path.cwd()}: put the folder there, or write its whole "
                    "path into config.json"
                ) from error
            raise
        local = Path(model_id).is_dir()
        model.source = Path(model_id) if local else None
        file = Path(model_id, WEIGHTS) if local else hf_hub_download(model_id, WEIGHTS, **download)
        model.load_trained_state(load_file(file, device=str(map_location)))
        return model.eval()
