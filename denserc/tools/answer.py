"""Answers of a LLaVA to a question file (`denserc answer`)."""

import argparse


def answer(options: argparse.Namespace) -> int:
    """Answer what the command's options name; returns the number of questions answered now.

    Raises:
        ConfigurationError: Packages are absent, or the answer file was begun by another model.
    """
    from ..mllm.requirements import require_transformers

    require_transformers()
    from ..llava.generation import GenerationSettings, answer_questions

    return answer_questions(
        options.model,
        options.questions,
        options.images,
        options.answers,
        settings=GenerationSettings(options.template, options.max_new_tokens, options.dtype),
        encoder=options.checkpoint,
        device=options.device,
        processes=options.processes,
    )
