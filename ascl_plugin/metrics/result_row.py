"""Results of an evaluation as data: metrics, and the facts that they must be read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ResultRow:
    """Metrics of one way to score a split.

    Attributes:
        name: "initial", "reranked", ...
        metrics: name to value, as `protocol_metrics` returns them.
        leaks: how the right answer enters the score; empty for an honest result.
        transductive: True if a query's result depends on the other queries.
        intervals: metric to (low, high); empty if none were computed.
    """

    name: str
    metrics: Mapping[str, float]
    leaks: str = ""
    transductive: bool = False
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {name: value for name, value in vars(self).items() if name != "intervals" or value}

    @classmethod
    def from_dict(cls, content: object) -> ResultRow:
        """Return the row that `to_dict` gave.

        Raises:
            ValueError: a missing or unknown entry, or a value of another type.
        """
        match content:
            case {
                "name": str(name),
                "metrics": dict(metrics),
                "leaks": str(leaks),
                "transductive": bool(transductive),
                **rest,
            } if not rest.keys() - {"intervals"}:
                given = _mapping(rest.get("intervals", {}), f"intervals of {name!r}")
                intervals = {k: _interval(value, f"{k} of {name!r}") for k, value in given.items()}
                numbers = _numbers(metrics, f"metrics of {name!r}")
                return cls(name, numbers, leaks, transductive, intervals)
        raise ValueError(
            f"expected a result row {{name, metrics, leaks, transductive}}, got {content!r:.200}"
        )


@dataclass(frozen=True)
class SplitResults:
    """Results of one split under one protocol; `results["initial"]` is the row of that name.

    Attributes:
        rows: at least one.
        protocol: "full", "coco_1k" or "paired".
        asymmetry: accuracies of the asymmetry benchmark in percent; empty without variants.
        audit: the report of `SplitAudit`; empty if the scores were not audited.
    """

    rows: list[ResultRow]
    protocol: str = "full"
    asymmetry: Mapping[str, float] = field(default_factory=dict)
    audit: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ResultRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in self.rows)}")

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        given = {name: value for name, value in vars(self).items() if value}
        return given | {"rows": [row.to_dict() for row in self.rows]}

    @classmethod
    def from_dict(cls, content: object) -> SplitResults:
        """Return the results that `to_dict` gave; further entries are ignored.

        Raises:
            ValueError: no rows, or an entry of another type.
        """
        match content:
            case {"rows": [_, *_] as rows, "protocol": str(protocol), **rest}:
                return cls(
                    [ResultRow.from_dict(row) for row in rows],
                    protocol,
                    *(_numbers(rest.get(name, {}), name) for name in ("asymmetry", "audit")),
                )
        raise ValueError(f"expected results {{protocol, rows: [...]}}, got {content!r:.200}")


def _mapping(content: object, what: str) -> dict[str, object]:
    if not isinstance(content, dict):
        raise ValueError(f"{what}: expected a mapping, got {content!r:.200}")
    return content


def _numbers(content: object, what: str) -> dict[str, float]:
    found = {}
    for name, value in _mapping(content, what).items():
        if not isinstance(value, int | float):
            raise ValueError(f"{what}: {name} is {value!r:.80}, expected a number")
        found[name] = value
    return found


def _interval(content: object, what: str) -> tuple[float, float]:
    match content:
        case [int() | float() as low, int() | float() as high]:
            return low, high
    raise ValueError(f"interval of {what} is {content!r:.80}, expected [low, high]")
