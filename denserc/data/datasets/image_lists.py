"""Image files of published data sets as (path, id) pairs: COCO and LVIS, Pascal VOC, ADE20K, any folder.

No image is opened. `Spread` picks evenly spaced items of such a list.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...structures import DataError
from ...structures.files import read_annotation_file
from ...structures.records import Record, read_text, short


class Spread(Sequence):
    """Evenly spaced items of a sequence, read on access.

    Args:
        items: The whole sequence.
        number: Number of items; 0, or more than there are: all.
    """

    def __init__(self, items: Sequence, number: int):
        number = min(number, len(items)) if number > 0 else len(items)
        self._items = items
        self._indices = [i * len(items) // number for i in range(number)]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int):
        return self._items[self._indices[index]]


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
VOC_LIST = "ImageSets/Segmentation/train.txt"  # 1,464 images in VOC2012
ADE20K_IMAGES = "images/training"  # 20,210 images in ADEChallengeData2016

_LOOKED_AT = 100
_NO_PATH = re.compile(r"\\|://|\0|^/data/(upload|local-files)/")


def folder_list(folder: str | Path) -> list[tuple[str, str]]:
    """Every image file below a folder, sorted by path, which is also its id; hidden files and folders are left out.

    Raises:
        DataError: The folder is missing or holds no image.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder of images.")
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        paths += [
            os.path.join(parent, name)
            for name in names
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    paths.sort()
    if not paths:
        raise DataError(f"No image below {folder}; looked for {sorted(IMAGE_SUFFIXES)}.")
    return [(path, path) for path in paths]


def coco_folder_list(folder: str | Path) -> list[tuple[str, int]]:
    """Every image of a folder of COCO's, without its annotation file: the file's name is the id.

    Raises:
        DataError: As folder_list; or a file's name is not a number.
    """
    pairs = folder_list(folder)
    wrong = [path for path, _ in pairs if not Path(path).stem.isdecimal()]
    if wrong:
        raise DataError(f"{folder} should hold COCO's images, whose names are numbers, but has {wrong[:5]}.")
    return [(path, int(Path(path).stem)) for path, _ in pairs]


def coco_list(json_file: str | Path, image_root: str | Path) -> list[tuple[str, int | str]]:
    """The images of a COCO or LVIS JSON with its ids; of its keys only "images" is needed.

    Raises:
        DataError: The file is absent, malformed or empty, or its images are not below `image_root`.
    """
    images = Record(str(json_file), read_annotation_file(json_file, keys=("images",)))
    if not images.list("images"):
        raise DataError(f"{json_file} lists no images.")
    pairs = [_path_and_id(image, Path(image_root)) for image in images.records("images")]
    _require_most(pairs, f"{json_file} with the image root {image_root}")
    return pairs


def voc_list(root: str | Path, list_file: str = VOC_LIST) -> list[tuple[str, str]]:
    """The images that a list of Pascal VOC names; the id is the name in the list.

    Args:
        root: e.g. VOCdevkit/VOC2012, with JPEGImages and ImageSets.
        list_file: File relative to `root`; the first word of each line is a name.

    Raises:
        DataError: The list is absent or empty, or its images are.
    """
    path = Path(root) / list_file
    advice = (
        "Pascal VOC is named by its folder with JPEGImages and ImageSets, e.g. VOCdevkit/VOC2012; see "
        "datasets/README.md."
    )
    words = [line.split() for line in read_text(path, "image list", advice=advice).splitlines()]
    pairs = [(str(Path(root) / "JPEGImages" / f"{word[0]}.jpg"), word[0]) for word in words if word]
    if not pairs:
        raise DataError(f"{path} names no image.")
    _require_most(pairs, str(path))
    return pairs


def ade20k_list(root: str | Path, images: str = ADE20K_IMAGES) -> list[tuple[str, str]]:
    """ADE20K's images below ADEChallengeData2016; the id is the file's name without its suffix.

    Args:
        root: e.g. ADEChallengeData2016.
        images: Folder below it.
    """
    return [(path, Path(path).stem) for path, _ in folder_list(Path(root) / images)]


def _path_and_id(image: Record, image_root: Path) -> tuple[str, int | str]:
    name = "coco_url" if image.fields.get("file_name") is None and "coco_url" in image.fields else "file_name"
    if not image.text(name) or "\0" in image.text(name):
        raise image.fault(name, "the name of a file")
    image.name("id")  # a number or text: proposals are found by it
    return str(image_path({name: image.fields[name]}, image_root)), image.fields["id"]


def image_path(image: dict, image_root: Path) -> Path:
    """Path of an entry of a file's "images": by its "file_name", else by the last two parts of its "coco_url".

    Raises:
        DataError: The entry has neither, or its name is Windows' path or a web address.
    """
    if "file_name" in image:
        name = image["file_name"]
        if not isinstance(name, str) or _NO_PATH.search(name):
            _require_path(name, image, image_root)
        return image_root / name
    if "coco_url" in image:
        url = image["coco_url"]
        if not isinstance(url, str) or not url:
            raise DataError(f"Image {image.get('id')}: 'coco_url' is {short(url)}; expected is a web address.")
        return image_root.joinpath(*url.split("/")[-2:])
    raise DataError(f"Image {image.get('id')} has neither a file_name nor a coco_url.")


def _require_path(name: object, image: dict, image_root: Path) -> None:
    """Refuse what only looks like a path below the folder of the images."""
    if not isinstance(name, str) or "\0" in name:
        given, advice = short(name), "expected is the path of a file, a text"
    elif os.path.isfile(image_root / name):  # a file may be called so
        return
    elif "://" in name:
        given, advice = f"{short(name)}, an address", "download the images and write their names below the image folder"
    elif name.startswith("/data/"):
        given, advice = f"{short(name)}, a path of Label Studio", "write the file's name below the image folder"
    else:
        given, advice = f"{short(name)}, with Windows' backslashes", "write / for \\ in all file names"
    raise DataError(
        f"Image {short(image.get('id'))}: 'file_name' is {given}; {advice}. The image folder is {image_root}."
    )


def _require_most(pairs: Sequence[tuple[str, int | str]], source: str) -> None:
    """Raise DataError if most images are absent: a wrong root. The reader reports and counts single ones."""
    some = [path for path, _ in pairs[:: max(1, len(pairs) // _LOOKED_AT)]]
    absent = [path for path in some if not os.path.isfile(path)]
    if len(absent) > len(some) / 2:
        raise DataError(
            f"{source}: {len(absent)} of {len(some)} images looked for do not exist, the first {absent[0]}. Check the "
            "folder of the images."
        )
