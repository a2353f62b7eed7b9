"""Evaluation of a LLaVA by a configuration: its question files answered and scored."""

from pathlib import Path

from detectron2.config import CfgNode

from ..structures import ConfigurationError
from .score_llava import save, score, table_of


def answer_and_score(cfg: CfgNode, folder: Path) -> dict[str, dict[str, float]]:
    """Answer LLAVA.TEST.QUESTIONS, or continue, and score the answers.

    OUTPUT_DIR/inference/NAME receives answers.jsonl and the results, where NAME is the question file's.

    Args:
        folder: LLaVA with its processor.

    Returns:
        {task: {metric: score}} of all benchmarks; empty without LLAVA.TEST.BENCHMARKS.

    Raises:
        ConfigurationError: The lists of LLAVA.TEST have different lengths, or packages are absent.
        DataError: A file breaks its format, or pictures are absent.
    """
    test = cfg.LLAVA.TEST
    _require_same_length("IMAGES", test.IMAGES, "QUESTIONS", test.QUESTIONS)
    _require_same_length("BENCHMARKS", test.BENCHMARKS, "QUESTIONS", test.QUESTIONS, empty=True)
    _require_same_length("ANNOTATIONS", test.ANNOTATIONS, "BENCHMARKS", test.BENCHMARKS)
    from ..llava.generation import GenerationSettings, answer_questions

    results: dict[str, dict[str, float]] = {}
    for position, questions in enumerate(test.QUESTIONS):
        output = Path(cfg.OUTPUT_DIR) / "inference" / Path(questions).stem
        answer_questions(
            folder,
            questions,
            test.IMAGES[position],
            output / "answers.jsonl",
            settings=GenerationSettings(cfg.LLAVA.TEMPLATE, test.MAX_NEW_TOKENS),
            encoder=cfg.MODEL.ENCODER.CHECKPOINT,
            device=cfg.MODEL.DEVICE,
        )
        if test.BENCHMARKS:
            benchmark = test.BENCHMARKS[position]
            asked = questions if benchmark == "pope" else None  # its files repeat ids, the question file does not
            found = score(benchmark, output / "answers.jsonl", [test.ANNOTATIONS[position]], asked)
            save(output, benchmark, found)
            print(table_of(benchmark, found).to_markdown())
            results |= found
    return results


def _require_same_length(name: str, values: tuple, other: str, expected: tuple, *, empty: bool = False) -> None:
    if len(values) != len(expected) and not (empty and not values):
        raise ConfigurationError(
            f"LLAVA.TEST.{name} has {len(values)} entries, LLAVA.TEST.{other} has {len(expected)}. Give one for each."
        )
