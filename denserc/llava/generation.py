"""Answers of a LLaVA to a question file: greedy, one question at a time, resumable, by one or several processes.

One question at a time, because padding changes the sums of bfloat16 and float16 and with them some answers. It is also
what LLaVA's own evaluation does.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LlavaForConditionalGeneration, LlavaProcessor

from ..data.images.reading import read_rgb
from ..engine import resolve_device
from ..evaluation.mllm.answers import Question, read_questions
from ..structures import CheckpointError, ConfigurationError, DataError, DenseRCError
from .answer_log import AnswerLog
from .build import load_llava
from .collator import PictureTransform
from .conversations import with_image_in_front
from .options import DTYPES, Aspect
from .templates import prompt_ids, require_template

logger = logging.getLogger(__name__)

_FINGERPRINTED = ("*.json", "*.safetensors", "pytorch_model*.bin", "*.model", "*.jinja")
_IGNORED = ("trainer_state.json", "all_results.json", "train_results.json")  # of a training, not of the model
_BLOCK = 1 << 24
_REPORT_SECONDS = 30.0
_SHOWN = 5


@dataclass(frozen=True)
class GenerationSettings:
    """Everything besides the model that determines an answer.

    Args:
        template: Text around a question, a name of TEMPLATES.
        max_new_tokens: Longest answer in tokens; LLaVA's benchmarks use 128.
        dtype: Type of the weights, one of DTYPES; "auto" is that of the folder. LLaVA evaluates in float16.
    """

    template: str = "vicuna_v1"
    max_new_tokens: int = 128
    dtype: str = "auto"

    def __post_init__(self):
        if require_template((), self.template).one_round:
            raise ConfigurationError(f"The template {self.template!r} does not contain the question. Use 'vicuna_v1'.")
        if self.dtype not in DTYPES:
            raise ConfigurationError(f"The dtype is {self.dtype!r}; legal are {', '.join(DTYPES)}.")
        if self.max_new_tokens < 1:
            raise ConfigurationError(f"The longest answer is {self.max_new_tokens} tokens; expected is at least 1.")


class Answerer:
    """Greedy answers of one model.

    Args:
        model: LLaVA in evaluation mode, on its device.
        processor: Its processor.
        settings: Template and longest answer.
    """

    def __init__(self, model: LlavaForConditionalGeneration, processor: LlavaProcessor, settings: GenerationSettings):
        self.model = model
        self.tokenizer = processor.tokenizer
        self.template = require_template((), settings.template)
        self.pictures = PictureTransform(processor.image_processor, Aspect.PAD)
        vision = model.config.vision_config
        self.image_ids = [processor.image_token_id] * (vision.image_size // vision.patch_size) ** 2
        # Not the folder's file, in which Vicuna asks for sampling.
        self.generation = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=settings.max_new_tokens,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    @torch.inference_mode()
    def __call__(self, question: str, pixels: np.ndarray) -> str:
        """The answer to a question about a picture.

        Args:
            question: Text with its instruction; `<image>` is put in front of it.
            pixels: (H, W, 3) uint8 RGB; it is padded to a square of the mean color.
        """
        ids = prompt_ids(with_image_in_front(question), self.template, self.tokenizer, self.image_ids)
        input_ids = torch.tensor([ids], device=self.model.device)
        pictures = self.pictures(pixels)[None].to(self.model.device, self.model.dtype)
        own, self.model.generation_config = self.model.generation_config, self.generation
        try:
            made = self.model.generate(
                input_ids=input_ids, attention_mask=torch.ones_like(input_ids), pixel_values=pictures
            )
        finally:
            self.model.generation_config = own
        return self.tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True).strip()


def folder_fingerprint(folder: str | Path) -> str:
    """SHA-256 of weights, configuration, tokenizer and processor of a model's folder.

    Raises:
        CheckpointError: The folder does not exist or has no weights.
    """
    folder = Path(folder)
    files = {file for pattern in _FINGERPRINTED for file in folder.glob(pattern) if file.name not in _IGNORED}
    if not any(file.suffix in (".safetensors", ".bin") for file in files):
        raise CheckpointError(
            f"{folder} has no weights; expected is a folder of `denserc export llava`, or OUTPUT_DIR/model of a "
            "training."
        )
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def require_pictures(questions: Iterable[Question], images: str | Path) -> None:
    """Check that the picture of every question exists.

    Raises:
        DataError: Pictures are absent; the message counts them and names the first ones.
    """
    images = Path(images)
    first_use: dict[str, Question] = {}
    for question in questions:
        first_use.setdefault(question.image, question)
    absent = [question for image, question in first_use.items() if not (images / image).is_file()]
    if absent:
        shown = [f"  {images / one.image} ({one.where})" for one in absent[:_SHOWN]]
        more = [f"  ... and {len(absent) - _SHOWN} more"] if len(absent) > _SHOWN else []
        raise DataError(
            "\n".join([
                f"{len(absent)} of {len(first_use)} pictures do not exist; no question was asked. Download them, or "
                "correct the folder.",
                *shown,
                *more,
            ])
        )  # fmt: skip


def answer_questions(
    folder: str | Path,
    questions: str | Path,
    images: str | Path,
    answers: str | Path,
    *,
    settings: GenerationSettings | None = None,
    encoder: str | Path = "",
    device: str = "auto",
    processes: int = 1,
) -> int:
    """Answer a question file, or continue where a run was interrupted.

    Args:
        folder: LLaVA with its processor, of `denserc export llava` or of a training.
        questions: Question file.
        images: Folder that "image" is relative to.
        answers: Answer file to write or to continue.
        settings: Template, longest answer and type of the weights.
        encoder: Checkpoint that the vision tower must hold exactly; empty: only its own fingerprint is checked.
        device: "auto", or a name of torch. Several processes on "auto" or "cuda" use one GPU after another.
        processes: Processes that share the questions, each with its own copy of the model.

    Returns:
        Number of questions answered by this call.

    Raises:
        ConfigurationError: The file was begun by another model or with other settings.
        DataError: Pictures are absent, or a file breaks its format.
        CheckpointError, FingerprintMismatchError: The folder cannot be used.
    """
    settings = settings or GenerationSettings()
    asked = read_questions(questions)
    require_pictures(asked, images)
    origin = {"fingerprint": folder_fingerprint(folder), **asdict(settings)}
    log = AnswerLog(answers, asked, origin, Path(folder).resolve().name)
    remaining = log.resume()
    logger.info("%d of %d questions are answered already", len(asked) - len(remaining), len(asked))
    if not remaining:
        return 0
    processes = max(1, min(processes, len(remaining)))
    if processes == 1:
        _answer(log, remaining, 0, 1, folder, images, settings, encoder, device)
    else:
        _answer_in_processes(log, remaining, processes, (folder, images, settings, encoder, device))
    missing = log.resume()
    if missing:
        raise DataError(
            f"{answers}: {len(missing)} questions have no answer after the run. Did another run write to the same "
            "file? Start the command again; it continues."
        )
    return len(remaining)


def _answer_in_processes(log: AnswerLog, remaining: Sequence[int], processes: int, others: tuple) -> None:
    from torch.multiprocessing import ProcessRaisedException, get_context, spawn

    errors = get_context("spawn").SimpleQueue()
    try:
        spawn(_process, args=(errors, log, remaining, processes, others), nprocs=processes)
    except ProcessRaisedException:
        if not errors.empty():
            raise errors.get() from None
        raise


def _process(
    process: int, errors: Any, log: AnswerLog, remaining: Sequence[int], processes: int, others: tuple
) -> None:
    """One of several processes: every `processes`-th of the remaining questions."""
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        _answer(log, remaining[process::processes], process, processes, *others)
    except DenseRCError as error:
        errors.put(type(error)(str(error)))
        raise


def _answer(
    log: AnswerLog,
    positions: Sequence[int],
    process: int,
    processes: int,
    folder: str | Path,
    images: str | Path,
    settings: GenerationSettings,
    encoder: str | Path,
    device: str,
) -> None:
    placed = resolve_device(device)
    if placed.type == "cuda" and placed.index is None and processes > 1:
        placed = torch.device("cuda", process % torch.cuda.device_count())
    model, processor = load_llava(folder, encoder, dtype=settings.dtype)
    answerer = Answerer(model.to(placed).eval(), processor, settings)
    with log.open(process, processes) as file:
        for position in _reported(positions, process):
            question = log.questions[position]
            log.write(file, position, answerer(question.text, read_rgb(Path(images) / question.image)))


def _reported(positions: Sequence[int], process: int, clock: Callable[[], float] = time.monotonic) -> Iterable[int]:
    """The positions; the log of the first process reports progress and the remaining time."""
    start = last = clock()
    for done, position in enumerate(positions):
        now = clock()
        if process == 0 and done and now - last > _REPORT_SECONDS:
            left = (now - start) / done * (len(positions) - done)
            logger.info("Answered %d of %d questions, %.0f minutes left", done, len(positions), left / 60)
            last = now
        yield position
