"""Errors for a framework that does not import and a model that cannot be loaded, with the cure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def explain(error: Exception, framework: str, extra: str) -> ImportError:
    """Return an ImportError to raise from `error` that names the package to install.

    Args:
        error: raised by the import of `framework`, often no ImportError: a torchvision built for
            another torch fails with a RuntimeError (``operator torchvision::nms does not exist``),
            and timm and parts of transformers fail with it.
        framework: name of the framework.
        extra: name of the extra of ascl-plugin that installs it.
    """
    install = f'pip install "ascl-plugin[{extra}]"'
    if isinstance(error, ModuleNotFoundError):
        return ImportError(f"{error.name} is not installed: {install}")
    if "torchvision" in str(error):
        return ImportError(
            f"{framework} cannot load torchvision ({error}): the torchvision installed was built "
            "for another torch. Install builds that match, both from one index: "
            "pip install --upgrade --force-reinstall torch torchvision"
        )
    return ImportError(f"{framework} does not import ({error}): {install}")


@contextmanager
def needs(framework: str, extra: str) -> Iterator[None]:
    """Make errors of the imports inside name the package to install, as `explain`."""
    try:
        yield
    except (ImportError, RuntimeError) as error:
        raise explain(error, framework, extra) from error


@contextmanager
def naming(model: str) -> Iterator[None]:
    """Make errors of `from_pretrained` of transformers name the model and the cure."""
    try:
        yield
    except OSError as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        if os.path.isdir(model):
            raise OSError(
                f"model folder {model} lacks a file, or one is damaged ({reason}); it needs "
                "config.json, model.safetensors and the files of the tokenizer or image processor "
                "(preprocessor_config.json), as save_pretrained of each writes them"
            ) from error
        if not os.path.isabs(model) and len(Path(model).parts) != 2:
            reason = f"a relative path starts at {os.getcwd()}; {reason}"
        raise OSError(
            f"model {model!r} is neither a local folder nor on the hub "
            f"({reason}); a local folder with config.json, the files of the "
            "tokenizer or image processor and model.safetensors works without a network"
        ) from error
    except RuntimeError as error:  # parts of transformers are imported only here
        if "torchvision" in str(error):
            raise explain(error, "transformers", "recipes") from error
        raise
