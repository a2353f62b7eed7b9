"""Result tables on the console."""

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .tables import ResultTable


def print_table(table: ResultTable, *, title: str = "", console: Console | None = None) -> None:
    """Print a table, the best values bold and green; it wraps where the terminal is narrow."""
    drawn = Table(title=title or None, caption=table.note or None, title_justify="left", caption_justify="left")
    drawn.add_column(Text(table.corner), justify="left")
    for column in table.columns:
        drawn.add_column(Text(column.heading), justify="right")
    for row, cells in table.cells():
        drawn.add_row(Text(row), *(Text(text, style="bold green" if best else "") for text, best in cells))
    # Where nobody watches (a pipe, a file) rich assumes 80 columns; a table in a log may be wider.
    (console or (Console() if sys.stdout.isatty() else Console(width=120))).print(drawn)
