"""Detections in the manner of the paper's Figure 6, novel classes red and base classes blue (`denserc show`).

A data set brings its vocabulary and its ground truth, which is the first column of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command's help needs neither torch nor Detectron2
    import numpy as np

    from ..predictor import Predictor
    from ..structures import Vocabulary
    from ..visualization import DrawnObjects


@dataclass(frozen=True)
class Shown:
    """One picture to detect in.

    Args:
        file: Path of the image.
        annotations: Detectron2's, with labels of the vocabulary; None if unknown.
    """

    file: str
    annotations: list[dict] | None = None


def from_data_set(given: str, number: int, *, novel_only: bool = False) -> tuple[list[Shown], Vocabulary]:
    """Evenly spread images of a set, with its vocabulary.

    Args:
        given: Name or YAML description of a set, see `registered_set`.
        number: Number of images; 0 for all.
        novel_only: True to show only images with an object of a novel class.

    Raises:
        DataError: The set is unknown, its files are absent, or no image is left.
    """
    from detectron2.data import DatasetCatalog

    from ..data.datasets.image_lists import Spread
    from ..data.datasets.registration import dataset_vocabulary
    from ..structures import DataError
    from .region_entries import registered_set

    name = registered_set(given)
    vocabulary = dataset_vocabulary(name)
    labels = {i for i, one in enumerate(vocabulary.names) if one in vocabulary.novel}
    records = DatasetCatalog.get(name)
    if novel_only:
        records = [r for r in records if any(a["category_id"] in labels for a in r["annotations"])]
    if not records:
        raise DataError(f"{name} has no image{' with a novel class' if novel_only else ''} to show.")
    return [Shown(r["file_name"], r["annotations"]) for r in Spread(records, number)], vocabulary


def from_folder(folder: str, number: int) -> list[Shown]:
    """Evenly spread images of a folder; 0 for all."""
    from ..data.datasets.image_lists import Spread, folder_list

    return [Shown(path) for path, _ in Spread(folder_list(folder), number)]


def drawn_size(size: tuple[int, int], largest: int) -> tuple[int, int]:
    """(h, w) of a picture on the page: the longer side at most `largest`, the aspect ratio kept."""
    factor = min(1.0, largest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def truth_of(shown: Shown, pixels: np.ndarray, size: tuple[int, int], vocabulary: Vocabulary) -> DrawnObjects:
    """The annotated objects of an image, crowds left out, in the pixels of a picture of it of another size (h, w)."""
    from detectron2.data import detection_utils
    from detectron2.data import transforms as T

    from ..visualization import DrawnObjects, true_objects

    scale = T.ResizeTransform(*pixels.shape[:2], *size)
    annotations = [dict(a, bbox=[float(v) for v in a["bbox"]]) for a in shown.annotations if not a.get("iscrowd", 0)]
    masks = bool(annotations) and all("segmentation" in a for a in annotations)
    moved = [detection_utils.transform_instance_annotations(a, T.TransformList([scale]), size) for a in annotations]
    truth = detection_utils.annotations_to_instances(moved, size, mask_format="bitmask" if masks else "polygon")
    return true_objects(truth, vocabulary) if moved else DrawnObjects([], [])


def show(
    detectors: dict[str, Predictor],
    pictures: Sequence[Shown],
    vocabulary: Vocabulary,
    output: Path,
    *,
    most: int,
    overlap: float,
    largest: int,
    masks: bool,
    max_pixels: int | None = None,
) -> list[str]:
    """Detect, draw and write the page; the detectors are set to the vocabulary.

    Args:
        detectors: Title -> detector; its threshold is the lowest score that is drawn.
        pictures: Images to detect in.
        vocabulary: Classes to detect.
        output: Folder of detections.png and detections.html.
        most: Most detections drawn in a picture.
        overlap: IoU from which only the better of two boxes is drawn, see `detected_objects`.
        largest: Longest side of a picture on the page, in pixels.
        masks: True to tint masks, where the detector or the annotations have them.
        max_pixels: Most pixels of a picture that is read; None for the default of `read_rgb`.

    Returns:
        An error message per picture that could not be read and is not on the page.

    Raises:
        DataError: No picture can be read.
    """
    import numpy as np
    from PIL import Image

    from ..data.images.opening import MAX_PIXELS
    from ..visualization import Picture, Section, Settings, detected_objects, detection_page, save_picture, write_report
    from .detect import require_detections
    from .reading import read_each

    for detector in detectors.values():
        detector.set_vocabulary(vocabulary.names, novel=vocabulary.novel)
    readable, drawn, truths, found = [], [], [], {title: [] for title in detectors}
    unreadable: list[str] = []
    known = all(shown.annotations is not None for shown in pictures)
    each = read_each(pictures, unreadable, path=lambda shown: shown.file, max_pixels=max_pixels or MAX_PIXELS)
    for shown, pixels in each:
        readable.append(shown)
        h, w = drawn_size(pixels.shape[:2], largest)
        drawn.append(np.array(Image.fromarray(pixels).resize((w, h), Image.Resampling.BICUBIC)))
        if known:
            truths.append(truth_of(shown, pixels, (h, w), vocabulary))
        for title, detector in detectors.items():
            result = detector(pixels, frame=(h, w))
            require_detections(result, detector)
            found[title].append(detected_objects(result, vocabulary, overlap=overlap).best(most))
    if not masks:
        truths = [replace(one, masks=None) for one in truths]
        found = {title: [replace(one, masks=None) for one in objects] for title, objects in found.items()}
    page = detection_page(drawn, truths if known else None, found)
    save_picture(output / "detections.png", page)
    rows = [
        Picture(
            detection_page([drawn[i]], [truths[i]] if known else None, {t: [o[i]] for t, o in found.items()}),
            f"{Path(shown.file).name}: " + "; ".join(f"{t}: {_in_words(o[i])}" for t, o in found.items()),
        )
        for i, shown in enumerate(readable)
    ]
    settings = {
        "classes": f"{len(vocabulary)}, {len(vocabulary.novel)} of them novel",
        "drawn": f"at most {most} detections per picture, only the best of boxes that overlap by more than {overlap}",
        "lowest score": ", ".join(f"{title}: {detector.threshold}" for title, detector in detectors.items()),
    }
    lead = "Novel classes are red, base classes blue."
    sections = [Section("Settings", [Settings(settings)]), Section("Detections", rows)]
    write_report(output / "detections.html", sections, title="Detections", lead=lead)
    return unreadable


def _in_words(objects: DrawnObjects) -> str:
    words = [f"{label} {score:.2f}" for label, score in zip(objects.labels, objects.scores, strict=True)]
    return ", ".join(words) or "nothing"


def titled(detectors: Sequence[str]) -> dict[str, Path]:
    """["DenseRC=a/model.pth", "b/model.pth"] -> {"DenseRC": a/model.pth, "b/model": b/model.pth}.

    Raises:
        ConfigurationError: Two detectors have one title.
    """
    from ..structures import ConfigurationError

    pairs = []
    for given in detectors:
        title, found, path = given.rpartition("=")
        own = Path(given)
        pairs.append((title, Path(path)) if found else (f"{own.parent.name}/{own.stem}".lstrip("/"), own))
    if len({title for title, _ in pairs}) < len(pairs):
        raise ConfigurationError(
            f"Detectors need titles of their own, TITLE=FILE; got {[title for title, _ in pairs]}."
        )
    return dict(pairs)
