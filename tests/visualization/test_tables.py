import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from denserc.structures import DataError
from denserc.structures.files import write_json
from denserc.visualization import Better, Column, ResultTable, RunStatistics, print_table

COLUMNS = [
    Column("boxes", title="Boxes"),
    Column("seconds", Better.LOWER, digits=0),
    Column("layers", Better.NEITHER),
    Column("note", Better.NEITHER),
]
TABLE = ResultTable(
    COLUMNS,
    {
        "plain | CLIP": {"boxes": 18.24, "seconds": 10.0, "layers": 3, "note": "<none>"},
        "CLIPSelf": {"boxes": RunStatistics.of([76.0, 77.0, 78.0]), "seconds": 20.0, "layers": 9},
        "DenseRC": {"boxes": RunStatistics(77.01, 0.2, 3), "seconds": float("nan"), "note": "ours"},
    },
    corner="encoder",
    note="three seeds",
)


def parse_markdown(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")] for line in lines]
    return [[cell.replace("\0", "|") for cell in line] for line in split]


def test_spread_is_mean_and_sample_deviation():
    values = np.random.default_rng(0).normal(size=7)
    spread = RunStatistics.of(values)
    assert spread.mean == pytest.approx(values.mean()) and spread.deviation == pytest.approx(values.std(ddof=1))
    assert RunStatistics.of([3.0]) == RunStatistics(3.0, 0.0, 1)
    with pytest.raises(DataError):
        RunStatistics.of([])


def test_the_best_follow_the_direction_and_what_is_shown():
    boxes, seconds, layers, _ = COLUMNS
    assert TABLE.best(boxes) == {"CLIPSelf", "DenseRC"}  # 77.0 and 77.01 are shown as the same number
    assert TABLE.best(seconds) == {"plain | CLIP"}
    assert TABLE.best(layers) == set()
    alone = ResultTable([Column("a")], {"x": {"a": 1.0}, "y": {}})
    assert alone.best(alone.columns[0]) == set()


def test_markdown_parses_back():
    head, rule, *body = parse_markdown(TABLE.to_markdown())
    assert head == ["encoder", "Boxes", "seconds", "layers", "note"]
    assert all(set(cell) <= {"-", ":"} for cell in rule)
    assert body[0] == ["plain | CLIP", "18.2", "**10**", "3", "<none>"]
    assert body[1] == ["CLIPSelf", "**77.0 ± 1.0**", "20", "9", "–"]
    assert body[2] == ["DenseRC", "**77.0 ± 0.2**", "–", "–", "ours"]
    assert TABLE.to_markdown().endswith("three seeds")


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.strong, self._tag = [], [], ""

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        if self._tag in ("th", "td", "strong"):
            self.rows[-1].append(data)
            if self._tag == "strong":
                self.strong.append(data)


def test_html_says_the_same_as_markdown():
    parser = Cells()
    parser.feed(TABLE.to_html().split('<p class="note">')[0])
    head, _, *body = parse_markdown(TABLE.to_markdown())
    assert parser.rows == [head, *([cell.strip("*") for cell in row] for row in body)]
    assert parser.strong == ["10", "77.0 ± 1.0", "77.0 ± 0.2"]


def test_console_says_the_same():
    console = Console(file=io.StringIO(), width=120)
    print_table(TABLE, title="Results", console=console)
    printed = console.file.getvalue()
    for words in ("Results", "plain | CLIP", "77.0 ± 1.0", "18.2", "<none>", "three seeds"):
        assert words in printed


def test_results_are_strict_json(tmp_path):
    write_json(tmp_path / "a/r.json", {"table": TABLE, "x": float("inf"), "y": np.float32(1.5), "z": (1, None)})

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    content = json.loads((tmp_path / "a/r.json").read_text(), parse_constant=refuse)
    assert content["x"] is None and content["y"] == 1.5 and content["z"] == [1, None]
    assert content["table"][1]["boxes"] == {"mean": 77.0, "deviation": 1.0, "runs": 3}
    assert content["table"][2]["seconds"] is None and content["table"][2]["row"] == "DenseRC"


def test_numpy_numbers_are_shown_like_others():
    assert Column("a").text(np.float32(1.25)) == "1.2" and Column("a").text(np.int64(3)) == "3"
    assert Column("a").text(float("nan")) == Column("a").text(None) == "–"


def test_an_unknown_column_is_refused():
    with pytest.raises(DataError, match="typo"):
        ResultTable(COLUMNS, {"x": {"typo": 1.0}})
