"""Writes the tables of docs/metrics.md from the definitions of metrics; `--check` tells whether they are current."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

import daf_common.metrics
import daf_evaluation.telemetry
import daf_statistics.telemetry
import daf_training.telemetry

TARGET = Path(__file__).parent.parent / "docs" / "metrics.md"

SECTIONS: Sequence[tuple[str, ModuleType]] = (
    ("Every service", daf_common.metrics),
    ("Training", daf_training.telemetry),
    ("Evaluation", daf_evaluation.telemetry),
    ("Statistics", daf_statistics.telemetry),
)

MARK = "<!-- What follows is made by `make metrics` from the definitions in the code. -->\n"


def definitions(module: ModuleType) -> Iterator[MetricWrapperBase]:
    """The metrics that a module defines, in their order."""
    return (value for value in vars(module).values() if isinstance(value, MetricWrapperBase))


def _row(metric: MetricWrapperBase) -> str:
    name = f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |"


def tables() -> str:
    """What follows the mark on the page."""
    parts = []
    seen: set[int] = set()
    for title, module in SECTIONS:
        own = [metric for metric in definitions(module) if id(metric) not in seen]  # services import common ones
        seen.update(map(id, own))
        parts.append(f"\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n")
        parts.extend(f"{_row(metric)}\n" for metric in own)
    parts.append("\n## Labels\n\n| label | values |\n|---|---|\n")
    parts.extend(f"| `{label}` | {values} |\n" for label, values in sorted(daf_common.metrics.LABELS.items()))
    return "".join(parts)


def main() -> None:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the checked-in tables are not current")
    check = parser.parse_args().check
    page = TARGET.read_text()
    written, mark, _ = page.partition(MARK)
    if not mark:
        raise SystemExit(f"{TARGET.name} has lost the line {MARK.strip()}")
    current = written + mark + tables()
    if not check:
        TARGET.write_text(current)
    elif page != current:
        raise SystemExit(f"{TARGET.name} is not current: run `make metrics`")


if __name__ == "__main__":
    main()
