"""Objects365 and Pascal VOC as annotation files for zero-shot transfer, derived from only the official files."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...structures import DataError, Vocabulary
from ...structures.files import write_json
from ...structures.records import MAX_ID, short
from ..vocabulary.names import categories_by_name, find_names
from .entries import read_annotations
from .image_lists import voc_list
from .splits import SplitCounts, count
from .voc_xml import read_voc_xml

logger = logging.getLogger(__name__)

OBJECTS365_VAL = "objects365_val_names.json"  # written below objects365v1/ or objects365v2/
VOC_TEST = "voc2007_test.json"  # written below VOCdevkit/VOC2007/
OBJECTS365_VAL_IMAGES = {"v1": 30_000, "v2": 80_000}
VOC_IMAGES = {("VOC2007", "test"): 4_952, ("VOC2007", "trainval"): 5_011}


def objects365_names(content: dict, vocabulary: Vocabulary, misspelt: Mapping[str, str] | None = None) -> dict:
    """An Objects365 file whose categories have the vocabulary's names and order.

    The official files list their categories in an order of their own, train another than val, with trailing blanks
    ("tissue ") and, in v2, misspelt names. Category ids stay the file's, so annotations are untouched.

    Args:
        content: Content of an official file; not changed.
        misspelt: {name of the vocabulary: as the official file spells it}.

    Raises:
        DataError: The file's classes are not those of the vocabulary, each once.
    """
    by_name = categories_by_name(content["categories"])
    found = find_names(vocabulary.names, by_name, misspelt)
    absent = [name for name in vocabulary.names if name not in found]
    unknown = sorted(set(by_name) - set(found.values()))
    if absent or unknown or len(set(found.values())) != len(found):
        raise DataError(
            f"The file's {len(by_name)} categories are not the {len(vocabulary)} expected: it lacks {absent[:10]} and "
            f"has besides {unknown[:10]}. Is it the other version of Objects365?"
        )
    categories = [{**by_name[found[name]], "name": name} for name in vocabulary.names]
    return {**content, "categories": categories}


def short_paths(content: dict) -> dict:
    """The file with images named by their last two parts: "images/v1/patch8/a.jpg" -> "patch8/a.jpg"."""
    images = [
        {**image, "file_name": "/".join(image["file_name"].split("/")[-2:])} if "file_name" in image else image
        for image in content["images"]
    ]
    return {**content, "images": images}


def write_objects365(
    out_file: str | Path,
    json_file: str | Path,
    vocabulary: Vocabulary,
    *,
    misspelt: Mapping[str, str] | None = None,
    image_root: str | Path | None = None,
    expected_images: int | None = None,
) -> SplitCounts:
    """Write an official Objects365 file with the vocabulary's names; returns its counts.

    Args:
        image_root: Folder of its images. When the first of them is not there by the file's own name but by its
            last two parts (the patches unpacked side by side), names are shortened to these.
        expected_images: Number of images, checked before anything is written.

    Raises:
        DataError: See objects365_names; or another number of images.
    """
    content = objects365_names(read_annotations(json_file), vocabulary, misspelt)
    counts = count(content)
    counts.require(images=expected_images, what=str(json_file))
    if image_root is not None and "file_name" in content["images"][0]:
        shortened = short_paths({"images": content["images"][:1]})["images"][0]["file_name"]
        official = content["images"][0]["file_name"]
        if not (Path(image_root) / official).is_file() and (Path(image_root) / shortened).is_file():
            content = short_paths(content)
    write_json(out_file, content)
    return counts


def voc_annotations(root: str | Path, image_set: str, names: Sequence[str]) -> dict:
    """A Pascal VOC image set as the content of a COCO annotation file.

    VOC's corners count pixels from 1 and belong to the box; here a box is (x, y, width, height) from 0. Objects
    marked difficult become crowds ("iscrowd": 1): not trained on, and neither to be found nor wrong when found, which
    is VOC's rule except that COCO's evaluation measures the overlap with a crowd by the detection's own area.

    Args:
        root: e.g. VOCdevkit/VOC2007.
        image_set: A list in ImageSets/Main, e.g. "test".
        names: Class names, in the order of the category ids from 1; spellings as in `find_names`.

    Raises:
        DataError: A list, an annotation or an image's folder is absent or malformed, or a class is not in `names`.
    """
    root, list_file = Path(root), f"ImageSets/Main/{image_set}.txt"
    images, annotations = [], []
    category = {name: number for number, name in enumerate(names, 1)}
    for image_id, (path, name) in _voc_ids(voc_list(root, list_file), root / list_file).items():
        found = read_voc_xml(root / "Annotations" / f"{name}.xml")
        images.append({"id": image_id, "file_name": Path(path).name, "height": found.height, "width": found.width})
        for item in found.objects:
            meant = find_names([item.name], names).get(item.name)
            if meant is None:
                raise DataError(f"{item.where}: <name> is {short(item.name)}; known classes are {', '.join(names)}.")
            x1, y1, x2, y2 = item.corners
            box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category[meant],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(item.difficult),
                }
            )
    categories = [{"id": number, "name": name} for name, number in category.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_voc(
    out_file: str | Path, root: str | Path, image_set: str, names: Sequence[str], *, expected_images: int | None = None
) -> SplitCounts:
    """Write `voc_annotations` as a file; its counts. DataError, before anything is written, on unexpected counts."""
    content = voc_annotations(root, image_set, names)
    counts = count(content)
    counts.require(images=expected_images, what=f"{root}, image set {image_set}")
    write_json(out_file, content)
    return counts


def _voc_ids(pairs: Sequence[tuple[str, str]], list_file: Path) -> dict[int, tuple[str, str]]:
    """{image id: (path, name)}: the id is the name without "_". A name that comes twice is taken once.

    Raises:
        DataError: A name is not a number, or two names have the same id.
    """
    found: dict[int, tuple[str, str]] = {}
    for path, name in pairs:
        digits = name.replace("_", "")
        image_id = int(digits) if re.fullmatch("[0-9]{1,16}", digits) else MAX_ID
        if image_id >= MAX_ID:
            raise DataError(
                f"{list_file}: {short(name)} is not a name of Pascal VOC, digits such as 000001 or 2008_000001. Rename "
                "the image and its annotation; the digits become its id."
            )
        if found.setdefault(image_id, (path, name))[1] != name:
            raise DataError(
                f"{list_file}: {name!r} and {found[image_id][1]!r} are both image {image_id}. Rename one of them."
            )
    if len(found) < len(pairs):
        logger.warning("%s: %d names come twice and are taken once.", list_file, len(pairs) - len(found))
    return found
