"""Checks of an annotation file's entries: what its reader refuses or repairs, duplicates, and LVIS's fields."""

from collections import Counter

from ..datasets.entry_faults import FAULTS, REPAIRS
from ..datasets.entry_rules import LVIS_KEYS
from .finding import CheckedSet, Finding, Severity, found, name_of, printable

_MOSTLY = 0.5
_FREQUENCIES = ("f", "c", "r")
# Findings after which nothing else can be checked.
FORM_CHECKS = frozenset(
    {"no-images", "no-categories", "malformed-images", "malformed-annotations", "malformed-categories"}
)


def check_entries(checked: CheckedSet) -> list[Finding]:
    """Every image, annotation and category is valid for training and evaluation, or what was repaired."""
    inspection = checked.inspection
    findings = [
        Finding(check, Severity.ERROR, FAULTS[check][0], FAULTS[check][1], tally.count, printable(tally.examples))
        for check, tally in inspection.faults.items()
    ]
    for kind in ("images", "categories", "annotations"):
        if checked.content[kind] == []:
            severity = Severity.WARNING if kind == "annotations" else Severity.ERROR
            findings += found(f"no-{kind}", severity, f'"{kind}" is empty', "Export the file again.", [kind])
    return findings + [
        Finding(
            check,
            Severity.NOTE if check == "category-is-root" else Severity.WARNING,
            REPAIRS[check][0],
            REPAIRS[check][1],
            tally.count,
            printable(tally.examples),
        )
        for check, tally in inspection.repairs.items()
    ]


def check_duplicates(checked: CheckedSet) -> list[Finding]:
    """Files, ids of annotations and boxes come once."""
    boxes = Counter((a["image_id"], a["category_id"], str(a["bbox"])) for a in checked.annotations)
    ids = Counter(a["id"] for a in checked.annotations if a.get("id") is not None)
    return [
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
    """Most objects are not crowds."""
    crowds = [a for a in checked.annotations if a.get("iscrowd", 0) == 1]
    mostly = len(crowds) > _MOSTLY * len(checked.annotations)
    return found(
        "crowds",
        Severity.WARNING if mostly else Severity.NOTE,
        f"of {len(checked.annotations):,} annotations are crowds: not trained on, ignored in evaluation",
        "Set iscrowd to 0 where a box holds one object." if mostly else "Nothing, if they are crowds.",
        [name_of(a) for a in crowds],
    )


def check_federated(checked: CheckedSet) -> list[Finding]:
    """The fields that evaluation with LVIS's rules needs."""
    if checked.evaluator != "ov_lvis" or checked.training:
        return []
    lacking = [c for c in checked.categories if c.get("frequency") not in _FREQUENCIES]
    return [
        *found(
            "lvis-frequency", Severity.ERROR, "categories without a frequency 'f', 'c' or 'r', which ov_lvis groups by",
            "Use LVIS's own file, or evaluator: ov_coco.",
            [f"category {c['id']} ({c['name']!r}): {c.get('frequency')!r}" for c in lacking],
        ),
        *found(
            "lvis-lists", Severity.ERROR, f"images without {LVIS_KEYS[0]!r}, which ov_lvis evaluates with",
            "Use LVIS's own file, or evaluator: ov_coco.",
            [f"image {image['id']}" for image in checked.images if LVIS_KEYS[0] not in image],
        ),
    ]  # fmt: skip
