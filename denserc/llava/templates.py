"""Templates: a conversation as token ids, and the labels of its loss.

The text is LLaVA's to the character, and so are the places where it is tokenized apart: before and after the picture,
and after each end of an answer. Labels are the ids of answers and of what ends them, `IGNORED` elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..structures import ConfigurationError, DataError
from .conversations import IMAGE, Conversation

IGNORED = -100
"""Label without a loss, PyTorch's default."""

_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class Template:
    """Text around pictures, questions and answers.

    Args:
        before: Text before the first question.
        question: From a question, with `<image>` where the picture belongs, to the text up to the answer.
        answer: From an answer to the text that is learned.
        ends: Whether the tokenizer's end of sequence follows each answer.
        one_round: Whether only one question about a picture is possible, whose words are not read.
    """

    before: str
    question: Callable[[str], str]
    answer: Callable[[str], str]
    ends: bool
    one_round: bool = False


def _vicuna(before: str) -> Template:
    return Template(
        before=before,
        question=lambda question: f"USER: {question} ASSISTANT:",
        answer=lambda answer: f" {answer}",
        ends=True,
    )


TEMPLATES = {
    "plain": Template(
        before="", question=lambda _: IMAGE, answer=lambda answer: f"{answer}\n", ends=False, one_round=True
    ),
    "vicuna_v1": _vicuna(f"{_VICUNA} "),
    "vicuna_v1_without_system": _vicuna(""),
}
"""Those of LLaVA-1.5 by its names, and the second without its 30 words of introduction, for small models."""


@dataclass(frozen=True)
class TokenizedConversation:
    """Ids and labels of one sequence, both of the same length.

    Args:
        ids: Token ids; the picture is a run of its id.
        labels: Id where the token is learned, `IGNORED` elsewhere.
    """

    ids: list[int]
    labels: list[int]


def tokenize(
    conversation: Conversation, template: Template, tokenizer: Any, image_ids: Sequence[int]
) -> TokenizedConversation:
    """Token ids and labels of a conversation.

    Args:
        tokenizer: Fast tokenizer of transformers.
        image_ids: Ids in place of `<image>`, one per token of the vision tower.
    """
    ids = begin_ids(tokenizer)
    labels = [IGNORED] * len(ids)
    for position, (question, answer) in enumerate(conversation.rounds):
        asked = (template.before if position == 0 else "") + template.question(question)
        before, found, after = asked.rpartition(IMAGE) if conversation.image is not None else ("", "", asked)
        if found:
            question_ids = [*_ids(tokenizer, before), *image_ids]
            ids += question_ids
            labels += [IGNORED] * len(question_ids)
        text = after + template.answer(answer)
        for token, learned in _ids_after(tokenizer, text, len(after)):
            ids.append(token)
            labels.append(token if learned else IGNORED)
        if template.ends:
            ids.append(tokenizer.eos_token_id)
            labels.append(tokenizer.eos_token_id)
    return TokenizedConversation(ids, labels)


def prompt_ids(question: str, template: Template, tokenizer: Any, image_ids: Sequence[int] = ()) -> list[int]:
    """Token ids up to where the answer begins: the input of generation.

    Args:
        question: Question with `<image>` where the picture belongs (see `with_image_in_front`); without it, text only.
        tokenizer: Fast tokenizer of transformers.
        image_ids: Ids in place of `<image>`.
    """
    before, found, after = (template.before + template.question(question)).rpartition(IMAGE)
    ids = [*begin_ids(tokenizer), *(_ids(tokenizer, before) if found else ()), *(image_ids if found else ())]
    return ids + _ids(tokenizer, after)


def require_template(conversations: Sequence[Conversation], name: str) -> Template:
    """The template of a name, if all conversations fit it.

    Raises:
        ConfigurationError: There is no such template.
        DataError: A template for one round about a picture, and a conversation of another kind.
    """
    if name not in TEMPLATES:
        raise ConfigurationError(f"LLAVA.TEMPLATE is {name!r}; legal are {', '.join(map(repr, TEMPLATES))}.")
    template = TEMPLATES[name]
    if template.one_round:
        others = [one for one in conversations if one.image is None or len(one.rounds) != 1]
        if others:
            raise DataError(
                f"LLAVA.TEMPLATE {name!r} is for one round about a picture, and {len(others)} conversations are not of "
                f"that kind. The first: {others[0].name} with {len(others[0].rounds)} rounds and "
                f"{'a' if others[0].image else 'no'} picture. Use the template 'vicuna_v1', or other files."
            )
    return template


def begin_ids(tokenizer: Any) -> list[int]:
    """The begin of a sequence, where the tokenizer puts one before every text."""
    begin = tokenizer.bos_token_id
    return [begin] if begin is not None and begin in tokenizer("").input_ids else []


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids if text else []


def _ids_after(tokenizer: Any, text: str, start: int) -> list[tuple[int, bool]]:
    """(id, whether it covers text from `start` on) of each token. Names of special tokens are read as plain text."""
    made = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return [(token, end > start) for token, (_, end) in zip(made.input_ids, made.offset_mapping, strict=True)]
