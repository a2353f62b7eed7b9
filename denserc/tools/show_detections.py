"""Detections on pictures in the manner of the paper's Figure 6, novel classes red and base classes blue, as one page:

    python -m denserc.tools.show_detections --detector model_final.pth --data-set ov_coco_2017_val --output output/seen
    python -m denserc.tools.show_detections --detector CLIPSelf=a.pth DenseRC=b.pth --images photos/ \\
        --names "red cup, ball" --novel ball --output output/seen

A data set, registered by name or described in a YAML file, brings its vocabulary and its ground truth, which stands in
the first column. Writes detections.png and detections.html.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.data import transforms as T
from PIL import Image

from ..data.datasets.image_lists import Spread, folder_list
from ..data.datasets.registration import dataset_vocabulary
from ..data.images.reading import read_rgb
from ..detection import FViT, load_detector
from ..detection.data import evaluation_augmentations
from ..detection.modeling.options import Resampling
from ..engine import resolve_device
from ..structures import ConfigurationError, DataError, Vocabulary, choose
from ..visualization import (
    DrawnObjects,
    Picture,
    Section,
    Settings,
    detected_objects,
    detection_page,
    save_picture,
    true_objects,
    write_report,
)
from .region_entries import registered_set


@dataclass(frozen=True)
class Shown:
    """One picture to detect in.

    Args:
        file: of the image.
        annotations: Detectron2's, with labels of the vocabulary; None: unknown.
    """

    file: str
    annotations: list[dict] | None = None


def from_data_set(given: str, number: int, *, novel_only: bool = False) -> tuple[list[Shown], Vocabulary]:
    """Evenly spread images of a set, with its vocabulary.

    Args:
        given: see `registered_set`.
        number: how many; 0 for all.
        novel_only: only images that hold an object of a novel class.

    Raises:
        DataError: the set is unknown, its files are absent, or no image is left.
    """
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
    return [Shown(path) for path, _ in Spread(folder_list(folder), number)]


def drawn_size(size: tuple[int, int], largest: int) -> tuple[int, int]:
    """(h, w) of a picture on the page: the longer side at most `largest`, the aspect ratio kept."""
    factor = min(1.0, largest / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def input_transform(detector: FViT) -> T.AugmentationList:
    """How the detector's own configuration brings an image to the network's size."""
    settings = yaml.safe_load(detector.metadata["config"])["INPUT"]
    resampling = choose(Resampling, settings["RESAMPLING"], "INPUT.RESAMPLING")
    return T.AugmentationList(evaluation_augmentations(settings["SIZE"], resampling))


@torch.no_grad()
def detect(detector: FViT, pixels: np.ndarray, size: tuple[int, int], overlap: float) -> DrawnObjects:
    """Detections in an image (H, W, 3) uint8 RGB, in the pixels of a picture of it of another size (h, w)."""
    image = T.AugInput(pixels)
    input_transform(detector)(image)
    tensor = torch.from_numpy(np.ascontiguousarray(image.image.transpose(2, 0, 1)))
    found = detector([{"image": tensor, "height": size[0], "width": size[1]}])[0]["instances"]
    return detected_objects(found, detector.vocabulary, overlap=overlap)


def truth_of(shown: Shown, pixels: np.ndarray, size: tuple[int, int], vocabulary: Vocabulary) -> DrawnObjects:
    """The annotated objects of an image, crowds left out, in the pixels of a picture of it of another size (h, w)."""
    scale = T.ResizeTransform(*pixels.shape[:2], *size)
    annotations = [dict(a, bbox=[float(v) for v in a["bbox"]]) for a in shown.annotations if not a.get("iscrowd", 0)]
    masks = bool(annotations) and all("segmentation" in a for a in annotations)
    moved = [detection_utils.transform_instance_annotations(a, T.TransformList([scale]), size) for a in annotations]
    truth = detection_utils.annotations_to_instances(moved, size, mask_format="bitmask" if masks else "polygon")
    return true_objects(truth, vocabulary) if moved else DrawnObjects([], [])


def without_masks(objects: DrawnObjects) -> DrawnObjects:
    """The boxes alone."""
    return DrawnObjects(objects.boxes, objects.labels, objects.novel, objects.scores)


def show(
    detectors: dict[str, FViT],
    pictures: Sequence[Shown],
    vocabulary: Vocabulary,
    output: Path,
    *,
    threshold: float,
    most: int,
    overlap: float,
    largest: int,
    masks: bool,
) -> None:
    """Detect, draw and write the page; the detectors are set to the vocabulary.

    Args:
        detectors: title -> detector.
        output: folder of detections.png and detections.html.
        threshold, most: detections below the score, and those after so many, are not drawn.
        overlap: see `detected_objects`.
        largest: longer side of a picture on the page, at most.
        masks: tint masks, where the detector or the annotations have them.
    """
    for detector in detectors.values():
        detector.set_vocabulary(vocabulary.names, novel=vocabulary.novel)
    drawn, truths, found = [], [], {title: [] for title in detectors}
    known = all(shown.annotations is not None for shown in pictures)
    for shown in pictures:
        pixels = read_rgb(shown.file)
        h, w = drawn_size(pixels.shape[:2], largest)
        drawn.append(np.array(Image.fromarray(pixels).resize((w, h), Image.Resampling.BICUBIC)))
        if known:
            truths.append(truth_of(shown, pixels, (h, w), vocabulary))
        for title, detector in detectors.items():
            found[title].append(detect(detector, pixels, (h, w), overlap).best(most, threshold))
    if not masks:
        truths = [without_masks(one) for one in truths]
        found = {title: [without_masks(one) for one in objects] for title, objects in found.items()}
    page = detection_page(drawn, truths if known else None, found)
    save_picture(output / "detections.png", page)
    rows = [
        Picture(
            detection_page([drawn[i]], [truths[i]] if known else None, {t: [o[i]] for t, o in found.items()}),
            f"{Path(shown.file).name}: " + "; ".join(f"{t}: {_in_words(o[i])}" for t, o in found.items()),
        )
        for i, shown in enumerate(pictures)
    ]
    settings = {
        "classes": f"{len(vocabulary)}, {len(vocabulary.novel)} of them novel",
        "drawn": f"at most {most} detections a picture with a score of at least {threshold}, one where boxes overlap "
        f"by more than {overlap}",
    }
    lead = "Novel classes are red, base classes blue."
    sections = [Section("Settings", [Settings(settings)]), Section("Detections", rows)]
    write_report(output / "detections.html", sections, title="Detections", lead=lead)


def _in_words(objects: DrawnObjects) -> str:
    words = [f"{label} {score:.2f}" for label, score in zip(objects.labels, objects.scores, strict=True)]
    return ", ".join(words) or "nothing"


def titled(detectors: Sequence[str]) -> dict[str, Path]:
    """["DenseRC=a/model.pth", "b/model.pth"] -> {"DenseRC": a/model.pth, "b/model": b/model.pth}.

    Raises:
        ConfigurationError: a title twice.
    """
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


def listed(names: str) -> list[str]:
    """ "red cup, ball" -> ["red cup", "ball"]."""
    return [name.strip() for name in names.split(",") if name.strip()]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", nargs="+", required=True, metavar="[TITLE=]FILE", help="detector checkpoints")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data-set", help="a registered set, or a YAML description of one's own")
    source.add_argument("--images", help="a folder of images")
    parser.add_argument("--names", default="", help="classes to detect, with commas; for a data set its own by default")
    parser.add_argument("--novel", default="", help="those of --names that are novel")
    parser.add_argument("--output", type=Path, required=True, help="folder of detections.png and detections.html")
    parser.add_argument("--number", type=int, default=8, help="pictures, evenly spread; 0: all (8)")
    parser.add_argument("--novel-only", action="store_true", help="of a data set, images with novel objects alone")
    parser.add_argument("--threshold", type=float, default=0.2, help="least score that is drawn (0.2)")
    parser.add_argument("--most", type=int, default=12, help="detections drawn in a picture, at most (12)")
    parser.add_argument("--overlap", type=float, default=0.5, help="IoU from which the better box alone is drawn (0.5)")
    parser.add_argument("--largest", type=int, default=640, help="longer side of a picture on the page (640)")
    parser.add_argument("--masks", action="store_true", help="draw masks too")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    args = parser.parse_args(arguments)
    names = Vocabulary(listed(args.names), listed(args.novel)) if args.names else None
    if args.data_set:
        pictures, vocabulary = from_data_set(args.data_set, args.number, novel_only=args.novel_only)
        if names is not None:  # labels of the annotations follow the set's own vocabulary
            pictures, vocabulary = [Shown(shown.file) for shown in pictures], names
    elif names is None:
        raise ConfigurationError("--images needs --names: the classes to detect.")
    else:
        pictures, vocabulary = from_folder(args.images, args.number), names
    device = str(resolve_device(args.device))
    detectors = {title: load_detector(path, device=device) for title, path in titled(args.detector).items()}
    show(
        detectors,
        pictures,
        vocabulary,
        args.output,
        threshold=args.threshold,
        most=args.most,
        overlap=args.overlap,
        largest=args.largest,
        masks=args.masks,
    )
    print(f"wrote {args.output / 'detections.png'} and {args.output / 'detections.html'}")


if __name__ == "__main__":
    main()
