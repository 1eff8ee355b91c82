from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Column
from rich.text import Text

from daf.tables import print_table, table

NAME = "cogsguard_evals.eval_multi_coordinated_collect_hard"
ABOUT = "a description that is longer than the room that is left for it beside such a name"


def printed(width: int, terminal: bool) -> list[str]:
    rows = table("mission", "score", Column("about"))
    rows.add_row(NAME, "0.5 [0.25, 0.75]", Text(ABOUT, no_wrap=True, overflow="ellipsis"))
    file = io.StringIO()
    print_table(rows, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_names_and_scores_stay_whole_on_any_terminal(width: int) -> None:
    _, row = printed(width, terminal=True)

    assert row.startswith(f"{NAME}  0.5 [0.25, 0.75]")


def test_what_may_give_way_does_so_at_the_width_of_the_terminal() -> None:
    _, row = printed(90, terminal=True)

    assert row.endswith("…")
    assert len(row) <= 90


def test_a_program_gets_everything_on_one_line() -> None:
    _, row = printed(80, terminal=False)

    assert row.endswith(ABOUT)
