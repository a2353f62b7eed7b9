"""Checks of a data set: small functions over one type, each of which reports findings and what to do.

`check_set` runs them on a `registered_set_to_check`; `denserc doctor` prints them.
"""

from .boxes import check_boxes, check_masks
from .categories import check_categories, check_embeddings, check_vocabulary
from .entries import FORM_CHECKS, check_crowds, check_duplicates, check_entries, check_federated
from .finding import CheckedSet, Finding, Severity
from .labels import CheckedLabels, check_labels
from .pictures import check_files, check_overlap, check_pictures

_ANNOTATION_CHECKS = (
    check_duplicates,
    check_boxes,
    check_masks,
    check_crowds,
    check_categories,
    check_vocabulary,
    check_federated,
    check_files,
)


def check_annotations(checked: CheckedSet) -> list[Finding]:
    """All checks that need no picture. Malformed entries suppress the other checks, which depend on their form."""
    findings = check_entries(checked)
    malformed = [finding for finding in findings if finding.check in FORM_CHECKS]
    if malformed:
        return malformed
    return findings + [finding for check in _ANNOTATION_CHECKS for finding in check(checked)]


def registered_set_to_check(name: str) -> CheckedSet | CheckedLabels:
    """A registered set of annotations or of label files; DataError where it is neither."""
    return CheckedLabels.registered(name) if CheckedLabels.is_kind_of(name) else CheckedSet.registered(name)


def check_set(checked: CheckedSet | CheckedLabels, sample: int = 0) -> list[Finding]:
    """All checks of one set that need no other.

    Args:
        sample: Number of images to read, spread evenly over the set; 0 for all.
    """
    if isinstance(checked, CheckedLabels):
        return check_labels(checked, sample)
    findings = check_annotations(checked)
    if any(finding.check in FORM_CHECKS for finding in findings):
        return findings
    return findings + check_pictures(checked, sample)


__all__ = [
    "FORM_CHECKS",
    "CheckedLabels",
    "CheckedSet",
    "Finding",
    "Severity",
    "check_annotations",
    "check_boxes",
    "check_categories",
    "check_crowds",
    "check_duplicates",
    "check_embeddings",
    "check_entries",
    "check_federated",
    "check_files",
    "check_labels",
    "check_masks",
    "check_overlap",
    "check_pictures",
    "check_set",
    "check_vocabulary",
    "registered_set_to_check",
]
