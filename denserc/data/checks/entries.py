"""Checks of an annotation file's entries: form, references and duplicates."""

from collections import Counter

from .finding import CheckedSet, Finding, Severity, found, name_of

_MOSTLY = 0.5
# Findings after which nothing else can be checked.
FORM_CHECKS = frozenset(
    {"no-images", "no-categories", "malformed-images", "malformed-annotations", "malformed-categories"}
)


def check_entries(checked: CheckedSet) -> list[Finding]:
    """Every image, annotation and category has what its format needs."""
    findings = []
    for kind, fault in (("images", _image_fault), ("annotations", _annotation_fault), ("categories", _category_fault)):
        entries = checked.content[kind]
        if not isinstance(entries, list) or not entries:
            empty = kind == "annotations" and entries == []
            findings += found(
                "no-annotations" if empty else f"malformed-{kind}" if kind == "annotations" else f"no-{kind}",
                Severity.WARNING if empty else Severity.ERROR,
                f'"{kind}" is empty, or no list',
                "Export the file again.",
                [kind],
            )
            continue
        faults = [(entry, fault(entry)) for entry in entries]
        findings += found(
            f"malformed-{kind}",
            Severity.ERROR,
            f'entries of "{kind}" that COCO\'s format does not allow; the other checks were left out',
            "Export the file again, or put these entries right.",
            [f"{text}: {str(entry)[:100]}" for entry, text in faults if text],
        )
    return findings


def _image_fault(image: object) -> str:
    if not isinstance(image, dict) or not _is_id(image.get("id")):
        return "no id"
    if not isinstance(image.get("file_name", image.get("coco_url")), str):
        return "no file_name"
    sides = [image.get(side) for side in ("height", "width")]
    if not all(isinstance(side, (int, float)) and side > 0 and side % 1 == 0 for side in sides):
        return "height and width must be whole numbers above 0"
    return ""


def _annotation_fault(annotation: object) -> str:
    if not isinstance(annotation, dict):
        return "no mapping"
    absent = [key for key in ("image_id", "category_id", "bbox") if annotation.get(key) is None]
    if absent:
        return f"no {', '.join(absent)}"
    if not all(_is_id(annotation.get(key, 0)) for key in ("id", "image_id", "category_id")):
        return "ids must be numbers or text"
    return ""


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _category_fault(category: object) -> str:
    if not isinstance(category, dict) or not isinstance(category.get("id"), int) or isinstance(category["id"], bool):
        return "the id is no whole number"
    if not isinstance(category.get("name"), str) or not category["name"].strip():
        return "no name"
    return ""


def check_links(checked: CheckedSet) -> list[Finding]:
    """Annotations belong to images and categories of the file."""
    categories = {category["id"] for category in checked.categories}
    advice = "Remove these annotations, or export the file with what they belong to."
    return [
        *found(
            "unknown-image", Severity.ERROR, "annotations of images that the file does not list", advice,
            [name_of(a) for a in checked.annotations if a["image_id"] not in checked.image_of],
        ),
        *found(
            "unknown-category", Severity.ERROR, "annotations of categories that the file does not list", advice,
            [f"{name_of(a)}: {a['category_id']}" for a in checked.annotations if a["category_id"] not in categories],
        ),
    ]  # fmt: skip


def check_duplicates(checked: CheckedSet) -> list[Finding]:
    """Ids, files and boxes come once."""
    boxes = Counter((a["image_id"], a["category_id"], str(a["bbox"])) for a in checked.annotations)
    ids = Counter(a["id"] for a in checked.annotations if "id" in a)
    return [
        *found(
            "image-id-twice", Severity.ERROR, "image ids that come more than once; the last entry would win",
            "Give every image an id of its own.",
            [i for i, n in Counter(image["id"] for image in checked.images).items() if n > 1],
        ),
        *found(
            "image-file-twice", Severity.WARNING, "files that are listed as several images",
            "Merge their entries: an image is otherwise evaluated twice, each time with a part of its boxes.",
            [p for p, n in Counter(str(checked.path(image)) for image in checked.images).items() if n > 1],
        ),
        *found(
            "annotation-id-twice", Severity.WARNING, "annotation ids that come more than once",
            "Number the annotations anew. DenseRC does not use these ids, the COCO API does.",
            [i for i, n in ids.items() if n > 1],
        ),
        *found(
            "annotation-twice", Severity.WARNING, "boxes that come more than once in an image, with the same class",
            "Keep one of each: only one of them can be found, the others count as missed.",
            [f"image {image}: {box}" for (image, _, box), n in boxes.items() if n > 1],
        ),
    ]  # fmt: skip


def check_crowds(checked: CheckedSet) -> list[Finding]:
    """The crowd flag is 0 or 1, and most objects are not crowds."""
    odd = [a for a in checked.annotations if a.get("iscrowd", 0) not in (0, 1)]
    findings = found(
        "crowd-flag", Severity.ERROR, '"iscrowd" is neither 0 nor 1', "Set it to 0 or 1.",
        [f"{name_of(a)}: {a['iscrowd']!r}" for a in odd],
    )  # fmt: skip
    crowds = [a for a in checked.annotations if a.get("iscrowd", 0) == 1]
    mostly = len(crowds) > _MOSTLY * len(checked.annotations)
    return findings + found(
        "crowds",
        Severity.WARNING if mostly else Severity.NOTE,
        f"of {len(checked.annotations):,} annotations are crowds: not trained on, ignored in evaluation",
        "Set iscrowd to 0 where a box holds one object." if mostly else "Nothing, if they are crowds.",
        [name_of(a) for a in crowds],
    )
