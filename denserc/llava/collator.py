"""From conversations to batches: tokens and labels with their cut, pictures as the tower's input."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ..data.images.reading import read_rgb
from ..structures import DataError
from .conversations import Conversation
from .options import Aspect
from .templates import IGNORED, Template, tokenize

CUT = "cut"
"""Entry of a batch: number of its sequences that were cut at the maximum length. No input of the model."""


class ConversationDataset(Dataset):
    """Conversations as tensors, tokenized and with the picture read when they are drawn.

    Args:
        conversations: Checked conversations.
        template: Text around them.
        tokenizer: Fast tokenizer of transformers.
        pictures: From an RGB picture, (H, W, 3) uint8, to the tower's input (3, h, w).
        image_ids: Ids in place of `<image>`, one per token of the tower.
        max_length: Most tokens of a sequence.
    """

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        template: Template,
        tokenizer: Any,
        pictures: Callable[[Any], torch.Tensor],
        image_ids: Sequence[int],
        max_length: int,
    ):
        self.conversations = conversations
        self.template = template
        self.tokenizer = tokenizer
        self.pictures = pictures
        self.image_ids = list(image_ids)
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{"input_ids" (n,), "labels" (n,), CUT, "pixel_values" (3, h, w) if there is a picture}.

        Raises:
            DataError: The picture is unreadable, or the cut would remove tokens of it.
        """
        conversation = self.conversations[index]
        made = tokenize(conversation, self.template, self.tokenizer, self.image_ids)
        ids, labels = made.ids[: self.max_length], made.labels[: self.max_length]
        example = {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), CUT: len(made.ids) > self.max_length}
        if conversation.image is not None:
            self._require_whole_picture(ids, made.ids, conversation)
            example["pixel_values"] = self.pictures(read_rgb(conversation.image))
        return example

    def _require_whole_picture(self, ids: list[int], whole: list[int], conversation: Conversation) -> None:
        if len(ids) == len(whole):
            return
        left, expected = ids.count(self.image_ids[0]), len(self.image_ids)
        if left != expected:
            raise DataError(
                f"{conversation.name}: cut at LLAVA.MAX_LENGTH {self.max_length}, {left} of the picture's {expected} "
                f"tokens are left. Raise LLAVA.MAX_LENGTH, or move <image> to an earlier question."
            )


class Collator:
    """Batches of examples, padded at the right.

    Args:
        padding: Id of padding; it is neither attended to nor learned.
    """

    def __init__(self, padding: int):
        self.padding = padding

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """{"input_ids", "attention_mask", "labels" (B, n), CUT, "pixel_values" (P, 3, h, w) of those with one}."""
        ids = [example["input_ids"] for example in examples]
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.padding),
            "attention_mask": pad_sequence([torch.ones_like(one) for one in ids], batch_first=True),
            "labels": pad_sequence([one["labels"] for one in examples], batch_first=True, padding_value=IGNORED),
            CUT: sum(example[CUT] for example in examples),
        }
        pictures = [example["pixel_values"] for example in examples if "pixel_values" in example]
        if pictures:
            batch["pixel_values"] = torch.stack(pictures)
        return batch


class PictureTransform:
    """A picture as the tower's input, by the image processor that was exported with the model.

    Args:
        processor: LlavaImageProcessor, with the tower's size and pixel statistics.
        aspect: Padding or cropping.
    """

    def __init__(self, processor: Any, aspect: Aspect):
        self.processor = processor
        self.aspect = aspect

    def __call__(self, pixels: Any) -> torch.Tensor:
        """(H, W, 3) uint8 RGB -> (3, h, w) normalized."""
        made = self.processor(
            pixels, do_pad=self.aspect is Aspect.PAD, return_tensors="pt", input_data_format="channels_last"
        )
        return made["pixel_values"][0]
