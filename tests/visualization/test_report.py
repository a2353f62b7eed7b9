import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from denserc.structures import DataError
from denserc.visualization import Column, Listing, Picture, ResultTable, Section, Settings, Words, write_report

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Open tags must be closed in order; sources and links are collected."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text, self.headings, self.links = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.fixture
def report(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (20, 30, 3), dtype=np.uint8) for _ in range(3)]
    table = ResultTable([Column("a")], {"x": {"a": 1.0}, "y": {"a": 2.0}})
    sections = [
        Section("Words & <signs>", [Words("one <b>\n\ntwo"), Listing("make demo FRESH=1")]),
        Section("Settings", [Settings({"seed": 0, "<key>": "<value>"})]),
        Section("Table", [table]),
        Section("Pictures", [Picture(p, f'picture "{i}" <here>') for i, p in enumerate(pictures)]),
    ]
    write_report(tmp_path / "out/report.html", sections, title="Demo", lead="Lead.")
    return (tmp_path / "out/report.html").read_text(encoding="utf-8"), pictures, sections


def test_all_pictures_are_embedded_without_loss(report):
    page, pictures, _ = report
    checker = Checker()
    checker.feed(page)
    assert not checker.open and len(checker.sources) == 3
    for source, picture in zip(checker.sources, pictures, strict=True):
        head, data = source.split(",")
        assert head == "data:image/png;base64"
        np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(data)))), picture)


def test_nothing_outside_the_file_is_needed(report):
    page, _, _ = report
    checker = Checker()
    checker.feed(page)
    assert all(link.startswith("#") for link in checker.links)
    assert not re.search(r"https?://|@import|url\(|<script|<link", page)


def test_words_are_escaped_and_sections_are_linked(report):
    page, _, sections = report
    checker = Checker()
    checker.feed(page)
    assert checker.headings == [section.title for section in sections]
    assert [f"#s{i}" for i in range(4)] == checker.links
    text = " ".join(checker.text)
    for words in ("one <b>", "two", "make demo FRESH=1", "<key>", "<value>", 'picture "1" <here>', "Lead."):
        assert words in text
    assert "<b>" not in page and "prefers-color-scheme: dark" in page


def test_a_picture_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="uint8"):
        write_report(tmp_path / "r.html", [Section("a", [Picture(np.zeros((3, 3)), "")])])
