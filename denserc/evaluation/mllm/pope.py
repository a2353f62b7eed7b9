"""POPE: is there a thing in the picture? Accuracy, precision, recall, F1 and the ratio of yes per split.

LLaVA's published figures, and so Table 14's, are the F1 of each split. Their random split is the file of 2,910 lines;
POPE's repository has one of 3,000 today.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...structures import DataError
from ...structures.records import read_json_lines, short
from .answers import Question, join, read_answers, read_questions

SPLITS = ("random", "popular", "adversarial")
LINES = {
    "random": {2910: "the old file, LLaVA's figures are of it", 3000: "today's file, LLaVA's figures are of 2,910"},
    "popular": {3000: "as LLaVA's"},
    "adversarial": {3000: "as LLaVA's"},
}
"""Lines of the published files, and what they mean for a comparison."""


@dataclass(frozen=True)
class PopeCounts:
    """Answers of one split, yes being the positive class. A ratio of nothing is 0.

    Args:
        true_yes: Yes where yes is right.
        false_yes: Yes where no is right.
        true_no: No where no is right.
        false_no: No where yes is right.
    """

    true_yes: int
    false_yes: int
    true_no: int
    false_no: int

    @classmethod
    def of(cls, truth: Sequence[bool], answers: Iterable[bool]) -> "PopeCounts":
        """Count answers, True being yes."""
        pairs = list(zip(truth, answers, strict=True))
        return cls(
            true_yes=pairs.count((True, True)),
            false_yes=pairs.count((False, True)),
            true_no=pairs.count((False, False)),
            false_no=pairs.count((True, False)),
        )

    @property
    def questions(self) -> int:
        """Number of questions."""
        return self.true_yes + self.false_yes + self.true_no + self.false_no

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return _ratio(self.true_yes + self.true_no, self.questions)

    @property
    def precision(self) -> float:
        """Share of right ones among the answers yes."""
        return _ratio(self.true_yes, self.true_yes + self.false_yes)

    @property
    def recall(self) -> float:
        """Share of the questions whose answer is yes that are answered yes."""
        return _ratio(self.true_yes, self.true_yes + self.false_no)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        """Share of the answers yes, whatever is right."""
        return _ratio(self.true_yes + self.false_yes, self.questions)

    def percent(self) -> dict[str, float]:
        """All metrics in percent, and the number of questions."""
        return {
            "F1": 100 * self.f1,
            "accuracy": 100 * self.accuracy,
            "precision": 100 * self.precision,
            "recall": 100 * self.recall,
            "yes_ratio": 100 * self.yes_ratio,
            "questions": self.questions,
        }


@dataclass(frozen=True, slots=True)
class Label:
    """One line of POPE's own files: the question and whether yes is right."""

    question: Question
    yes: bool


def is_yes(text: str) -> bool:
    """Read an answer by LLaVA's rule: no if "No", "no" or "not" is a word of its first sentence, else yes.

    Commas are removed and words end at spaces only. An empty answer is a yes.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def read_pope(path: str | Path) -> list[Label]:
    """Read one of POPE's files: JSON Lines of {"question_id", "image", "text", "label": "yes" or "no"}.

    Raises:
        DataError: The file is absent, empty, or a line breaks the format.
    """
    labels = [record.choice("label", ("yes", "no")) == "yes" for record in read_json_lines(path, "label")]
    return [Label(question, yes) for question, yes in zip(read_questions(path), labels, strict=True)]


def split_of(path: str | Path) -> str:
    """The split that a file's name ends with: coco_pope_random.json -> random."""
    return re.split(r"pope_|_(?=random$|popular$|adversarial$)", Path(path).stem)[-1]


def pope_files(paths: Sequence[str | Path]) -> list[Path]:
    """POPE's files among files and folders, in the order of the paper.

    Raises:
        DataError: A folder has none, or two files are of the same split.
    """
    files = []
    for path in map(Path, paths):
        inside = sorted([*path.glob("*pope_*.json"), *path.glob("*pope_*.jsonl")]) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} has none of POPE's files; expected is coco_pope_random.json and its like.")
        files += inside
    splits = [split_of(file) for file in files]
    doubled = sorted({split for split in splits if splits.count(split) > 1})
    if doubled:
        raise DataError(
            f"Two of the files are of the split {doubled[0]!r}: {', '.join(map(str, files))}. Give one each."
        )
    return sorted(files, key=lambda file: SPLITS.index(split_of(file)) if split_of(file) in SPLITS else len(SPLITS))


def evaluate_pope(
    answers: str | Path, annotations: Sequence[str | Path], questions: str | Path | None = None
) -> dict[str, dict[str, float]]:
    """Score answers to POPE.

    Args:
        answers: Answer file.
        annotations: POPE's own files, one per split, or a folder of them.
        questions: Question file with "category", such as LLaVA's llava_pope_test.jsonl; without it, of one split.
            None: the answers are to the one file of `annotations`.

    Returns:
        {"pope_SPLIT": {metric: percent}}, and of several splits "pope" with their mean F1.

    Raises:
        DataError: A file breaks its format, or files do not belong to each other.
    """
    files = pope_files(annotations)
    asked = _questions_by_split(files, questions)
    given = read_answers(answers)
    keys = [(question.question_id, question.words) for its in asked.values() for question, _ in its]
    joined = iter(join(given, keys, lambda answer: (answer.question_id, answer.words), answers))
    results = {}
    for split, its in asked.items():
        truth = [label.yes for _, label in its]
        results[f"pope_{split}"] = PopeCounts.of(truth, [is_yes(next(joined).text) for _ in its]).percent()
    if len(results) > 1:
        results["pope"] = {"F1": sum(one["F1"] for one in results.values()) / len(results)}
    return results


def line_count_note(split: str, count: int) -> str:
    """Meaning of a split's number of questions for a comparison with published figures; "" for an unknown split."""
    known = LINES.get(split)
    if known is None:
        return ""
    return f"{split}: {count:,} questions, {known.get(count, 'as in no published file')}"


def _questions_by_split(files: Sequence[Path], questions: str | Path | None) -> dict[str, list[tuple[Question, Label]]]:
    """Split -> questions with their labels, after a check that they are the same ones."""
    labels = {split_of(file): read_pope(file) for file in files}
    if questions is None:
        if len(labels) > 1:
            raise DataError(
                f"{len(labels)} files of POPE use the same ids. Give the question file with 'category' that was "
                "answered, or one file and its answers."
            )
        return {split: [(label.question, label) for label in its] for split, its in labels.items()}
    asked: dict[str, list[Question]] = defaultdict(list)
    for question in read_questions(questions):
        if not question.category and len(labels) == 1:  # POPE's own file was answered
            asked[next(iter(labels))].append(question)
            continue
        if question.category not in labels:
            raise DataError(
                f"{question.where}: 'category' is {short(question.category)}; the files given are of "
                f"{', '.join(labels)}. Give the file of each category."
            )
        asked[question.category].append(question)
    for (split, its), file in zip(labels.items(), files, strict=True):
        if len(asked[split]) != len(its):
            raise DataError(
                f"{questions} has {len(asked[split]):,} questions of the category {split!r}, and {file} has "
                f"{len(its):,} lines. LLaVA's question file belongs to the random file of 2,910 lines; POPE's "
                "present one has 3,000. Give files of the same version."
            )
        for question, label in zip(asked[split], its, strict=True):
            theirs = label.question
            if (question.image, question.words) != (theirs.image, theirs.words):
                raise DataError(
                    f"{question.where} asks {short(question.words)} about {question.image}, and {theirs.where} "
                    f"{short(theirs.words)} about {theirs.image}. Give files of the same version, in their order."
                )
    return {split: list(zip(asked[split], its, strict=True)) for split, its in labels.items()}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
