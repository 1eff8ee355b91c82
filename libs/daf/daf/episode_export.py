"""The episodes of an evaluation as files for other programs."""

from __future__ import annotations

import csv
import json
import math
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import IO, Any

from daf.client import Client
from daf.connection import given_or_connected
from daf.episode_rows import FIXED, Cell, Row, Shape, rows_of
from daf.evaluations import list_episodes, read_evaluation
from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation

__all__ = ["daf_export_evaluation"]

FORMATS = ("csv", "parquet", "jsonl")
_ROW_GROUP = 2000
_ORDER = {name: place for place, name in enumerate(FIXED)}


def daf_export_evaluation(
    evaluation: str,
    *,
    csv: str | Path | None = None,
    parquet: str | Path | None = None,
    jsonl: str | Path | None = None,
    by: Shape = "episode",
    client: Client | None = None,
) -> int:
    """Writes every recorded episode of an evaluation to files: missions, seeds, seats, rewards, all statistics, times
    and versions. What the columns are: `daf.episode_rows.FIXED`. Memory does not grow with the number of episodes.

    Args:
        evaluation: its resource name.
        csv: a file; lists are JSON in it.
        parquet: a file; needs `daf[parquet]`.
        jsonl: a file with a JSON object a line; numbers that are not finite are null in it.
        by: whether a row is an episode or a seat of one.
        client: where; otherwise where the context in use says.

    Returns:
        How many rows each file has.

    Raises:
        NotFound: there is no such evaluation.
        InvalidArgument: no file is named.
        FailedPrecondition: a package that is needed is not installed.
    """
    writers: Mapping[Path, _Writer] = {
        Path(path): writer
        for path, writer in ((csv, _write_csv), (parquet, _write_parquet), (jsonl, _write_jsonl))
        if path is not None
    }
    if not writers:
        raise InvalidArgument(f"name a file: {', '.join(FORMATS)}")
    if parquet is not None:
        _check_parquet()
    with given_or_connected(client) as connected, tempfile.TemporaryFile() as spool:
        found = read_evaluation(connected, evaluation)
        rows, columns = _spool(connected, found, by, spool)
        for path, write in writers.items():
            with _replacing(path) as part:
                write(part, columns, _rows(spool))
    return rows


type _Writer = Callable[[Path, Sequence[str], Iterator[Row]], None]


def _spool(client: Client, evaluation: Evaluation, by: Shape, spool: IO[bytes]) -> tuple[int, list[str]]:
    """Keeps all rows on disk, as their columns are known only when the last is read."""
    count, named = 0, dict[str, None]()
    for episode in list_episodes(client, evaluation.name):
        for row in rows_of(evaluation, episode, by):
            pickle.dump(row, spool)
            named.update(dict.fromkeys(row))
            count += 1
    return count, sorted(named, key=_place)


def _place(column: str) -> tuple[int, str]:
    """Where a column is: those with one name in every evaluation first, what they are of each policy with them."""
    of_policies, of = column.partition("[")[0], column
    return (_ORDER[of_policies], of if of_policies != column else "") if of_policies in _ORDER else (len(_ORDER), of)


def _rows(spool: IO[bytes]) -> Iterator[Row]:
    spool.seek(0)
    while True:
        try:
            yield pickle.load(spool)
        except EOFError:
            return


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file beside this one that takes its place once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterator[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_csv_cell(row.get(column)) for column in columns] for row in rows)


def _csv_cell(value: Cell) -> str:
    match value:
        case None:
            return ""
        case bool() | list():
            return json.dumps(value)
        case float():
            return repr(value)
        case _:
            return str(value)


def _write_jsonl(path: Path, columns: Sequence[str], rows: Iterator[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            ordered = {column: _json_cell(row[column]) for column in columns if column in row}
            file.write(json.dumps(ordered, allow_nan=False, ensure_ascii=False) + "\n")


def _json_cell(value: Cell) -> Any:
    if isinstance(value, list):
        return [_json_cell(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_parquet(path: Path, columns: Sequence[str], rows: Iterator[Row]) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import ParquetWriter

    of_type = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}

    def kind(column: str) -> Any:
        named = FIXED.get(column, str if column.startswith("version.") else float)
        return arrow.list_(of_type[named[1]]) if isinstance(named, tuple) else of_type[named]

    schema = arrow.schema([(column, kind(column)) for column in columns])
    with ParquetWriter(path, schema) as writer:
        for group in batched(rows, _ROW_GROUP):
            writer.write_table(arrow.Table.from_pylist(list(group), schema=schema))


def _check_parquet() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        message = "pyarrow is not installed: pip install 'daf[parquet]', or write CSV"
        raise FailedPrecondition(message, reason="NOT_INSTALLED") from None
