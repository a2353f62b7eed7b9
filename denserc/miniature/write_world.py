"""Write the miniature data sets (`denserc dataset miniature`).

Formats and folders are those of the real sets, so that the real loaders read them:

    coco/{train2017,val2017}/*.jpg                      scenes, those of LVIS included, as it annotates COCO's images
    coco/annotations/instances_{train,val}2017.json     all 65 classes
    coco/annotations/captions_{train,val}2017.json
    coco/annotations/panoptic_val2017.json              65 things and 8 stuff; PNGs in coco/panoptic_val2017/
    coco/annotations/panoptic_train2017.json            48 things and 6 stuff; other pixels have no segment
    coco/semantic/{train2017,val2017}/*.png             label files made of the panoptic ones, 255 where there is none
    coco/semantic/{train2017,val2017}_classes.json      names of the labels
    coco/annotations/ov_coco/*.json                     the 48 / 17 split, by the same code as the real one
    lvis/lvis_v1_{train,val,train_norare}.json          long-tailed training set, federated; rare = novel
    transfer/{val2017,annotations,panoptic_val2017,semantic}/   the other look and its names, all 73 classes
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..data.datasets.semantic_files import panoptic_jobs, write_label_files
from ..data.datasets.splits import write_lvis_norare, write_ov_coco_splits
from ..structures import Vocabulary
from ..structures.files import write_json, write_text
from . import annotations as entries
from .crops import View
from .scenes import compose_scene
from .world import CLASS_NAMES, NOVEL_NAMES, SEEN_NAMES, Domain

IGNORE_LABEL = 255
LAYOUT = 2
"""Version of the files. The demo writes a world of another version anew; version 1 had no semantic sets."""
_HEADER = {
    "info": {"description": "DenseRC's miniature world", "version": "1.0"},
    "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
}


@dataclass(frozen=True)
class Sizes:
    """Numbers of scenes per split, and their side in pixels."""

    train: int = 1500
    val: int = 250
    transfer: int = 200
    lvis_train: int = 600
    lvis_val: int = 150
    side: int = 128


class _Split:
    """The scenes of one split, drawn one by one with their image ids. Iteration writes the images.

    Args:
        folder: Folder of the images.
        first_id, step: Image ids are first_id, first_id + step, ...
        count: Number of scenes.
        side: Side of the scenes, pixels.
        seed: (seed of the world, number of the split).
        scene: Further arguments of `compose_scene`, such as domain and weights.
    """

    def __init__(self, folder: Path, first_id: int, step: int, count: int, side: int, seed: tuple[int, int], **scene):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._first, self._step, self._count, self._side = folder, first_id, step, count, side
        self._seed, self._scene = seed, scene

    @property
    def title(self) -> str:
        """Title of progress bars."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    def __iter__(self):
        """Yield (image id, view, generator for whatever else about this scene is random)."""
        for i in tqdm(range(self._count), desc=self.title, unit="scene"):
            rng = np.random.default_rng([*self._seed, i])
            view = View.of(compose_scene(rng, size=(self._side, self._side), **self._scene))
            image_id = self._first + self._step * i
            # Full chroma: a ten-pixel thing must keep its color.
            options = [
                cv2.IMWRITE_JPEG_QUALITY, 95,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
            ]  # fmt: skip
            _write_image(self.folder / f"{image_id:012d}.jpg", view.scene.image, options)
            yield image_id, view, rng


def write_world(root: str | Path, *, seed: int = 0, sizes: Sizes | None = None) -> None:
    """Write all data sets of the miniature world below `root`.

    Args:
        root: Folder, made when absent; the files it writes are replaced.
        seed: Seed of all scenes. The same seed and sizes give the same bytes.
        sizes: Numbers of scenes; the default if None.
    """
    root, sizes = Path(root), sizes or Sizes()
    coco, lvis, transfer = root / "coco", root / "lvis", root / "transfer"
    side = sizes.side
    train = _Split(coco / "train2017", 9, 3, sizes.train, side, (seed, 0))
    _write_coco(train, coco / "annotations", "train2017", file_order=1, segmented=SEEN_NAMES)
    val = _Split(coco / "val2017", 139, 7, sizes.val, side, (seed, 1))
    _write_coco(val, coco / "annotations", "val2017", file_order=2, segmented=entries.ALL_NAMES)
    lvis_train = _Split(
        coco / "train2017", 300_000, 2, sizes.lvis_train, side, (seed, 2), weights=entries.lvis_weights()
    )
    _write_lvis(lvis_train, lvis / "lvis_v1_train.json")
    _write_lvis(_Split(coco / "val2017", 300_001, 2, sizes.lvis_val, side, (seed, 3)), lvis / "lvis_v1_val.json")
    other = _Split(transfer / "val2017", 500_000, 5, sizes.transfer, side, (seed, 4), domain=Domain.TRANSFER)
    _write_coco(other, transfer / "annotations", "val2017", file_order=3, segmented=entries.ALL_NAMES)
    write_ov_coco_splits(
        coco / "annotations" / "ov_coco",
        Vocabulary(CLASS_NAMES, novel=NOVEL_NAMES),
        train_json=coco / "annotations" / "instances_train2017.json",
        val_json=coco / "annotations" / "instances_val2017.json",
    )
    write_lvis_norare(lvis / "lvis_v1_train_norare.json", lvis / "lvis_v1_train.json")


def _write_coco(split: _Split, folder: Path, name: str, *, file_order: int, segmented: Collection[str]) -> None:
    """Instances, captions, panoptic annotation and semantic label files of a split.

    Args:
        segmented: Classes that the panoptic annotation knows, in words of the main domain.
    """
    domain = Domain.MAIN
    images, instances, captions, panoptic = [], [], [], []
    png_folder = folder.parent / f"panoptic_{name}"
    png_folder.mkdir(parents=True, exist_ok=True)
    for image_id, view, rng in split:
        domain = view.scene.domain
        images.append(entries.image_entry(image_id, view, name))
        instances += entries.instance_entries(image_id, view, len(instances) + 1)
        captions += entries.caption_entries(image_id, view, len(captions) + 1, rng)
        entry, png = entries.panoptic_entry(image_id, view, rng, segmented)
        panoptic.append(entry)
        _write_image(png_folder / entry["file_name"], png, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    categories = entries.coco_categories(domain, file_order=file_order)
    _write_json(
        folder / f"instances_{name}.json", {"images": images, "annotations": instances, "categories": categories}
    )
    _write_json(folder / f"captions_{name}.json", {"images": images, "annotations": captions})
    panoptic_file = folder / f"panoptic_{name}.json"
    content = {
        "images": images,
        "annotations": panoptic,
        "categories": entries.panoptic_categories(domain, segmented),
    }
    _write_json(panoptic_file, content)
    labels = folder.parent / "semantic"
    jobs, classes = panoptic_jobs(panoptic_file, png_folder, split.folder, labels / name, IGNORE_LABEL)
    write_label_files(jobs, expected=len(images), title=f"{split.title} labels")
    write_json(labels / f"{name}_classes.json", list(classes))


def _write_lvis(split: _Split, path: Path) -> None:
    images, instances = [], []
    for image_id, view, rng in split:
        images.append(entries.lvis_image_entry(image_id, view, split.folder.name, rng))
        instances += entries.lvis_annotation_entries(images[-1], view, len(instances) + 1)
    content = {"images": images, "annotations": instances, "categories": entries.lvis_categories(instances)}
    _write_json(path, content)


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    """Write an RGB image; OSError if that fails."""
    encoded, data = cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]), options)
    if not encoded:
        raise OSError(f"OpenCV could not encode {path.name}.")
    path.write_bytes(data.tobytes())


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps({**_HEADER, **content}, separators=(",", ":")) + "\n")
