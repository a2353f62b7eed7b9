"""A report in one self-contained HTML file, for light and dark windows."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..structures.files import atomic_path, write_text
from .canvas import check_picture
from .tables import ResultTable

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --quiet: #5f6670; --line: #d9dde3;
  --panel: #f5f6f8; --best: #0b6e37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #17191c; --quiet: #a0a7b1; --line: #3a3f46;
  --panel: #212429; --best: #6fd198; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; }
.note, figcaption { color: var(--quiet); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .75rem 0; }
th, td { padding: .4rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, .settings td { text-align: left; }
.settings td { white-space: normal; overflow-wrap: anywhere; }
thead th { color: var(--quiet); font-weight: 600; border-bottom: 2px solid var(--line); }
tbody th { font-weight: 500; }
td strong { color: var(--best); }
figure { margin: 1.25rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: 6px; }
figcaption { margin-top: .45rem; max-width: 46rem; }
nav ul { padding-left: 1.1rem; columns: 2; max-width: 46rem; }
nav a { color: inherit; }
pre { background: var(--panel); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Words:
    """A paragraph; blank lines part paragraphs."""

    text: str

    def to_html(self) -> str:
        """Escaped paragraphs."""
        return "".join(f"<p>{html.escape(part.strip())}</p>" for part in self.text.split("\n\n") if part.strip())


@dataclass(frozen=True)
class Listing:
    """Preformatted text: a command, a file's content."""

    text: str

    def to_html(self) -> str:
        """An escaped <pre>."""
        return f"<pre>{html.escape(self.text)}</pre>"


@dataclass(frozen=True)
class Settings:
    """Names and values."""

    values: Mapping[str, object]

    def to_html(self) -> str:
        """A table of two columns."""
        rows = "".join(
            f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.values.items()
        )
        return f'<div class="wide"><table class="settings"><tbody>{rows}</tbody></table></div>'


@dataclass(frozen=True)
class Picture:
    """A picture with its caption.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        caption: Caption and alternative text.
    """

    pixels: np.ndarray
    caption: str

    def to_html(self) -> str:
        """A <figure> that carries the picture as a PNG data URI."""
        words = html.escape(self.caption)
        return f'<figure><img alt="{words}" src="{data_uri(self.pixels)}"><figcaption>{words}</figcaption></figure>'


@dataclass(frozen=True)
class Section:
    """A heading and the blocks under it, in order."""

    title: str
    blocks: Sequence[Words | Listing | Settings | ResultTable | Picture]


def data_uri(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB -> "data:image/png;base64,..."."""
    buffer = BytesIO()
    Image.fromarray(check_picture(picture)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def save_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture as PNG, with the folders that it needs."""
    with atomic_path(path) as partial:
        Image.fromarray(check_picture(picture)).save(partial, format="PNG", optimize=True)


def write_report(path: str | Path, sections: Sequence[Section], *, title: str = "DenseRC", lead: str = "") -> None:
    """Write a report.

    Args:
        path: Path of the HTML file.
        sections: Sections in order; with more than three, a table of contents comes first.
        title: Title of the report.
        lead: A paragraph under the title.
    """
    parts = [f"<h1>{html.escape(title)}</h1>", Words(lead).to_html()]
    if len(sections) > 3:
        entries = "".join(f'<li><a href="#s{i}">{html.escape(s.title)}</a></li>' for i, s in enumerate(sections))
        parts.append(f"<nav><ul>{entries}</ul></nav>")
    for i, section in enumerate(sections):
        blocks = "".join(block.to_html() for block in section.blocks)
        parts.append(f'<section><h2 id="s{i}">{html.escape(section.title)}</h2>{blocks}</section>')
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    )
    body = "\n".join(parts)
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
    write_text(path, page)
