"""Published class lists as vocabularies; the names are JSON files in class_lists/.

Sources: OV-COCO's 48 / 17 split of COCO (the "generalized" 65), LVIS v1 with its frequencies (rare is novel),
Pascal VOC, Objects365 v1 (its "tissue " keeps the trailing blank of the original file) and v2 (misspelt names of the
official file corrected), COCO panoptic.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

from ...structures import ConfigurationError, DataError, Vocabulary, class_names
from ...structures.records import read_json, read_text, short

_COMMENT = re.compile(r"\s*#(\s|$)")


@cache
def _asset(name: str) -> dict:
    return json.loads((files(__package__) / "class_lists" / f"{name}.json").read_text(encoding="utf-8"))


def lvis_frequencies() -> dict[str, str]:
    """LVIS v1's 1,203 names in category-id order -> "f" (frequent), "c" (common) or "r" (rare)."""
    asset = _asset("lvis_v1")
    return dict(zip(asset["names"], asset["frequency"], strict=True))


def panoptic_stuff() -> frozenset[str]:
    """The 53 stuff names among COCO panoptic's 133."""
    return frozenset(_asset("coco_panoptic")["stuff"])


def objects365_v2_misspelt() -> dict[str, str]:
    """Names of Objects365 v2 that the official file misspells: {our name: as the file has it}."""
    return dict(_asset("objects365_v2")["misspelt"])


def _ov_coco() -> Vocabulary:
    return Vocabulary(_asset("coco")["open"], novel=_asset("coco")["novel"])


def _ov_lvis() -> Vocabulary:
    frequencies = lvis_frequencies()
    return Vocabulary(tuple(frequencies), novel=[name for name, f in frequencies.items() if f == "r"])


def _coco_panoptic() -> Vocabulary:
    return Vocabulary(_asset("coco_panoptic")["things"] + _asset("coco_panoptic")["stuff"])


def ade20k_full_ids() -> tuple[int, ...]:
    """The id in ADE20K's full label files of each of the 847 classes, in the order of "ade20k_847"."""
    return tuple(_asset("ade20k_847")["ids"])


def pascal_context_ids() -> tuple[int, ...]:
    """The ids, counted from 1 among the 459, of the 59 classes of PASCAL-Context, ascending."""
    return tuple(_asset("pascal_context")["ids_of_59"])


def cityscapes_ids() -> tuple[int, ...]:
    """The value in Cityscapes' labelIds files of each of the 19 classes, in the order of "cityscapes"."""
    return tuple(_asset("cityscapes")["label_ids"])


def _pascal_context_59() -> Vocabulary:
    asset = _asset("pascal_context")
    names = [asset["names"][i - 1] for i in asset["ids_of_59"]]
    return Vocabulary([asset["renamed_in_59"].get(name, name) for name in names])


def _joined_voc() -> list[str]:
    return [name.replace(" ", "") for name in _asset("voc")["names"]]


VOCABULARIES: dict[str, Callable[[], Vocabulary]] = {
    "ov_coco": _ov_coco,  # 65 = 48 base + 17 novel
    "ov_lvis": _ov_lvis,  # 1,203 = 866 base (frequent and common) + 337 novel (rare)
    "coco": lambda: Vocabulary(_asset("coco")["all"]),  # 80
    "coco_panoptic": _coco_panoptic,  # 133 by category id = 80 things + 53 stuff
    "objects365_v1": lambda: Vocabulary(_asset("objects365_v1")["names"]),  # 365
    "objects365_v2": lambda: Vocabulary(_asset("objects365_v2")["names"]),  # 365 others
    "voc": lambda: Vocabulary(_asset("voc")["names"]),  # 20
    # Segmentation, in the order of the label files' values; spelled as CAT-Seg prompts them.
    "coco_stuff": lambda: Vocabulary(_asset("coco")["all"] + _asset("coco_stuff")["stuff"]),  # 171 = 80 + 91
    "ade20k_150": lambda: Vocabulary(_asset("ade20k_150")["names"]),
    "ade20k_847": lambda: Vocabulary(_asset("ade20k_847")["names"]),  # synonyms after ", "
    "pascal_context_59": _pascal_context_59,
    "pascal_context_459": lambda: Vocabulary(_asset("pascal_context")["names"]),
    "voc_joined": lambda: Vocabulary(_joined_voc()),  # 20: "pottedplant"
    "voc_background": lambda: Vocabulary(_joined_voc() + _asset("voc_background")["names"]),  # 20, and 39 backgrounds
    "cityscapes": lambda: Vocabulary(_asset("cityscapes")["names"]),  # 19
}


def vocabulary(name: str) -> Vocabulary:
    """A published vocabulary by name; ConfigurationError lists the known ones."""
    if name not in VOCABULARIES:
        raise ConfigurationError(f"Unknown vocabulary {name!r}; known: {sorted(VOCABULARIES)}.")
    return VOCABULARIES[name]()


def read_class_list(path: str | Path) -> tuple[str, ...]:
    """Class names from a user's file: a JSON list of texts (.json), or a text file with one name per line.

    In a text file, blank lines are skipped, and so are comments: lines that are "#", or begin with "# ". A class may
    be called "#1 player". A JSON file has no comments.

    Raises:
        DataError: The file is absent, unreadable, has no name, a name twice, or a value that is not a name.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        content = read_json(path, "class list")
        if not isinstance(content, list):
            raise DataError(f'The class list {path} is {short(content)}; expected is a list, such as ["cat", "dog"].')
        places = [(f"entry {i}", name) for i, name in enumerate(content)]
    else:
        lines = enumerate(re.split(r"\r\n|\r|\n", read_text(path, "class list")), start=1)
        places = [(f"line {i}", line.strip()) for i, line in lines if line.strip() and not _COMMENT.match(line)]
        if places and places[0][1].startswith(('["', "['")):
            raise DataError(
                f"The class list {path} looks like JSON, and a text file has one name per line. Name it "
                f"{path.with_suffix('.json').name}."
            )
    if not places:
        raise DataError(f"The class list {path} has no names; expected is one per line, or a JSON list (.json).")
    first: dict[str, str] = {}
    for place, name in places:
        class_names([name], f"The class list {path}, {place}")
        if first.setdefault(name, place) != place:
            raise DataError(f"The class list {path} has {name!r} twice: {first[name]} and {place}. Remove one.")
    return tuple(first)
