"""Tables whose cells can be copied: names are never cut."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table


def table(*columns: str | Column) -> Table:
    """A table without lines.

    Args:
        columns: headings; the cells of those that are texts stay whole, those of a `Column` give way where there is
            not enough room.
    """
    made = [Column(column, no_wrap=True) if isinstance(column, str) else column for column in columns]
    return Table(*made, box=None, pad_edge=False, header_style="bold dim")


def print_table(rows: Table, console: Console | None = None) -> None:
    """Prints a table as wide as the terminal; where that is too narrow for the whole cells, the terminal breaks the
    lines. What goes to a file or a program has one line for each row."""
    console = console or Console()
    options = console.options.update(width=10_000)
    for column in rows.columns:
        if column.no_wrap:
            cells = (column.header, *column.cells)
            column.min_width = max(Measurement.get(console, options, cell).maximum for cell in cells)
    needed = Measurement.get(console, options, rows)
    room = max(console.width, needed.minimum) if console.is_terminal else needed.maximum
    rows.width = min(room, needed.maximum)
    console.print(rows, crop=False)
