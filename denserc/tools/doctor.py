"""Faults of registered data sets, with remedies (`denserc doctor`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..data.checks import (
    FORM_CHECKS,
    CheckedLabels,
    CheckedSet,
    Finding,
    Severity,
    check_embeddings,
    check_overlap,
    check_set,
    registered_set_to_check,
)
from ..data.vocabulary.text_embeddings import load_text_embeddings
from ..structures import BACKGROUND, DataError

_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


@dataclass(frozen=True)
class Diagnosis:
    """Findings of a set: its size, and its faults, the worst first."""

    summary: str
    findings: tuple[Finding, ...]


def diagnose(
    names: Sequence[str], *, sample: int = 100, embeddings: str = "", fingerprint: str = ""
) -> dict[str, Diagnosis]:
    """Check registered sets, each by itself and training sets against the others.

    Args:
        names: Names of registered sets.
        sample: Images to read of each; 0 for all.
        embeddings: A file of text embeddings that is to be used with them; "" for none.
        fingerprint: Fingerprint of the text tower in use; "" if that is not known.
    """
    sets, result = [], {}
    for name in names:
        try:
            sets.append(registered_set_to_check(name))
        except DataError as error:
            advice = "datasets/README.md shows where files belong and what prepares them."
            result[name] = Diagnosis("", (Finding("unusable", Severity.ERROR, str(error), advice),))
    for checked in sets:
        findings = check_set(checked, sample)
        if not any(finding.check in FORM_CHECKS for finding in findings):
            for other in sets:
                if checked is not other and other.training and not checked.training:
                    findings += check_overlap(other, checked)
        if embeddings:
            findings += _embedding_findings(checked, embeddings, fingerprint)
        order = list(Severity)
        result[checked.name] = Diagnosis(
            checked.summary, tuple(sorted(findings, key=lambda f: order.index(f.severity)))
        )
    return {name: result[name] for name in names}


def _embedding_findings(checked: CheckedSet | CheckedLabels, path: str, fingerprint: str) -> list[Finding]:
    names = [*checked.vocabulary.names, BACKGROUND] if path.endswith(".npy") else None
    try:
        loaded = load_text_embeddings(path, names)
    except DataError as error:
        return [Finding("embeddings", Severity.ERROR, str(error), "Embed the names: `denserc embed`.")]
    findings = check_embeddings(checked, loaded, fingerprint)
    if names is not None:
        message = f"{path} has no names: its rows must be the set's classes in their order, then {BACKGROUND!r}"
        findings.append(Finding("embedding-order", Severity.WARNING, message, "Prefer a file with names."))
    return findings


def print_diagnosis(diagnosis: Mapping[str, Diagnosis], console: Console) -> None:
    """Print one table per set."""
    for name, one in diagnosis.items():
        console.print(Text(f"\n{name}: {one.summary}".rstrip(": "), style="bold"))
        if not one.findings:
            console.print("Nothing to complain about.")
            continue
        table = Table("", "number", "what was found", "for example", "what to do", show_lines=True)
        for finding in one.findings:
            table.add_row(
                Text(finding.severity.value, style=_STYLE[finding.severity]),
                f"{finding.count:,}",
                Text(f"{finding.message} [{finding.check}]"),
                Text("\n".join(finding.examples[:3])),
                Text(finding.advice),
            )
        console.print(table)
