"""The data sets that configs name, registered below one root folder. datasets/README.md shows the layout.

Nothing is read of the large sets until they are used, and absent files are not an error until then. The miniature sets
have their own classes: their small class files are read if they exist, so register again after writing them.
"""

from collections.abc import Callable
from pathlib import Path

from ...structures import DataError, Vocabulary
from ..vocabulary.published import read_class_list, vocabulary
from .catalog import register
from .entries import read_annotations
from .image_lists import ade20k_list, coco_folder_list, voc_list
from .panoptic import register_panoptic_regions
from .registration import register_open_vocab_dataset
from .semantic import register_semantic_dataset, register_semantic_sets
from .splits import CLASSES, OV_COCO_TRAIN, OV_COCO_VAL, class_lists, read_classes
from .transfer import OBJECTS365_VAL, VOC_TEST


def register_all(root: str | Path) -> None:
    """Register every built-in set below `root`; registering again, also with another root, replaces them."""
    root = Path(root)
    coco, lvis = root / "coco", root / "lvis"
    _register_ov_coco("ov_coco_2017_train_base", "ov_coco_2017_val", coco, vocabulary("ov_coco"))
    _register_panoptic("coco_2017_panoptic_val_regions", coco)
    _register_lvis(
        "ov_lvis_v1_train_norare", lvis / "lvis_v1_train_norare.json", coco, vocabulary("ov_lvis"), training=True
    )
    _register_lvis("ov_lvis_v1_val", lvis / "lvis_v1_val.json", coco, vocabulary("ov_lvis"), training=False)
    _register_transfer("coco_2017_val_transfer", coco / "annotations/instances_val2017.json", coco / "val2017", "coco")
    for version in ("v1", "v2"):
        folder = root / f"objects365{version}"
        _register_transfer(
            f"objects365_{version}_val", folder / OBJECTS365_VAL, folder / "val", f"objects365_{version}"
        )
    voc = root / "VOCdevkit" / "VOC2007"
    _register_transfer("voc_2007_test", voc / VOC_TEST, voc / "JPEGImages", "voc")
    _register_images("coco_2017_train_images", lambda: coco_folder_list(coco / "train2017"))
    _register_images("voc_2012_segmentation_train_images", lambda: voc_list(root / "VOCdevkit" / "VOC2012"))
    _register_images("ade20k_training_images", lambda: ade20k_list(root / "ADEChallengeData2016"))
    register_semantic_sets(root)
    register_miniature(root / "miniature")


def register_miniature(root: str | Path) -> None:
    """Register the miniature sets, whose folders have the layout of the large ones below `root`."""
    root = Path(root)
    coco, lvis, transfer = root / "coco", root / "lvis", root / "transfer"
    _register_panoptic("miniature_panoptic_val_regions", coco)

    classes = coco / "annotations" / "ov_coco" / CLASSES
    names = ("miniature_ov_coco_train_base", "miniature_ov_coco_val")
    if classes.is_file():
        _register_ov_coco(*names, coco, read_classes(classes))
    else:
        _register_absent(classes, *names)

    for name, file, training in (
        ("miniature_lvis_train_norare", lvis / "lvis_v1_train_norare.json", True),
        ("miniature_lvis_val", lvis / "lvis_v1_val.json", False),
    ):
        if file.is_file():
            _register_lvis(name, file, coco, _own_vocabulary(file), training=training)
        else:
            _register_absent(file, name)

    file = transfer / "annotations" / "instances_val2017.json"
    if file.is_file():
        _register_transfer("miniature_transfer_val", file, transfer / "val2017", _own_vocabulary(file))
    else:
        _register_absent(file, "miniature_transfer_val")

    _register_miniature_semantic("miniature_semantic_train_seen", coco, "train2017", training=True)
    _register_miniature_semantic("miniature_semantic_val", coco, "val2017", trained="train2017")
    _register_miniature_semantic("miniature_semantic_transfer_val", transfer, "val2017")


def _register_ov_coco(train: str, val: str, coco: Path, classes: Vocabulary) -> None:
    folder = coco / "annotations" / "ov_coco"
    for name, file, images, training in (
        (train, OV_COCO_TRAIN, "train2017", True),
        (val, OV_COCO_VAL, "val2017", False),
    ):
        register_open_vocab_dataset(
            name, folder / file, coco / images, **class_lists(classes), evaluator_type="ov_coco", training=training
        )


def _register_transfer(name: str, file: Path, images: Path, classes: str | Vocabulary) -> None:
    # No class was trained on under these names; one treatment for all, as in the published transfer.
    names = vocabulary(classes).names if isinstance(classes, str) else classes.names
    register_open_vocab_dataset(name, file, images, base=names)


def _register_miniature_semantic(
    name: str, root: Path, split: str, *, trained: str | None = None, training: bool = False
) -> None:
    """Register label files below `root`; classes that the split `trained` does not have are novel.

    The training set has no names of novel classes, so that none is learned as a negative.
    """
    folder = root / "semantic"
    files = [folder / f"{one}_classes.json" for one in (split, trained) if one is not None]
    absent = [file for file in files if not file.is_file()]
    if absent:
        _register_absent(absent[0], name)
        return
    names, seen = (read_class_list(file) for file in (files[0], files[-1]))
    register_semantic_dataset(
        name,
        root / split,
        folder / split,
        classes=names,
        novel=[one for one in names if one not in seen],
        training=training,
    )


def _register_lvis(name: str, file: Path, coco: Path, classes: Vocabulary, *, training: bool) -> None:
    # LVIS annotates COCO's images; "coco_url" names the folder of each.
    register_open_vocab_dataset(name, file, coco, **class_lists(classes), evaluator_type="ov_lvis", training=training)


def _register_panoptic(name: str, coco: Path) -> None:
    register_panoptic_regions(
        name,
        coco / "annotations" / "panoptic_val2017.json",
        # The official zip unpacks inside annotations/; Detectron2's layout has the folder beside it.
        [coco / "panoptic_val2017", coco / "annotations" / "panoptic_val2017"],
        coco / "val2017",
    )


def _register_images(name: str, images: Callable[[], list[tuple[str, int | str]]]) -> None:
    """Images for distillation, which needs no boxes: images without annotations are included."""
    register(name, lambda: [{"file_name": path, "image_id": image_id} for path, image_id in images()])


def _register_absent(file: Path, *names: str) -> None:
    def load() -> list[dict]:
        raise DataError(
            f"{file} did not exist when the data sets were registered. Write the miniature world first: "
            "denserc dataset miniature --root ROOT/miniature."
        )

    for name in names:
        register(name, load)


def _own_vocabulary(json_file: Path) -> Vocabulary:
    """All categories of an annotation file by id; the rare ones, where it knows frequencies, are novel."""
    categories = sorted(read_annotations(json_file)["categories"], key=lambda c: c["id"])
    rare = [c["name"] for c in categories if c.get("frequency") == "r"]
    return Vocabulary([c["name"] for c in categories], novel=rare)
