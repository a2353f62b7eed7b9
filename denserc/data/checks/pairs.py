"""Two sets side by side: a training set and the one that it is evaluated on."""

from .finding import CheckedSet, Finding, Severity, found


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
