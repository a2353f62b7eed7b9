"""`denserc demo --llava` as one call."""

import platform
import time
from collections.abc import Sequence
from functools import partial

import torch

from ...structures.files import write_json
from ...visualization import ResultTable, print_table, save_picture
from ..llava.write_questions import QuestionSizes
from ..write_world import Sizes
from .llava_report import answers_page, llava_table, write_llava_report
from .llava_stages import CLIP, DENSERC, LlavaVariant, make_language_model, make_llava, make_questions, variants
from .processes import Stage, run_stages
from .run import run_stage, say
from .stages import Places, make_encoders, prepare_world


def run_llava_demo(
    places: Places,
    *,
    seeds: Sequence[int] = (0,),
    features: Sequence[str] = ("penultimate",),
    sizes: Sizes | None = None,
    question_sizes: QuestionSizes | None = None,
    encoder_overrides: Sequence = (),
    llava_overrides: Sequence = (),
    processes: int | None = None,
) -> ResultTable:
    """Every stage for every seed, encoder and feature, then the table, the page of answers and the report.

    Args:
        places: Folders to read and write.
        seeds: Seeds of distillation and of all stages of LLaVA; scenes, questions and CLIP stay the same.
        features: Outputs that enter the projector, a row per encoder for each: penultimate, dense, joined.
        sizes: Sizes of the world that the encoders are distilled on.
        question_sizes: Numbers of scenes with questions.
        encoder_overrides: Config keys and values of the distillation.
        llava_overrides: Config keys and values of all stages of LLaVA.
        processes: Number of stages that run at the same time, one thread each, which does not change any result;
            None: PyTorch's number of threads.
    """
    start = time.monotonic()
    say("Writing the miniature world")
    prepare_world(places, sizes=sizes)
    processes, shown = processes or torch.get_num_threads(), variants(features)
    stages = [
        _stage(places, "questions", "questions: writing scenes and questions", (), make_questions, question_sizes)
    ]
    for seed in seeds:
        stages += _stages(places, seed, shown, list(encoder_overrides), list(llava_overrides))
    found = run_stages(stages, processes)
    results = {seed: {one.key: found[seed, "llava", one.key] for one in shown} for seed in seeds}

    table, page, output = llava_table(results, shown), answers_page(places, seeds[0], shown), places.output / "llava"
    save_picture(output / "answers.png", page)
    settings = {
        "seeds": ", ".join(map(str, seeds)),
        "language model": f"{found[seeds[0], 'text']['parameters']:,} parameters",
        "questions": ", ".join(f"{name}: {count:,}" for name, count in found["questions"].items() if name != "seconds"),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {processes} processes of one thread",
        "minutes of all stages": f"{sum(_seconds(result) for result in found.values()) / 60:.1f}",
        "minutes of this run": f"{(time.monotonic() - start) / 60:.1f}",
    }
    write_llava_report(output / "report.html", table, places, seeds[0], shown, page=page, settings=settings)
    text = {seed: found[seed, "text"] for seed in seeds}
    write_json(
        output / "results.json",
        {"table": table.to_json(), "runs": results, "text": text, "settings": settings},
        indent=2,
    )
    print_table(table, title="LLaVA on the miniature world")
    print(f"\nReport: {output / 'report.html'}\nResults: {output / 'results.json'}\nLog: {places.output / 'log.txt'}")
    return table


def _stages(
    places: Places, seed: int, shown: Sequence[LlavaVariant], encoder_overrides: list, llava_overrides: list
) -> list[Stage]:
    """The stages of one seed, in the order that keeps two processes busy to the end."""
    stages = [
        _stage(
            places,
            (seed, "encoder", contender.key),
            f"seed {seed}, {contender.title}: {'distilling and ' if contender.config else ''}classifying regions",
            (),
            make_encoders,
            [contender],
            seed,
            encoder_overrides,
        )
        for contender in (DENSERC, CLIP)
    ]
    title = f"seed {seed}, language model: training on text"
    stages.append(_stage(places, (seed, "text"), title, ("questions",), make_language_model, seed, llava_overrides))
    for variant in shown:
        title = (
            f"seed {seed}, {variant.title}: training on {'questions' if variant.is_blind else 'captions, questions'}"
        )
        after = ((seed, "text"), (seed, "encoder", variant.contender.key))
        key = (seed, "llava", variant.key)
        stages.append(_stage(places, key, title, after, make_llava, variant, seed, llava_overrides))
    return stages


def _stage(places: Places, key, title: str, after: tuple, make, *arguments) -> Stage:
    return Stage(key, title, partial(run_stage, make, places, *arguments), after=after)


def _seconds(result: dict) -> float:
    """Seconds of a stage; results of encoders are by contender."""
    return result["seconds"] if "seconds" in result else sum(one["seconds"] for one in result.values())
