"""Several questions about one picture in one sequence, each with the picture and itself in view.

The full size trains one conversation per sequence. In the miniature the picture is 64 of about 78 tokens, so 16
questions in sequences of their own would cost about four times as many tokens. A packed sequence begins with what all
of them begin with, the picture; then follows the rest of each question with its answer. A 4-D mask hides them from each
other, and positions restart after the common part. So every answer is computed from the same numbers as in a sequence
of its own. Templates, labels, loss and trainer are those of `denserc.llava`.

Shape letters: B packed sequences, n tokens of the longest one, N tokens of a picture, C channels of the tower.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ...llava.conversations import IMAGE, Conversation
from ...llava.templates import IGNORED, Template, TokenizedConversation, tokenize
from ...structures import DataError

_SHARED, _PADDING = 0, -1


@dataclass(frozen=True)
class PackedSequence:
    """One packed sequence; all lists have its length.

    Args:
        ids: Token ids.
        labels: Id where the token is learned, `IGNORED` elsewhere.
        positions: Position of each token in a sequence of its own.
        segments: 0 for the common part, then 1, 2, ... for the rest of each conversation.
    """

    ids: list[int]
    labels: list[int]
    positions: list[int]
    segments: list[int]


def pack(sequences: Sequence[TokenizedConversation]) -> PackedSequence:
    """Join sequences behind what they all begin with.

    The first token of each rest predicts, and is not predicted: the token before it belongs to another sequence. The
    common part therefore ends before the last token without a loss.
    """
    shared = _shared_length(sequences)
    first = sequences[0]
    ids, labels = first.ids[:shared], first.labels[:shared]
    positions, segments = list(range(shared)), [_SHARED] * shared
    for segment, one in enumerate(sequences, start=1):
        ids = ids + one.ids[shared:]
        labels = labels + one.labels[shared:]
        positions += range(shared, len(one.ids))
        segments += [segment] * (len(one.ids) - shared)
    return PackedSequence(ids, labels, positions, segments)


def attention_mask(segments: torch.Tensor) -> torch.Tensor:
    """(B, n) segments -> (B, 1, n, n) bool: whether token i attends to j, which is the common part or its own."""
    i, j = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool).tril()
    return (causal & ((j == _SHARED) | (i == j)))[:, None]


def by_picture(conversations: Sequence[Conversation]) -> list[list[Conversation]]:
    """Neighbors about one picture, or without one, whose questions begin with the same line."""
    groups = groupby(conversations, lambda one: one.image or one.rounds[0][0].partition("\n")[0])
    return [list(group) for _, group in groups]


def without_picture(conversation: Conversation) -> Conversation:
    """The same questions for a model that is not shown the picture."""
    rounds = tuple((question.replace(IMAGE, "").strip(), answer) for question, answer in conversation.rounds)
    return Conversation(conversation.name, None, rounds)


class PackedDataset(Dataset):
    """Packed sequences as tensors; one item is all conversations about one picture.

    Args:
        conversations: Checked conversations of one round, those about one picture together.
        template: Text around them.
        tokenizer: Fast tokenizer of transformers.
        image_ids: Ids in place of `<image>`.
        max_length: Most tokens of one conversation.
        tokens: From the path of a picture to its tokens (N, C); None: the pictures are not shown.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        template: Template,
        tokenizer: Any,
        image_ids: Sequence[int],
        max_length: int,
        tokens: Callable[[str], torch.Tensor] | None,
    ):
        self.groups = by_picture(conversations)
        self.template = template
        self.tokenizer = tokenizer
        self.image_ids = list(image_ids)
        self.max_length = max_length
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """{"ids", "labels", "positions", "segments" (n,), "tokens" (N, C) where a picture is shown}.

        Raises:
            DataError: A conversation is longer than `max_length`.
        """
        group = self.groups[index]
        image = group[0].image
        shown = group if self.tokens is not None else [without_picture(one) for one in group]
        made = [tokenize(one, self.template, self.tokenizer, self.image_ids) for one in shown]
        longest = max(range(len(made)), key=lambda i: len(made[i].ids))
        if len(made[longest].ids) > self.max_length:
            raise DataError(
                f"{group[longest].name} has {len(made[longest].ids)} tokens; LLAVA.MAX_LENGTH is {self.max_length} and "
                "packed conversations are not cut. Raise it."
            )
        packed = pack(made)
        example = {name: torch.tensor(getattr(packed, name)) for name in ("ids", "labels", "positions", "segments")}
        if self.tokens is not None and image is not None:
            example["tokens"] = self.tokens(image)
        return example


class PackedCollator:
    """Batches of packed sequences, padded at the right.

    Args:
        padding: Id of padding; only padding attends to it.
    """

    def __init__(self, padding: int):
        self.padding = padding

    def __call__(self, examples: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """{"input_ids", "labels", "position_ids" (B, n), "attention_mask" (B, 1, n, n), "pixel_values" (B, N, C)}."""
        padded = {
            name: pad_sequence([one[name] for one in examples], batch_first=True, padding_value=value)
            for name, value in (("ids", self.padding), ("labels", IGNORED), ("positions", 0), ("segments", _PADDING))
        }
        batch = {
            "input_ids": padded["ids"],
            "labels": padded["labels"],
            "position_ids": padded["positions"],
            "attention_mask": attention_mask(padded["segments"]),
        }
        if "tokens" in examples[0]:
            batch["pixel_values"] = torch.stack([one["tokens"] for one in examples])
        return batch


def _shared_length(sequences: Sequence[TokenizedConversation]) -> int:
    """Number of first tokens that all have in common and that none learns, without the last of those."""
    shortest = min(len(one.ids) for one in sequences)
    for position in range(shortest):
        column = {one.ids[position] for one in sequences}
        if len(column) > 1:
            return min(position, _prompt_length(sequences) - 1)
    return min(shortest, _prompt_length(sequences)) - 1


def _prompt_length(sequences: Sequence[TokenizedConversation]) -> int:
    """Number of tokens of the shortest prompt: those before the first learned one."""
    return min(next((i for i, label in enumerate(one.labels) if label != IGNORED), len(one.ids)) for one in sequences)
