"""TREC run and qrels files, the exchange format of retrieval, and the metrics of such files.

A line of a run is ``QUERY Q0 DOCUMENT RANK SCORE TAG``, one of qrels ``QUERY 0 DOCUMENT GRADE``. As
trec_eval does, readers sort a query's documents by score alone, as float32; of equal scores the
higher document id comes first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ascl_plugin.disk import written
from ascl_plugin.scores import Array, as_tensor

#: Query -> document -> score, or grade.
Run = Mapping[str, Mapping[str, float]]
Qrels = Mapping[str, Mapping[str, int]]


def write_run(
    path: str | Path,
    scores: Array,
    queries: Sequence[str],
    documents: Sequence[str],
    depth: int = 100,
    tag: str = "ascl",
) -> None:
    """Write the best documents of every query.

    Args:
        path: the file.
        scores: (Q, D), numpy or torch; of equal scores the lower document comes first, and a reader
            may take another one.
        queries, documents: their ids; white space in one is written as in a URL (``%20``).
        depth: documents of a query.
        tag: name of the system, one word.

    Raises:
        ValueError: ids that do not fit the scores, or are not all different once written; a depth
            below 1; a tag of more words.
    """
    matrix = as_tensor(scores, "scores", "(queries, documents)")
    if tuple(matrix.shape) != (len(queries), len(documents)):
        raise ValueError(
            f"scores has shape {tuple(matrix.shape)} for {len(queries)} queries and "
            f"{len(documents)} documents"
        )
    if depth < 1 or len(tag.split()) != 1:
        raise ValueError(f"depth must be at least 1 and tag a word, got {depth} and {tag!r}")
    named, of = _ids(queries, "queries"), _ids(documents, "documents")
    with written(Path(path)) as aside, open(aside, "w", encoding="utf-8") as file:
        for query, row in zip(named, matrix, strict=True):
            best = row.float().cpu().sort(descending=True, stable=True)
            ranked = zip(best.indices[:depth].tolist(), best.values.numpy()[:depth], strict=True)
            for rank, (place, score) in enumerate(ranked, 1):
                file.write(f"{query} Q0 {of[place]} {rank} {float(score):.9g} {tag}\n")


def write_qrels(path: str | Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write right answers, pairs of a query and a document, with grade 1."""
    with written(Path(path)) as aside, open(aside, "w", encoding="utf-8") as file:
        file.writelines(f"{_id(query)} 0 {_id(document)} 1\n" for query, document in pairs)


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Return query -> document -> score.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is none of a run; a score that is no finite number; a document that
            a query has twice. The message names file and line.
    """
    found: dict[str, dict[str, float]] = {}
    for where, (query, _, document, _, score, _) in _lines(
        path, 6, "QUERY Q0 DOCUMENT RANK SCORE TAG"
    ):
        _add(found, query, document, _number(score, where), where)
    return found


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Return query -> document -> grade, 0 for a wrong answer; errors as `read_run`."""
    found: dict[str, dict[str, int]] = {}
    for where, (query, _, document, grade) in _lines(path, 4, "QUERY 0 DOCUMENT GRADE"):
        if re.fullmatch(r"-?\d{1,9}", grade) is None:
            raise ValueError(f"{where}: grade {grade[:80]!r}, expected a whole number")
        _add(found, query, document, int(grade), where)
    return found


def run_metrics(run: Run, qrels: Qrels) -> dict[str, float]:
    """Return the metrics of a run in percent, the mean over all queries of the qrels.

    Args:
        run: query -> document -> score; a query that it lacks has found nothing.
        qrels: query -> document -> grade, right above 0.

    Returns:
        ``r1, r5, r10``: queries with a right document among the first 1, 5, 10, which is recall as
        image-text retrieval counts it (Success@k elsewhere); ``ndcg10``: nDCG@10 with linear gain;
        ``mrr``: mean reciprocal rank of the first right document.

    Raises:
        ValueError: no qrels, or no query of the run in them.
    """
    if not qrels.keys() & run.keys():
        raise ValueError(f"no query of the run ({len(run)}) is in the qrels ({len(qrels)})")
    rows = [_of_query(run.get(query, {}), grades) for query, grades in qrels.items()]
    names = ("r1", "r5", "r10", "ndcg10", "mrr")
    return dict(zip(names, (100 * np.mean(rows, axis=0)).tolist(), strict=True))


def _of_query(scores: Mapping[str, float], grades: Mapping[str, int]) -> list[float]:
    ranked = sorted(
        scores, key=lambda name: (np.float32(scores[name]), name.encode()), reverse=True
    )
    gains = [max(grades.get(name, 0), 0) for name in ranked]
    first = next((rank for rank, gain in enumerate(gains, 1) if gain), math.inf)
    best = _dcg(sorted((max(grade, 0) for grade in grades.values()), reverse=True))
    return [*(float(first <= k) for k in (1, 5, 10)), best and _dcg(gains) / best, 1 / first]


def _dcg(gains: Sequence[float], k: int = 10) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))


def _lines(path: str | Path, count: int, layout: str) -> Iterator[tuple[str, list[str]]]:
    with open(path, encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, 1):
                cells = line.split()
                if cells and len(cells) != count:
                    raise ValueError(
                        f"{path}: line {number} has {len(cells)} words, expected {layout}"
                    )
                if cells:
                    yield f"{path}: line {number}", cells
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: byte {error.start} is no UTF-8") from error


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: score {text[:80]!r}, expected a finite number")
    return value


def _add(found: dict[str, dict], query: str, document: str, value: float, where: str) -> None:
    if document in found.setdefault(query, {}):
        raise ValueError(f"{where}: query {query!r} has document {document!r} twice")
    found[query][document] = value


def _id(name: str) -> str:
    return re.sub(r"\s", lambda found: quote(found[0]), str(name))


def _ids(names: Sequence[str], what: str) -> list[str]:
    found = [_id(name) for name in names]
    if len(set(found)) < len(found) or "" in found:
        raise ValueError(
            f"{what}: {len(found)} ids, of which {len(set(found))} differ; give each one of its own"
        )
    return found
