"""Greedy answers to all questions about a picture in one packed sequence, written in LLaVA's answer format.

`denserc answer` asks one question at a time, 64 tokens of the picture each time. Here a picture is read once per word
of the answers. In float32 both give the same answers, up to ties and to the float16 of the stored tokens.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from ...evaluation.mllm.answers import Question, read_questions
from ...llava.conversations import with_image_in_front
from ...llava.engine import picture_tokens
from ...llava.templates import IGNORED, TEMPLATES, TokenizedConversation, prompt_ids
from ...structures.files import write_text
from .features import tokens_as_pictures
from .packing import PackedCollator, pack

_BATCH = 8


class PackedAnswerer:
    """Greedy answers of one model.

    Args:
        model: LLaVA in float32.
        processor: Its processor.
        template: Name of the template.
        tokens: From the path of a picture to its tokens (N, C); None: the pictures are not shown.
        max_new_tokens: Longest answer.
    """

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        processor: LlavaProcessor,
        *,
        template: str,
        tokens: Callable[[str], torch.Tensor] | None,
        max_new_tokens: int = 3,
    ):
        self.model = model.eval()
        self.tokenizer = processor.tokenizer
        self.template = TEMPLATES[template]
        self.tokens = tokens
        self.image_id = processor.image_token_id
        self.image_ids = [self.image_id] * picture_tokens(model)
        self.max_new_tokens = max_new_tokens
        self._collate = PackedCollator(self.tokenizer.pad_token_id)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[str], questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """Answers to the questions about each of some pictures.

        Args:
            pictures: Paths.
            questions: Texts of the questions about each picture.
        """
        prompts = [[self._prompt(text) for text in texts] for texts in questions]
        answers = [[[] for _ in texts] for texts in questions]
        end = self.tokenizer.eos_token_id
        for _ in range(self.max_new_tokens):
            next_words = self._next(pictures, prompts, answers)
            is_finished = True
            for its, words in zip(answers, next_words, strict=True):
                for answer, word in zip(its, words, strict=True):
                    if not answer or answer[-1] != end:
                        answer.append(word)
                        is_finished &= word == end
            if is_finished:
                break
        return [[self.tokenizer.decode(one, skip_special_tokens=True).strip() for one in its] for its in answers]

    def _prompt(self, question: str) -> list[int]:
        if self.tokens is None:
            return prompt_ids(question, self.template, self.tokenizer)
        return prompt_ids(with_image_in_front(question), self.template, self.tokenizer, self.image_ids)

    def _next(self, pictures: Sequence[str], prompts: list, answers: list) -> list[list[int]]:
        examples, ends = [], []
        for picture, its_prompts, its_answers in zip(pictures, prompts, answers, strict=True):
            whole = [prompt + answer for prompt, answer in zip(its_prompts, its_answers, strict=True)]
            packed = pack([TokenizedConversation(ids, [IGNORED] * len(ids)) for ids in whole])
            example = {n: torch.tensor(getattr(packed, n)) for n in ("ids", "labels", "positions", "segments")}
            if self.tokens is not None:
                example["tokens"] = self.tokens(picture)
            examples.append(example)
            shared = packed.segments.count(0)
            ends.append(list(itertools.accumulate((len(ids) - shared for ids in whole), initial=shared - 1))[1:])
        batch = self._collate(examples)
        del batch["labels"]
        with tokens_as_pictures(self.model):
            logits = self.model(**batch, use_cache=False).logits
        logits[..., self.image_id] = -torch.inf  # a model that has hardly learned may answer it; it needs a picture
        best = logits.argmax(-1)
        return [best[row, last].tolist() for row, last in enumerate(ends)]


def answer_files(answerer: PackedAnswerer, images: str | Path, files: Mapping[Path, Path]) -> int:
    """Answer question files; a question that several of them ask about a picture is answered once.

    Args:
        answerer: Model.
        images: Folder that "image" is relative to.
        files: Question file -> answer file to write.

    Returns:
        Number of different questions.
    """
    asked = {file: read_questions(file) for file in files}
    texts: dict[str, dict[str, str]] = {}
    for question in itertools.chain(*asked.values()):
        texts.setdefault(question.image, {})[question.text] = ""
    pictures = list(texts)
    for start in tqdm(range(0, len(pictures), _BATCH), desc="answers", unit="batch"):
        some = pictures[start : start + _BATCH]
        found = answerer([str(Path(images) / one) for one in some], [list(texts[one]) for one in some])
        for picture, answers in zip(some, found, strict=True):
            texts[picture] = dict(zip(texts[picture], answers, strict=True))
    for file, answer_file in files.items():
        write_text(answer_file, "".join(_line(one, texts[one.image][one.text]) for one in asked[file]))
    return sum(map(len, texts.values()))


def _line(question: Question, answer: str) -> str:
    content = {"question_id": question.raw_id, "prompt": question.text, "text": answer, "metadata": {}}
    return json.dumps({**content, "answer_id": str(question.raw_id), "model_id": "miniature"}) + "\n"
