"""Batches: padding and cut of the tokens, padding and cropping of the pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from denserc.llava.collator import CUT, Collator, ConversationDataset, PictureTransform
from denserc.llava.conversations import Conversation, read_conversations
from denserc.llava.options import Aspect
from denserc.llava.templates import IGNORED, TEMPLATES
from denserc.structures import CLIP_PIXELS, DataError
from tests.llava.conftest import turns, write_data

transformers = pytest.importorskip("transformers", reason="needs denserc[llava]")

SIDE = 16


@pytest.fixture(scope="module")
def processor():
    return transformers.LlavaImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_pad=True
    )


def dataset(conversations, tokenizer, processor, *, max_length=64, aspect=Aspect.PAD, images=4):
    return ConversationDataset(
        conversations,
        template=TEMPLATES["vicuna_v1_without_system"],
        tokenizer=tokenizer,
        pictures=PictureTransform(processor, aspect),
        image_ids=[tokenizer.convert_tokens_to_ids("<image>")] * images,
        max_length=max_length,
    )


@pytest.fixture
def conversations(tmp_path):
    entries = [
        {"image": "0.png", "conversations": turns("<image>\nwhat color is it", "red")},
        {"conversations": turns("is it red", "no")},
        {"image": "1.png", "conversations": turns("is it <image>", "blue", "how many", "two")},
    ]
    file, images = write_data(tmp_path, entries, pictures=2)
    return read_conversations([file], images)


def test_a_batch_is_padded_without_attention_or_loss(conversations, tokenizer, processor):
    data = dataset(conversations, tokenizer, processor)
    examples = [data[i] for i in range(3)]
    batch = Collator(tokenizer.pad_token_id)(examples)
    sizes = [len(example["input_ids"]) for example in examples]
    assert batch["input_ids"].shape == batch["labels"].shape == (3, max(sizes))
    assert batch["attention_mask"].sum(dim=1).tolist() == sizes
    assert batch["pixel_values"].shape == (2, 3, SIDE, SIDE) and batch[CUT] == 0
    outside = batch["attention_mask"] == 0
    assert (batch["labels"][outside] == IGNORED).all() and (batch["input_ids"][outside] == 0).all()
    assert torch.equal(batch["pixel_values"][1], examples[2]["pixel_values"])


def test_a_batch_of_text_has_no_pictures(conversations, tokenizer, processor):
    assert "pixel_values" not in Collator(0)([dataset(conversations, tokenizer, processor)[1]])


def test_long_sequences_are_cut_and_counted(conversations, tokenizer, processor):
    data = dataset(conversations, tokenizer, processor, max_length=12)
    whole = dataset(conversations, tokenizer, processor)
    batch = Collator(0)([data[0], data[2]])
    assert batch[CUT] == 2 and batch["input_ids"].shape == (2, 12)
    assert torch.equal(batch["input_ids"][0], whole[0]["input_ids"][:12])


def test_a_cut_through_the_picture_is_refused(conversations, tokenizer, processor):
    with pytest.raises(DataError, match="5, 2 of the picture's 4 tokens are left. Raise LLAVA.MAX_LENGTH"):
        dataset(conversations, tokenizer, processor, max_length=5)[0]


def stripes(tmp_path, shape) -> str:
    """A picture whose left (or upper) fifth is red, the rest green."""
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    pixels[..., 1] = 255
    across = shape[1] > shape[0]
    fifth = max(shape) // 5
    pixels[(slice(None), slice(fifth)) if across else slice(fifth)] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "stripes.png")
    return str(tmp_path / "stripes.png")


def colors(values: torch.Tensor) -> np.ndarray:
    """(3, h, w) normalized -> (h, w, 3) in 0..255."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (CLIP_PIXELS.mean, CLIP_PIXELS.std))
    return ((values * std + mean) * 255).round().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("shape", [(16, 32), (32, 16)])
def test_padding_is_centered_and_of_the_mean_color(tmp_path, tokenizer, processor, shape):
    one = Conversation("one", stripes(tmp_path, shape), (("<image>", "red"),))
    found = colors(dataset([one], tokenizer, processor)[0]["pixel_values"])
    if shape[0] > shape[1]:
        found = found.transpose(1, 0, 2)
    assert (found[:2] == (122, 116, 104)).all() and (found[-2:] == (122, 116, 104)).all()
    inside = found[6:10]
    np.testing.assert_allclose(inside[:, :2], np.broadcast_to((255, 0, 0), inside[:, :2].shape), atol=2)
    np.testing.assert_allclose(inside[:, 6:], np.broadcast_to((0, 255, 0), inside[:, 6:].shape), atol=2)


@pytest.mark.parametrize("shape", [(16, 32), (32, 16)])
def test_cropping_keeps_the_center_of_the_long_side(tmp_path, tokenizer, processor, shape):
    """The red fifth is outside of the central half."""
    one = Conversation("one", stripes(tmp_path, shape), (("<image>", "red"),))
    found = colors(dataset([one], tokenizer, processor, aspect=Aspect.CROP)[0]["pixel_values"])
    assert found.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(found, np.broadcast_to((0, 255, 0), found.shape), atol=2)


def test_an_unreadable_picture_is_named(tmp_path, tokenizer, processor):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    one = Conversation("one", str(tmp_path / "bad.png"), (("<image>", "red"),))
    with pytest.raises(DataError, match="bad.png cannot be read"):
        dataset([one], tokenizer, processor)[0]
