"""MME: two questions per picture, yes or no; per subtask accuracy and accuracy+ (both right), together 0 to 200.

Perception is the sum of ten subtasks (at most 2000; 1510.7 in Table 14), cognition of four (at most 800).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...structures import DataError
from ...structures.records import first_of, read_text, short
from .answers import Answer, join, read_answers

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUBTASKS = PERCEPTION + COGNITION
OTHER = "other"
INSTRUCTION = "Answer the question using a single word or phrase."
YES_OR_NO = "Please answer yes or no."
QUESTIONS_PER_PICTURE = 2


@dataclass(frozen=True, slots=True)
class MmeQuestion:
    """One question with the right answer.

    Args:
        where: File and line, for messages.
        subtask: One of SUBTASKS.
        picture: Name of the text file or picture, without its suffix.
        question: Text.
        truth: "yes" or "no".
        answer: Answer of a model, where the file has one.
    """

    where: str
    subtask: str
    picture: str
    question: str
    truth: str
    answer: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Join with answers, whatever instruction a prompt has."""
        return self.subtask, self.picture, bare_question(self.question)


def read_answer(text: str) -> str:
    """An answer as "yes", "no" or "other", by its first four characters in small letters."""
    beginning = text.lower()[:4]
    return next((word for word in ("yes", "no") if word in beginning), OTHER)


def bare_question(text: str) -> str:
    """A question without its instructions."""
    return text.replace(INSTRUCTION, "").replace(YES_OR_NO, "").strip()


def subtask_score(pairs: Sequence[Sequence[tuple[str, str]]]) -> dict[str, float]:
    """Score a subtask.

    Args:
        pairs: Per picture two (truth, answer of the model).

    Returns:
        {"acc", "acc_plus" in percent, "score": their sum, "other": answers that are neither, "questions"}.
    """
    right = [[truth == read_answer(answer) for truth, answer in pair] for pair in pairs]
    questions = sum(len(pair) for pair in right)
    acc = 100 * sum(map(sum, right)) / questions
    acc_plus = 100 * sum(map(all, right)) / len(right)
    other = sum(read_answer(answer) == OTHER for pair in pairs for _, answer in pair)
    return {"acc": acc, "acc_plus": acc_plus, "score": acc + acc_plus, "other": other, "questions": questions}


def read_benchmark(folder: str | Path) -> list[MmeQuestion]:
    """Read MME_Benchmark_release_version: folders of subtasks, a text file per picture, `question <tab> truth`.

    Raises:
        DataError: The folder has no subtask, or a file breaks the format.
    """
    folder = Path(folder)
    present = [subtask for subtask in SUBTASKS if (folder / subtask).is_dir()]
    if not present:
        raise DataError(
            f"{folder} has no folder of a subtask of MME; expected is MME_Benchmark_release_version with "
            f"{first_of(list(SUBTASKS))}."
        )
    questions = []
    for subtask in present:
        inside = folder / subtask / "questions_answers_YN"
        for file in sorted((inside if inside.is_dir() else folder / subtask).glob("*.txt")):
            for where, (question, truth) in _rows(file, 2, "question, yes or no"):
                questions.append(MmeQuestion(where, subtask, _stem(file.name), question, _truth(truth, where)))
    return questions


def read_results(folder: str | Path) -> list[MmeQuestion]:
    """Read results in MME's form: SUBTASK.txt with `picture <tab> question <tab> truth <tab> answer`.

    Raises:
        DataError: The folder has no such file, or one breaks the format.
    """
    folder = Path(folder)
    present = [subtask for subtask in SUBTASKS if (folder / f"{subtask}.txt").is_file()]
    if not present:
        raise DataError(f"{folder} has no results of MME; expected are {first_of([f'{s}.txt' for s in SUBTASKS])}.")
    return [
        MmeQuestion(where, subtask, _stem(picture), question, _truth(truth, where), answer)
        for subtask in present
        for where, (picture, question, truth, answer) in _rows(
            folder / f"{subtask}.txt", 4, "picture, question, yes or no, answer"
        )
    ]


def evaluate_mme(answers: str | Path, annotations: str | Path | None = None) -> dict[str, dict[str, float]]:
    """Score answers to MME.

    Args:
        answers: Answer file of LLaVA, or a folder with results in MME's form.
        annotations: MME_Benchmark_release_version; not needed for results in MME's form, which have the truth.

    Returns:
        {"mme": {"perception", "cognition"}, "mme_SUBTASK": {"acc", "acc_plus", "score", "other", "questions"}}. A sum
        is nan unless all its subtasks are there.

    Raises:
        DataError: A file breaks its format, or the answers are to other questions.
    """
    if Path(answers).is_dir():
        answered = [(one, one.answer) for one in read_results(answers)]
    elif annotations is None:
        raise DataError(f"{answers} has no truth. Give MME_Benchmark_release_version with --annotations.")
    else:
        questions = read_benchmark(annotations)
        keys = [one.key for one in questions]
        joined = join(read_answers(answers), keys, _key_of_answer, answers)
        answered = [(one, answer.text) for one, answer in zip(questions, joined, strict=True)]
    results = {f"mme_{subtask}": subtask_score(pairs) for subtask, pairs in _pairs(answered).items()}
    sums = {
        name: sum(results[f"mme_{one}"]["score"] if f"mme_{one}" in results else float("nan") for one in subtasks)
        for name, subtasks in (("perception", PERCEPTION), ("cognition", COGNITION))
    }
    return {"mme": sums, **results}


def _pairs(answered: Sequence[tuple[MmeQuestion, str]]) -> dict[str, list[list[tuple[str, str]]]]:
    """Subtask -> per picture two (truth, answer), in the order of the files: two adjacent lines are a picture."""
    by_subtask = defaultdict(list)
    for question, answer in answered:
        by_subtask[question.subtask].append((question, answer))
    pairs = {}
    for subtask, its in by_subtask.items():
        pairs[subtask] = []
        for start in range(0, len(its), QUESTIONS_PER_PICTURE):
            pair = its[start : start + QUESTIONS_PER_PICTURE]
            pictures = {question.picture for question, _ in pair}
            if len(pair) != QUESTIONS_PER_PICTURE or len(pictures) != 1:
                raise DataError(
                    f"{pair[0][0].where}: expected are two adjacent questions about each picture; here are "
                    f"{len(pair)} about {', '.join(sorted(pictures))}. Restore the missing line."
                )
            pairs[subtask].append([(question.truth, answer) for question, answer in pair])
    return pairs


def _key_of_answer(answer: Answer) -> tuple[str, str, str]:
    """Subtask and picture of LLaVA's id "code_reasoning/0020.png" (or "landmark/images/x.jpg"), and the question."""
    parts = answer.question_id.split("/")
    return parts[0], _stem(parts[-1]), bare_question(answer.prompt)


def _stem(name: str) -> str:
    return name.split(".")[0]


def _rows(file: Path, columns: int, expected: str) -> list[tuple[str, list[str]]]:
    """(file and line, columns) of a text file with tabs."""
    rows = []
    for number, line in enumerate(read_text(file, "file of MME").split("\n"), start=1):
        if line.strip():
            cells = line.rstrip("\r").split("\t")
            where = f"{file}, line {number}"
            while len(cells) > columns and not cells[-1].strip():
                cells.pop()
            if len(cells) != columns:
                raise DataError(
                    f"{where}: {len(cells)} columns, {short(line)}; expected are {columns} with tabs between: "
                    f"{expected}. Remove tabs and line breaks from the answer."
                )
            rows.append((where, cells))
    if not rows:
        raise DataError(f"{file} is empty; expected are lines of {expected}.")
    return rows


def _truth(word: str, where: str) -> str:
    truth = word.strip().lower()
    if truth not in ("yes", "no"):
        raise DataError(f"{where}: the right answer is {word!r}; expected is Yes or No. Correct this line.")
    return truth
