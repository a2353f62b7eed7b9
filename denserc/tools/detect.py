"""Detections in photographs, as pictures, COCO JSON and CSV (`denserc detect`).

Files: pictures/ (boxes drawn), detections.json (COCO's results format), images.json (COCO's images and categories, to
which the ids in detections.json belong) and detections.csv. Boxes are in pixels of the upright photograph.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

COLUMNS = ("file", "name", "score", "x1", "y1", "x2", "y2")


def detect(
    predictor, files: dict[Path, str], output: Path, *, pictures: bool = True, max_pixels: int | None = None
) -> tuple[int, list[str]]:
    """Detect in files and write the results.

    Args:
        predictor: Predictor with a vocabulary, whose results are Instances.
        files: File -> its name in the results (`image_files`).
        output: Folder to write to.
        pictures: True to draw pictures.
        max_pixels: Most pixels of a picture that is read; None for the default of `read_rgb`.

    Returns:
        The number of detections, and an error message per image that could not be read.

    Raises:
        DataError: No image can be read.
        ConfigurationError: The model labels pixels instead.
    """
    from detectron2.evaluation.coco_evaluation import instances_to_coco_json
    from tqdm import tqdm

    from ..data.images.opening import MAX_PIXELS
    from ..structures import atomic_path
    from .reading import read_each

    images, results, rows, unreadable = [], [], [], []
    with tqdm(total=len(files), desc="detect", unit="image", disable=None) as bar:
        watched = _counted(files.items(), bar)
        pairs = read_each(watched, unreadable, path=lambda item: item[0], max_pixels=max_pixels or MAX_PIXELS)
        for batch in _batches(pairs, predictor.batch_size):
            for ((_, name), pixels), found in zip(batch, predictor([pixels for _, pixels in batch]), strict=True):
                require_detections(found, predictor)
                height, width = pixels.shape[:2]
                images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
                for one in instances_to_coco_json(found, len(images)):
                    results.append({**one, "category_id": one["category_id"] + 1})
                rows += [
                    (name, label, f"{score:.4f}", *(f"{value:.1f}" for value in box))
                    for label, score, box in zip(
                        found.class_names, found.scores.tolist(), found.pred_boxes.tensor.tolist(), strict=True
                    )
                ]
                if pictures:
                    with atomic_path(output / "pictures" / f"{name}.jpg") as partial:
                        predictor.draw(pixels, found).save(partial, quality=92)
    _write(output, predictor.names, images, results, rows)
    return len(results), unreadable


def require_detections(found, predictor) -> None:
    """Refuse the results of a model that labels pixels and finds no boxes.

    Raises:
        ConfigurationError: `found` are not Instances.
    """
    from detectron2.structures import Instances

    from ..structures import ConfigurationError

    if not isinstance(found, Instances):
        raise ConfigurationError(
            f"{type(predictor.model).__name__} labels pixels, and this command needs a model that detects boxes. Use "
            "`denserc segment --model`, or denserc.Predictor in Python."
        )


def image_files(given: Sequence[str]) -> dict[Path, str]:
    """The image files of folders, files and patterns, each with a name of its own for the results.

    A name is the path below the given folder, or the file's own name; one that is taken already gets a number.
    Hidden files, such as "._photo.jpg", are left out of folders and patterns.

    Raises:
        DataError: Something given does not exist, or holds no image.
    """
    from glob import glob

    from ..data.datasets.image_lists import IMAGE_SUFFIXES, folder_list
    from ..structures import DataError

    found: dict[Path, str] = {}
    for one in given:
        path = Path(one)
        if path.is_dir():
            paths = [Path(file) for file, _ in folder_list(path)]
            named = {file: file.relative_to(path) for file in paths}
        elif path.exists():
            named = {path: Path(path.name)}
        else:
            paths = sorted(Path(file) for file in glob(one, recursive=True))
            named = {file: Path(file.name) for file in paths if file.suffix.lower() in IMAGE_SUFFIXES}
        if not named:
            raise DataError(f"{one} is neither an image, a folder of images nor a pattern that matches some.")
        for file, name in named.items():
            if file not in found:
                found[file] = _unused(name.as_posix(), set(found.values()))
    return found


def _unused(name: str, taken: set[str]) -> str:
    number, candidate = 1, Path(name)
    while candidate.as_posix() in taken:
        number += 1
        candidate = Path(name).with_stem(f"{Path(name).stem}_{number}")
    return candidate.as_posix()


def _counted(items: Iterable, bar) -> Iterator:
    """The items, each counted by the bar when the next is asked for."""
    for item in items:
        yield item
        bar.update()


def _batches(items: Iterable, size: int) -> Iterator[list]:
    """Lists of up to `size` items."""
    from itertools import islice

    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def _write(output: Path, names: Sequence[str], images: list[dict], results: list[dict], rows: list[tuple]) -> None:
    import csv
    import json

    from ..structures import atomic_path
    from ..structures.files import write_text

    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    content = {"info": {}, "images": images, "categories": categories, "annotations": []}
    write_text(output / "images.json", json.dumps(content))
    write_text(output / "detections.json", json.dumps(results))
    with atomic_path(output / "detections.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
