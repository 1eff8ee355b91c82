"""Values from elsewhere: a CSV file with the columns policy, mission, seed and value."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from daf_common.errors import InvalidArgument, Violation
from daf_protos.statistics.v1.comparison_pb2 import MissionValues, PolicyValues

COLUMNS = ("policy", "mission", "seed", "value")
MAX_ROWS = 100_000
_MAX_PROBLEMS = 20
_SEEDS = range(-(2**63), 2**63)

type Row = tuple[str, str, int, float]


def read_values(path: Path) -> list[PolicyValues]:
    """The values in a file, policies and missions in the order in which they come first.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidArgument: it cannot be used; names the lines.
    """
    rows: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    lines: dict[tuple[str, str, int], int] = {}
    problems: list[Violation] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in _rows(file, path):
                try:
                    policy, mission, seed, value = _row(row)
                    if (policy, mission, seed) in lines:
                        first = lines[policy, mission, seed]
                        raise ValueError(f"is the same policy, mission and seed as line {first}")
                except ValueError as error:
                    problems.append(Violation(f"line {line}", f"{path}:{line}: {error}"))
                    if len(problems) == _MAX_PROBLEMS:
                        break
                    continue
                if len(lines) == MAX_ROWS:
                    problems.append(Violation(f"line {line}", f"{path}:{line}: more than {MAX_ROWS} values"))
                    break
                lines[policy, mission, seed] = line
                rows[policy][mission].append((seed, value))
    except UnicodeDecodeError:
        raise InvalidArgument.field("--results", f"{path} is not UTF-8") from None
    except csv.Error as error:
        raise InvalidArgument.field("--results", f"{path} is not CSV: {error}") from None
    if problems:
        raise InvalidArgument("\n".join(problem.message for problem in problems), violations=problems)
    return [
        PolicyValues(
            label=policy,
            missions=[
                MissionValues(mission=mission, seeds=[seed for seed, _ in of], values=[value for _, value in of])
                for mission, of in missions.items()
            ],
        )
        for policy, missions in rows.items()
    ]


def _rows(file: Iterator[str], path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """The rows with their lines, after the heading was checked."""
    reader = csv.DictReader(file)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise InvalidArgument.field(
            "--results", f"{path}:1: there is no column {', '.join(missing)}: the columns are {', '.join(COLUMNS)}"
        )
    for row in reader:
        yield reader.line_num, row


def _row(row: dict[str, str | None]) -> Row:
    """The content of a row.

    Raises:
        ValueError: it is wrong; says what.
    """
    policy, mission, seed_text, value_text = ((row[column] or "").strip() for column in COLUMNS)
    for column, text in (("policy", policy), ("mission", mission)):
        if not text:
            raise ValueError(f"{column} is empty")
    try:
        seed = int(seed_text)
    except ValueError:
        raise ValueError(f"seed {seed_text[:40]!r} is no whole number") from None
    if seed not in _SEEDS:
        raise ValueError(f"seed {seed_text[:40]} has more than 64 bits")
    try:
        value = float(value_text)
    except ValueError:
        raise ValueError(f"value {value_text[:40]!r} is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"value {value_text[:40]} is not finite")
    return policy, mission, seed, value
