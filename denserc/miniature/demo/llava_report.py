"""Table, picture page and report of `denserc demo --llava`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...evaluation.mllm.answers import read_answers, read_questions
from ...evaluation.mllm.gqa import read_gqa
from ...evaluation.mllm.pope import SPLITS
from ...visualization import (
    Column,
    Picture,
    ResultTable,
    Section,
    Settings,
    Words,
    plot_curves,
    write_report,
)
from ...visualization.canvas import enlarge, fitted, font
from .llava_stages import MME_SUBTASKS, LlavaVariant, answers_file, questions_folder, stage_folder
from .report import Results, seed_rows, seeds_note
from .stages import Places

COLUMNS = (
    *(Column(f"pope_{split}", title=f"POPE {split}") for split in SPLITS),
    Column("pope_accuracy", title="POPE acc"),
    Column("gqa", title="GQA-like"),
    Column("mme", title="MME-like"),
)
NOTE = (
    "POPE: F1 of each split, always yes is 66.7; acc: accuracy, mean of the splits. GQA-like: accuracy of attributes, "
    "counts, positions and stuff, percent. MME-like: existence, count, position and color, 4 of the 10 subtasks of "
    "perception, 0 to 800; guessing at random is 300."
)

_SIDE, _ROW, _TEXT = 256, 26, 16
_RIGHT, _WRONG, _PLAIN = (0, 110, 40), (190, 30, 30), (30, 30, 30)


def llava_table(results: Results, shown: Sequence[LlavaVariant]) -> ResultTable:
    """One row per variant, mean and deviation over the seeds."""
    rows = seed_rows(results, shown, numbers)
    return ResultTable(COLUMNS, rows, corner="encoder", note=NOTE + seeds_note(results))


def numbers(result: Mapping[str, dict]) -> dict[str, float]:
    """The values of a row."""
    splits = [result[f"pope_{split}"] for split in SPLITS]
    return {
        **{f"pope_{split}": one["F1"] for split, one in zip(SPLITS, splits, strict=True)},
        "pope_accuracy": sum(one["accuracy"] for one in splits) / len(splits),
        "gqa": result["gqa"]["accuracy"],
        "mme": sum(result[f"mme_{subtask}"]["score"] for subtask in MME_SUBTASKS),
    }


def answers_page(places: Places, seed: int, shown: Sequence[LlavaVariant], count: int = 4) -> np.ndarray:
    """Test scenes with GQA-like questions, the right answers and those of every variant; wrong ones are red."""
    root = questions_folder(places)
    truth = {one.question_id: one.answer for one in read_gqa(root / "gqa.json")}
    given = {variant.title: read_answers(answers_file(places, seed, variant, "gqa")) for variant in shown}
    asked = _images(root / "gqa.jsonl")
    scenes = list(dict.fromkeys(asked.values()))[:count]
    return np.concatenate([_panel(root / image, _rows(image, asked, truth, given), list(given)) for image in scenes])


def write_llava_report(
    path: str | Path,
    table: ResultTable,
    places: Places,
    seed: int,
    shown: Sequence[LlavaVariant],
    *,
    page: np.ndarray,
    settings: Mapping[str, object],
) -> None:
    """The HTML page with everything."""
    curves = {
        stage: {
            variant.title: file
            for variant in shown
            if (file := stage_folder(places, seed, variant.key) / stage / "metrics.json").is_file()
        }
        for stage in ("align", "instruct")
    }
    text = {"language model": stage_folder(places, seed, "text") / "metrics.json"}
    sections = [
        Section("Results", [table]),
        Section("Questions and answers", [Picture(page, "Scenes of the test set. Wrong answers are red.")]),
        Section(
            "Training",
            [
                Words("Stage 0 trains the language model on text, stage 1 the projector, stage 2 both."),
                Picture(plot_curves(text, ["loss"]), "Stage 0"),
                Picture(plot_curves(curves["align"], ["loss"]), "Stage 1"),
                Picture(plot_curves(curves["instruct"], ["loss"]), "Stage 2"),
            ],
        ),
        Section("Settings", [Settings(settings)]),
    ]
    lead = (
        "A small language model that learned to answer questions about described scenes, connected to frozen encoders "
        "by LLaVA-1.5's two stages, and the same model without pictures."
    )
    write_report(path, sections, title="DenseRC in a miniature LLaVA", lead=lead)


def _images(questions: Path) -> dict[str, str]:
    """Question id -> picture."""
    return {one.question_id: one.image for one in read_questions(questions)}


def _rows(image: str, asked: Mapping[str, str], truth: Mapping[str, str], given: Mapping[str, list]) -> list[list[str]]:
    """[question, right answer, answer of each variant] of the questions about a picture."""
    by_id = [{one.question_id: one for one in answers} for answers in given.values()]
    ids = [identity for identity, of in asked.items() if of == image]
    return [[by_id[0][i].words, truth[i], *(answers[i].text for answers in by_id)] for i in ids]


def _panel(file: Path, rows: list[list[str]], titles: list[str]) -> np.ndarray:
    """A picture with a table of questions and answers at its right."""
    pixels, _ = enlarge(np.array(Image.open(file).convert("RGB")), _SIDE)
    widths = [600, 110, *[170] * len(titles)]
    height = max(_SIDE, _ROW * (len(rows) + 1)) + 16
    canvas = Image.new("RGB", (_SIDE + 40 + sum(widths), height), "white")
    canvas.paste(Image.fromarray(pixels), (8, 8))
    draw, text = ImageDraw.Draw(canvas), font(_TEXT)
    for number, row in enumerate([["question", "right", *titles], *rows]):
        left = _SIDE + 24
        for column, (words, width) in enumerate(zip(row, widths, strict=True)):
            color = _PLAIN if number == 0 or column < 2 else _RIGHT if words == row[1] else _WRONG
            draw.text((left, 8 + number * _ROW), fitted(words or "(nothing)", text, width - 10), font=text, fill=color)
            left += width
    return np.array(canvas)
