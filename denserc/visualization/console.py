"""Result tables on the console."""

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
    (console or Console()).print(drawn)
