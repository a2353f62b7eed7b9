"""Pixels of pictures labeled by words, by several models side by side (`denserc segment`).

Files: labels/MODEL/NAME.png (values are classes in the order of classes.json; the value after them is background),
overlays/MODEL/NAME.png, areas.csv (pixels per picture, model and class), and the page segmentation.png and .html in the
manner of the paper's Figure 7: picture, ground truth where there is one, models side by side.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("file", "model", "class", "pixels", "share")
BEYOND = "background"  # name of the label after the classes


@dataclass(frozen=True)
class Subject:
    """One picture to segment.

    Args:
        file: Image file.
        stem: Name of its results, "/" for folders.
        labels: Label file of the image; "" where there is none.
    """

    file: str
    stem: str
    labels: str = ""


@dataclass(frozen=True)
class Subjects:
    """Pictures and the classes of their pixels.

    Args:
        pictures: At least one.
        names: Names of the labels.
        novel: Names that training has not used.
        data_set: Registered set that they are from, whose vocabulary the models take; "" for pictures of a user.
        to_class: Label of each label that a model gives; None for the identity.
        ignore_label: Value of the label files that names no class.
    """

    pictures: Sequence[Subject]
    names: Sequence[str]
    novel: Sequence[str] = ()
    data_set: str = ""
    to_class: Sequence[int] | None = None
    ignore_label: int = 255


def segment(
    predictors: Mapping[str, Any],
    subjects: Subjects,
    output: str | Path,
    *,
    page: int = 12,
    settings: Mapping[str, str] | None = None,
    max_pixels: int | None = None,
) -> list[str]:
    """Segment all pictures with each model and write what the module names.

    Args:
        predictors: Title -> Predictor of a model that labels pixels, with the vocabulary of the subjects.
        output: Folder to write to.
        page: Pictures on the page, at most.
        settings: Title -> description of the model, for the page.
        max_pixels: Most pixels of a picture that is read; None for the default of `read_rgb`.

    Returns:
        An error message per picture that could not be read and was left out.

    Raises:
        ConfigurationError: A model that detects boxes.
        DataError: No picture can be read, a label file cannot, or they have different sizes.
    """
    import json

    import numpy as np

    from ..data.images.labels import write_labels
    from ..data.images.opening import MAX_PIXELS
    from ..structures.files import write_text
    from ..visualization import save_picture
    from ..visualization.segmentation import class_colors, draw_labels
    from .reading import read_each

    output, names = Path(output), list(subjects.names)
    colors, dtype = class_colors(len(names)), np.uint8 if len(names) < 256 else np.uint16
    write_text(output / "classes.json", json.dumps(names, ensure_ascii=False) + "\n")
    shown: list[tuple[Subject, Any]] = []
    truth, unreadable = [], []
    found: dict[str, list] = {title: [] for title in predictors}
    rows: dict[str, list[tuple]] = {title: [] for title in predictors}
    each = read_each(subjects.pictures, unreadable, path=lambda one: one.file, max_pixels=max_pixels or MAX_PIXELS)
    for one, pixels in each:
        on_page = len(shown) < page
        if on_page:
            shown.append((one, pixels))
            if one.labels:
                truth.append(_ground_truth(one, subjects.ignore_label))
        for title, predictor in predictors.items():
            labels = _labels(predictor, pixels, subjects)
            write_labels(output / "labels" / title / f"{one.stem}.png", labels.astype(dtype))
            save_picture(output / "overlays" / title / f"{one.stem}.png", draw_labels(pixels, labels, colors))
            rows[title] += _areas(one.file, title, labels, names)
            if on_page:
                found[title].append(labels)
    _write_areas(output / "areas.csv", [row for own in rows.values() for row in own])
    columns = {"ground truth": truth} if len(truth) == len(shown) else {}
    _write_page(output, subjects, shown, columns | found, dict(settings or {}))
    return unreadable


def _labels(predictor: Any, pixels: Any, subjects: Subjects) -> Any:
    """(H, W, 3) uint8 RGB -> (H, W) int64 labels; len(names) is background."""
    import numpy as np

    from ..predictor import Segmentation
    from ..structures import ConfigurationError

    result = predictor(pixels)
    if not isinstance(result, Segmentation):
        raise ConfigurationError(
            f"{type(predictor.model).__name__} detects boxes, and this command needs a model that labels pixels. Use "
            "`denserc detect`."
        )
    found = result.labels.numpy()
    if subjects.to_class is None:
        return found
    # A model may have a background that the set does not have.
    return np.array([*subjects.to_class, len(subjects.names)])[np.minimum(found, len(subjects.to_class))]


def _ground_truth(one: Subject, ignore_label: int) -> Any:
    """(H, W) int64 labels, -1 where pixels are ignored."""
    import numpy as np

    from ..data.images.labels import read_labels

    labels = read_labels(one.labels).astype(np.int64)
    labels[labels == ignore_label] = -1
    return labels


def _areas(file: str, title: str, found: Any, names: Sequence[str]) -> list[tuple]:
    """Rows of areas.csv of one label map, largest first."""
    import numpy as np

    counts = np.bincount(found.reshape(-1), minlength=len(names) + 1)
    occurring = sorted(np.flatnonzero(counts).tolist(), key=lambda label: -counts[label])
    titles = [*names, BEYOND]
    return [
        (file, title, titles[label], int(counts[label]), f"{counts[label] / found.size:.6f}") for label in occurring
    ]


def _write_areas(path: Path, rows: list[tuple]) -> None:
    import csv

    from ..structures import atomic_path

    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def _write_page(
    output: Path,
    subjects: Subjects,
    shown: Sequence[tuple[Subject, Any]],
    columns: dict[str, list],
    settings: dict[str, str],
) -> None:
    from ..visualization import Picture, Section, Settings, save_picture, write_report
    from ..visualization.segmentation import segmentation_page

    names, novel = subjects.names, subjects.novel
    pictures = [picture for _, picture in shown]
    save_picture(output / "segmentation.png", segmentation_page(pictures, columns, names, novel=novel))
    rows = [
        Picture(segmentation_page([picture], {t: [c[i]] for t, c in columns.items()}, names, novel=novel), one.stem)
        for i, (one, picture) in enumerate(shown)
    ]
    settings["classes"] = f"{len(names)}, {len(novel)} of them novel"
    sections = [Section("Settings", [Settings(settings)]), Section("Pictures", rows)]
    lead = "The class of each pixel by each model. Names of novel classes are red and end with an asterisk."
    write_report(output / "segmentation.html", sections, title="Segmentation", lead=lead)


def photographs(
    given: Sequence[str], names: Sequence[str], *, novel: Iterable[str] = (), labels: str = "", number: int = 0
) -> Subjects:
    """Pictures of a user.

    Args:
        given: Image files, folders and patterns, see `image_files`.
        names: Class names to segment.
        novel: Names that are marked as novel.
        labels: Folder of label files with the pictures' names, whose value k is the k-th name; "" for none.
        number: Pictures, evenly spread; 0 for all.

    Raises:
        ConfigurationError: No names.
        DataError: No pictures, names that are not a vocabulary, or a picture without its label file.
    """
    from ..data.datasets.image_lists import Spread
    from ..data.datasets.semantic import LABEL_SUFFIXES, files_by_stem
    from ..structures import ConfigurationError, DataError, Vocabulary
    from .detect import image_files

    if not names:
        raise ConfigurationError("Pictures need --names: the classes to tell apart.")
    vocabulary = Vocabulary(names, novel=novel)
    files = Spread(list(image_files(given).items()), number)
    stems = [Path(name).with_suffix("").as_posix() for _, name in files]
    truth = files_by_stem(labels, LABEL_SUFFIXES) if labels else {}
    missing = [stem for stem in stems if labels and stem not in truth]
    if missing:
        raise DataError(f"{labels} has no label file (PNG or TIFF) for {len(missing)} pictures, such as {missing[0]}.")
    pictures = [
        Subject(str(file), stem if stems.count(stem) == 1 else name, truth.get(stem, ""))
        for (file, name), stem in zip(files, stems, strict=True)
    ]
    ignore_label = 255 if len(names) <= 255 else 65535
    return Subjects(pictures, vocabulary.names, tuple(novel), ignore_label=ignore_label)


def data_set_pictures(given: str, *, number: int = 0) -> Subjects:
    """Pictures of a registered semantic set, or of a YAML description, with its ground truth.

    Raises:
        DataError: No such set, or not a semantic one.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from ..data.datasets.image_lists import Spread
    from ..structures import DataError
    from .region_entries import registered_set

    name = registered_set(given)
    metadata = MetadataCatalog.get(name)
    if metadata.get("prediction_labels") is None:
        raise DataError(f"{name} is not a semantic set of datasets/README.md.")
    records = Spread(DatasetCatalog.get(name), number)
    pictures = [Subject(one["file_name"], one["image_id"], one["sem_seg_file_name"]) for one in records]
    return Subjects(
        pictures,
        metadata.stuff_classes,
        metadata.novel_classes,
        name,
        metadata.prediction_labels,
        metadata.ignore_label,
    )


def dense_segmenter(
    encoder: Mapping[str, Any],
    *,
    protocol: str = "declip",
    templates: str = "openai",
    short_side: int = 0,
    threshold: float = -1.0,
    device: str = "auto",
    cache_dir: str | Path = "",
) -> Any:
    """A DenseSegmenter over an encoder.

    Args:
        encoder: Keys of MODEL.ENCODER and MODEL.CONSTRUCTION with their values.
        protocol: Sizes, windows and names, see docs/DENSE_SEGMENTATION.md.
        templates: Name of the prompt templates.
        short_side: Shorter side of the resized picture, pixels; 0 for the protocol's.
        threshold: Probability below which a pixel is background; negative for the protocol's.
        device: "auto", or a device of PyTorch.
        cache_dir: Folder of cached text embeddings.
    """
    from ..config import read_config
    from ..openvocab import engine

    cfg = read_config(
        None,
        [
            "MODEL.META_ARCHITECTURE", "DenseSegmenter", "MODEL.DEVICE", device, "INPUT.FORMAT", "RGB",
            "MODEL.VOCABULARY.TEMPLATES", templates, "MODEL.VOCABULARY.CACHE_DIR", str(cache_dir),
            "MODEL.DENSE_SEGMENTER.PROTOCOL", protocol, "MODEL.DENSE_SEGMENTER.SHORT_SIDE", short_side,
            "MODEL.DENSE_SEGMENTER.THRESHOLD", threshold, *(part for pair in encoder.items() for part in pair),
        ]
    )  # fmt: skip
    return engine.build(cfg).eval()


def titled(given: str) -> tuple[str, str]:
    """ "TITLE=FILE" or "FILE" -> title, by default of the file and its folder, and file."""
    title, found, file = given.rpartition("=")
    path = Path(file)
    return title if found else "_".join(part for part in (path.parent.name, path.stem) if part), file


def description(model: Any) -> str:
    """Describe a model in one line, for the page."""
    kind = f"{type(model).__name__} over {model.metadata.get('encoder', 'an unnamed encoder')}"
    return f"{kind}; {model.constants}" if hasattr(model, "constants") else kind
