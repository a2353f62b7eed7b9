"""Checks of image files: present, readable, of the annotated size, and not in both training and evaluation."""

import hashlib
import os
from collections import defaultdict

from tqdm import tqdm

from ...structures import DataError
from ..datasets.image_lists import Spread
from ..images.reading import read_rgb
from .finding import CheckedSet, Finding, Severity, found

_LONG_JOB = 200


def check_overlap(training: CheckedSet, evaluation: CheckedSet) -> list[Finding]:
    """No image is in both sets, by its file."""
    trained = {training.path(image).resolve() for image in training.images}
    both = [str(path) for image in evaluation.images if (path := evaluation.path(image)).resolve() in trained]
    return found(
        "overlap",
        Severity.ERROR,
        f"images of {evaluation.name} that are in {training.name} too: its results would be too good",
        "Take them out of one of the two.",
        both,
    )


def check_files(checked: CheckedSet) -> list[Finding]:
    """Every image of the file exists."""
    absent = [str(checked.path(image)) for image in checked.images if not os.path.isfile(checked.path(image))]
    if absent and len(absent) == len(checked.images):
        return found(
            "images-absent", Severity.ERROR, f"none of the images lies below {checked.image_root}",
            "Set the set's image folder to the one that the file's names start from.", absent,
        )  # fmt: skip
    return found("image-absent", Severity.ERROR, "images that do not exist",
                 "Download or copy them, or take them out of the file.", absent)  # fmt: skip


def check_pictures(checked: CheckedSet, sample: int = 0) -> list[Finding]:
    """Read images.

    Args:
        sample: Number of pictures, spread evenly over the set; 0 for all.
    """
    present = [image for image in checked.images if os.path.isfile(checked.path(image))]
    chosen = Spread(present, sample)
    unreadable, rotated, other_size, of_content = [], [], [], defaultdict(list)
    for image in tqdm(chosen, desc=f"read {checked.name}", disable=len(chosen) < _LONG_JOB):
        path = checked.path(image)
        try:
            size = read_rgb(path).shape[:2]
        except DataError as error:
            unreadable.append(error)
            continue
        of_content[hashlib.sha256(path.read_bytes()).digest()].append(str(path))
        said = (image["height"], image["width"])
        if size == said[::-1] and size != said:
            rotated.append(f"{path}: {size} (h, w) upright, {said} in the file")
        elif size != said:
            other_size.append(f"{path}: {size} (h, w), {said} in the file")
    return [
        *found("image-unreadable", Severity.ERROR, "images that cannot be read", "Download or export them again.",
               unreadable),
        *found("image-rotated", Severity.ERROR, "images whose height and width are exchanged in the annotations",
               "Annotate them upright: their EXIF rotation was ignored. Or remove the EXIF tag.", rotated),
        *found("image-size", Severity.ERROR, "images of another size than the annotations say",
               "Use the images that were annotated, or scale boxes and sizes with them.", other_size),
        *found("image-content-twice", Severity.WARNING, "images with the same content as another",
               "Keep one of each.", [" = ".join(paths) for paths in of_content.values() if len(paths) > 1]),
    ]  # fmt: skip
