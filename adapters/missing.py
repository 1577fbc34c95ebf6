"""What to say when a framework does not import, or a model cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def explain(error: Exception, framework: str, extra: str) -> ImportError:
    """An ImportError to raise from `error`, that says what to install.

    Args:
        error: what importing `framework` raised. Often that is not an ImportError: a torchvision
            built for another torch fails with a RuntimeError (``operator torchvision::nms does not
            exist``) and takes timm and parts of transformers down with it.
        framework: what was imported.
        extra: the extra of ascl-plugin that brings it.
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
def naming(model: str) -> Iterator[None]:
    """Around `from_pretrained` of transformers: its errors name the model and the cure."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"model {model!r} is neither a local folder nor to be had from the hub "
            f"({str(error).splitlines()[0]}); a local folder with config.json, the files of the "
            "tokenizer or image processor and model.safetensors works without a network"
        ) from error
    except RuntimeError as error:  # parts of transformers are imported only here
        if "torchvision" in str(error):
            raise explain(error, "transformers", "recipes") from error
        raise
