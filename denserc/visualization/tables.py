"""Result tables: one object, shown on the console, in HTML, in Markdown and as JSON."""

import html
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..structures import DataError
from ..structures.files import finite_or_null


class Better(Enum):
    """Direction in which the values of a column are better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


@dataclass(frozen=True)
class RunStatistics:
    """Mean and deviation of several runs of one measurement.

    Args:
        mean: Mean over the runs.
        deviation: The sample standard deviation; 0 for a single run.
        runs: Number of runs.
    """

    mean: float
    deviation: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "RunStatistics":
        """Build from the runs' values; DataError when there is none."""
        values = [float(value) for value in values]
        if not values:
            raise DataError("A spread needs at least one value.")
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0, len(values))

    def to_json(self) -> dict[str, float | int]:
        """{"mean", "deviation", "runs"}."""
        return asdict(self)


Cell = float | int | str | RunStatistics | None


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: Key of its values and, unless `title` is given, its heading.
        better: Values that are marked as the best ones.
        digits: Number of digits after the decimal point.
        title: Heading of the column.
    """

    name: str
    better: Better = Better.HIGHER
    digits: int = 1
    title: str = ""

    @property
    def heading(self) -> str:
        """Heading of the column."""
        return self.title or self.name

    def text(self, cell: Cell) -> str:
        """A cell in words: "12.3", "12.3 ± 0.4"; "–" for nothing and for what is not a number."""
        if isinstance(cell, RunStatistics) and cell.runs > 1 and not math.isnan(cell.mean):
            return f"{cell.mean:.{self.digits}f} ± {cell.deviation:.{self.digits}f}"
        value = cell.mean if isinstance(cell, RunStatistics) else cell
        if value is None or (isinstance(value, Real) and math.isnan(value)):
            return "–"
        return f"{value:.{self.digits}f}" if isinstance(value, Real) and not isinstance(value, Integral) else str(value)


@dataclass(frozen=True)
class ResultTable:
    """Rows of measurements.

    Args:
        columns: Columns in the order shown.
        rows: Row name -> {column name: cell}; a missing cell is shown as "–".
        corner: Heading of the row names.
        note: A line below the table.
    """

    columns: Sequence[Column]
    rows: Mapping[str, Mapping[str, Cell]]
    corner: str = ""
    note: str = ""

    def __post_init__(self):
        known = {column.name for column in self.columns}
        strays = sorted({name for cells in self.rows.values() for name in cells} - known)
        if strays:
            raise DataError(f"The table has no columns {strays}; it has {sorted(known)}.")

    def best(self, column: Column) -> set[str]:
        """The rows with the best value of a column as it is shown (ties included); none where fewer than two compare.

        Values that are displayed equally count as equal: bold makes no claim about hidden digits.
        """
        shown = {}
        for row, cells in self.rows.items():
            cell = cells.get(column.name)
            value = cell.mean if isinstance(cell, RunStatistics) else cell
            if isinstance(value, Real) and not math.isnan(value):
                shown[row] = round(float(value), column.digits)
        if column.better is Better.NEITHER or len(shown) < 2:
            return set()
        top = max(shown.values()) if column.better is Better.HIGHER else min(shown.values())
        return {row for row, value in shown.items() if value == top}

    def cells(self) -> list[tuple[str, list[tuple[str, bool]]]]:
        """Row name and, for each column, (text, is best)."""
        best = {column.name: self.best(column) for column in self.columns}
        return [
            (row, [(c.text(cells.get(c.name)), row in best[c.name]) for c in self.columns])
            for row, cells in self.rows.items()
        ]

    def to_markdown(self) -> str:
        """A GitHub table, numbers to the right, the best in bold."""
        lines = [[self.corner, *(column.heading for column in self.columns)]]
        lines += [[row, *(f"**{text}**" if best else text for text, best in cells)] for row, cells in self.cells()]
        escaped = [[text.replace("|", "\\|") for text in line] for line in lines]
        widths = [max(3, *(len(line[i]) for line in escaped)) for i in range(len(lines[0]))]
        padded = [
            " | ".join(
                text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in escaped
        ]
        rule = " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths))
        table = "\n".join(f"| {line} |" for line in [padded[0], rule, *padded[1:]])
        return table + (f"\n\n{self.note}" if self.note else "")

    def to_html(self) -> str:
        """A <table>; everything escaped."""
        head = "".join(f"<th>{html.escape(text)}</th>" for text in [self.corner, *(c.heading for c in self.columns)])
        body = []
        for row, cells in self.cells():
            values = "".join(
                f"<td><strong>{html.escape(text)}</strong></td>" if best else f"<td>{html.escape(text)}</td>"
                for text, best in cells
            )
            body.append(f"<tr><th>{html.escape(row)}</th>{values}</tr>")
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        return (
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>{note}'
        )

    def to_json(self) -> list[dict[str, Any]]:
        """One object per row: {"row": name, column: value}; a spread as {"mean", "deviation", "runs"}."""
        return [
            {"row": row} | {c.name: finite_or_null(cells.get(c.name)) for c in self.columns}
            for row, cells in self.rows.items()
        ]


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
