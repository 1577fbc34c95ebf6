"""Reading yaml: plain values only, no larger than a person would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    import yaml
except ImportError as error:
    raise ImportError('yaml needs pyyaml: pip install "ascl-plugin[recipes]"') from error

#: Bytes of a file, and values in it once every alias is written out, at most.
MAX_BYTES, MAX_VALUES = 2**18, 100_000
_MAX_NUMBER = 400  # characters: the longest float there is has 326


def read_yaml(path: str | Path) -> Any:
    """Return the content of a yaml file; nothing in it is executed.

    Raises:
        OSError: the file is not there.
        ValueError: see `parse_yaml`; a file of more than `MAX_BYTES`, or that is no UTF-8.
    """
    with open(path, "rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES >> 10} kB, so no configuration")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not yaml: byte {error.start} is no UTF-8") from error
    return parse_yaml(text, str(path))


def named(path: str | Path, folder: Path) -> Path:
    """Return the path of a file, or that of the yaml file of this name in `folder`."""
    path = Path(path)
    inside = folder / (path.name if path.suffix == ".yaml" else f"{path.name}.yaml")
    return inside if not path.exists() and path.parent == Path() and inside.exists() else path


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a yaml text.

    Raises:
        ValueError: no yaml; a tag that is not plain yaml; aliases that contain themselves or more
            than `MAX_VALUES` values; the message names `where`.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is None:
            return None
        _size(node, {})
        return yaml.safe_load(text)
    # PyYAML's own errors, and any that a date of month 13 or an empty `!!int` raises inside it
    except Exception as error:
        raise ValueError(f"{where} is not yaml: {error}") from error


def mapping(text: str | None) -> dict[str, Any]:
    """Return options written as yaml on one line, as ``{min_size: 400}``; None: no options.

    Raises:
        ValueError: anything else.
    """
    try:
        found = parse_yaml(text or "{}", "options")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"expected options as yaml, {{name: value, ...}}, got {repr(text)[:200]}")
    return found


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return the number of values below a node; each use of an alias counts."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError(f"an alias leads to itself{node.start_mark}")
        return size
    known[id(node)] = None
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith((":int", ":float")) and len(node.value) > _MAX_NUMBER:
            raise ValueError(f"a number of {len(node.value)} characters{node.start_mark}")
    elif isinstance(node, yaml.MappingNode):
        size += sum(_size(key, known) + _size(value, known) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(value, known) for value in node.value)
    if size > MAX_VALUES:
        raise ValueError(f"aliases make more than {MAX_VALUES} values of it{node.start_mark}")
    known[id(node)] = size
    return size
