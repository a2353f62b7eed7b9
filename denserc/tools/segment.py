"""Pixels of pictures labeled by words, with the dense features of any encoder and nothing trained."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Subject:
    """One picture to segment.

    Args:
        file: The image.
        stem: Name of its results, "/" for folders.
        labels: Its label file; "" where there is none.
    """

    file: str
    stem: str
    labels: str = ""


def run(options: argparse.Namespace) -> None:
    """Segment all pictures with each encoder and write what the module names."""
    import numpy as np

    from ..data.images.labels import read_labels, write_labels
    from ..data.images.reading import read_rgb
    from ..structures.files import write_text
    from ..visualization import Picture, Section, Settings, save_picture, write_report
    from ..visualization.segmentation import class_colors, draw_labels, segmentation_page

    subjects, names, novel, to_class, name = _subjects(options)
    colors = class_colors(len(names))
    write_text(options.output / "classes.json", json.dumps(names, ensure_ascii=False) + "\n")
    shown = subjects[: options.page]
    pictures = [read_rgb(one.file) for one in shown]
    columns: dict[str, list] = {}
    if all(one.labels for one in subjects):
        columns["ground truth"] = [read_labels(one.labels).astype(np.int64) for one in shown]
    settings = {}
    for title, model in _models(options).items():
        _set_classes(model, options, name)
        settings[title] = str(model.constants)
        columns[title] = []
        for number, one in enumerate(subjects):
            pixels = read_rgb(one.file)
            found = _labels(model, pixels, to_class)
            dtype = np.uint8 if len(names) < 256 else np.uint16
            write_labels(options.output / "labels" / title / f"{one.stem}.png", found.astype(dtype))
            save_picture(options.output / "overlays" / title / f"{one.stem}.png", draw_labels(pixels, found, colors))
            if number < len(shown):
                columns[title].append(found)
    page = segmentation_page(pictures, columns, names, novel=novel)
    save_picture(options.output / "segmentation.png", page)
    rows = [
        Picture(segmentation_page([picture], {t: [c[i]] for t, c in columns.items()}, names, novel=novel), one.stem)
        for i, (picture, one) in enumerate(zip(pictures, shown, strict=True))
    ]
    settings["classes"] = f"{len(names)}, {len(novel)} of them novel"
    sections = [Section("Settings", [Settings(settings)]), Section("Pictures", rows)]
    lead = "Each pixel has the class whose text is nearest to the dense feature there. Novel classes are red."
    write_report(options.output / "segmentation.html", sections, title="Segmentation", lead=lead)
    print(f"wrote {len(subjects)} label maps per encoder, {options.output / 'segmentation.png'} and .html")


def _subjects(options: argparse.Namespace) -> tuple[list[Subject], list[str], list[str], Any, str]:
    """Pictures, names of the labels, novel ones, model label -> label, and the registered set ("" for a folder)."""
    import numpy as np

    from ..data.datasets.image_lists import Spread, folder_list
    from ..structures import ConfigurationError, DataError, Vocabulary

    if options.data_set:
        from detectron2.data import DatasetCatalog, MetadataCatalog

        from .region_entries import registered_set

        if options.names:
            raise ConfigurationError("--data-set brings its own names; use --images with --names.")
        name = registered_set(options.data_set)
        metadata = MetadataCatalog.get(name)
        if metadata.get("prediction_labels") is None:
            raise DataError(f"{name} is not a semantic set of datasets/README.md.")
        records = Spread(DatasetCatalog.get(name), options.number)
        subjects = [Subject(one["file_name"], one["image_id"], one["sem_seg_file_name"]) for one in records]
        to_class = np.array(metadata.prediction_labels)
        return subjects, list(metadata.stuff_classes), list(metadata.novel_classes), to_class, name
    names, novel = _listed(options.names), _listed(options.novel)
    if not names:
        raise ConfigurationError("--images needs --names: the classes to tell apart.")
    Vocabulary(names, novel=novel)
    path = Path(options.images)
    files = [str(path)] if path.is_file() else [file for file, _ in folder_list(path)]
    folder = path.parent if path.is_file() else path
    subjects = [Subject(one, Path(one).relative_to(folder).with_suffix("").as_posix()) for one in files]
    to_class = np.arange(len(names) + 1)
    return list(Spread(subjects, options.number)), names, novel, to_class, ""


def _listed(names: str) -> list[str]:
    """ "couch/sofa, wall" -> ["couch, sofa", "wall"]."""
    return [", ".join(part.strip() for part in name.split("/")) for name in names.split(",") if name.strip()]


def _models(options: argparse.Namespace) -> dict[str, Any]:
    """Title -> DenseSegmenter of each encoder."""
    from ..config import read_config
    from ..openvocab import engine
    from ..structures import ConfigurationError

    sources: Sequence[tuple[str, list]] = [
        (
            options.encoder,
            [
                "MODEL.ENCODER.NAME", options.encoder, "MODEL.ENCODER.WEIGHTS", options.weights,
                "MODEL.CONSTRUCTION.NAME", options.construction,
            ],
        )
    ]  # fmt: skip
    if options.checkpoint:
        sources = [_titled(given) for given in options.checkpoint]
    if len({title for title, _ in sources}) < len(sources):
        raise ConfigurationError(
            f"Encoders need titles of their own, TITLE=FILE; got {[title for title, _ in sources]}."
        )
    models = {}
    for title, keys in sources:
        cfg = read_config(
            None,
            [
                "MODEL.META_ARCHITECTURE", "DenseSegmenter", "MODEL.DEVICE", options.device, "INPUT.FORMAT", "RGB",
                "MODEL.VOCABULARY.TEMPLATES", options.templates, "MODEL.DENSE_SEGMENTER.PROTOCOL", options.protocol,
                "MODEL.DENSE_SEGMENTER.SHORT_SIDE", options.short_side,
                "MODEL.DENSE_SEGMENTER.THRESHOLD", options.threshold,
                "OUTPUT_DIR", str(options.output), *keys,
            ]
        )  # fmt: skip
        models[title] = engine.build(cfg).eval()
    return models


def _titled(given: str) -> tuple[str, list]:
    title, found, file = given.rpartition("=")
    path = Path(file)
    return title if found else f"{path.parent.name}_{path.stem}", ["MODEL.ENCODER.CHECKPOINT", str(path)]


def _set_classes(model: Any, options: argparse.Namespace, data_set: str) -> None:
    if data_set:
        model.use_dataset(data_set)
    else:
        model.set_vocabulary(
            _listed(options.names),
            novel=_listed(options.novel),
            background=options.background or options.threshold > 0,
        )


def _labels(model: Any, pixels: Any, to_class: Any) -> Any:
    """(H, W, 3) uint8 RGB -> (H, W) labels."""
    import torch

    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    return to_class[model([{"image": image}])[0]["sem_seg"].cpu().numpy()]
