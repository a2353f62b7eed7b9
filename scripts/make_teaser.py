"""Make README's picture from the pages of a finished demo: one scene detected, two scenes segmented.

python scripts/make_teaser.py output/demo docs/teaser.jpg
"""

import sys
from pathlib import Path

from PIL import Image

WIDTH, GAP = 1000, 8  # pixels
TITLES = 36  # height of a page's row of titles, pixels
PAGES = {"detections.png": (4, 1), "segmentation_main.png": (5, 2)}  # page -> columns, scenes shown


def top(page: Image.Image, columns: int, scenes: int) -> Image.Image:
    """Titles and first scenes of a page of square cells, WIDTH pixels wide."""
    shown = page.crop((0, 0, page.width, TITLES + scenes * (page.width // columns) - GAP - 2))
    return shown.resize((WIDTH, round(shown.height * WIDTH / shown.width)), Image.LANCZOS)


def main(demo: Path, target: Path) -> None:
    """Write the picture."""
    parts = [top(Image.open(demo / name).convert("RGB"), *shape) for name, shape in PAGES.items()]
    picture = Image.new("RGB", (WIDTH, sum(part.height + GAP for part in parts)), "white")
    y = 0
    for part in parts:
        picture.paste(part, (0, y))
        y += part.height + GAP
    picture.save(target, quality=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
