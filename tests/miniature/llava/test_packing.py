"""Packed questions have the logits, the loss and the answers of single ones."""

import pytest
import torch

pytest.importorskip("transformers", reason="needs denserc[llava]")

from denserc.data.images.reading import read_rgb  # noqa: E402
from denserc.llava.collator import PictureTransform  # noqa: E402
from denserc.llava.conversations import read_conversations  # noqa: E402
from denserc.llava.engine import picture_tokens  # noqa: E402
from denserc.llava.generation import Answerer, GenerationSettings  # noqa: E402
from denserc.llava.options import Aspect  # noqa: E402
from denserc.llava.templates import IGNORED, TEMPLATES, TokenizedConversation, tokenize  # noqa: E402
from denserc.miniature.llava.answering import PackedAnswerer  # noqa: E402
from denserc.miniature.llava.features import tokens_as_pictures  # noqa: E402
from denserc.miniature.llava.packing import (  # noqa: E402
    PackedCollator,
    PackedDataset,
    attention_mask,
    by_picture,
    pack,
    without_picture,
)
from denserc.structures import DataError  # noqa: E402

TEMPLATE = "vicuna_v1_without_system"


@pytest.fixture(scope="module")
def encode(llava):
    """From the path of a picture to the tower's tokens."""
    model, processor = llava
    transform = PictureTransform(processor.image_processor, Aspect.PAD)
    return lambda path: model.model.vision_tower(transform(read_rgb(path))[None]).hidden_states[-1][0]


def dataset(llava, conversations, tokens, template=TEMPLATE, max_length=512):
    model, processor = llava
    return PackedDataset(
        conversations,
        template=TEMPLATES[template],
        tokenizer=processor.tokenizer,
        image_ids=[processor.image_token_id] * picture_tokens(model),
        max_length=max_length,
        tokens=tokens,
    )


def read(tiny, name):
    return read_conversations([tiny / "questions" / f"{name}.json"], tiny / "questions")


def test_common_part_positions_and_segments():
    first = TokenizedConversation([7, 9, 9, 1, 2, 3], [IGNORED] * 4 + [2, 3])
    second = TokenizedConversation([7, 9, 9, 4, 5], [IGNORED] * 4 + [5])
    packed = pack([first, second])
    assert packed.ids == [7, 9, 9, 1, 2, 3, 4, 5]
    assert packed.positions == [0, 1, 2, 3, 4, 5, 3, 4]
    assert packed.segments == [0, 0, 0, 1, 1, 1, 2, 2]
    assert packed.labels == [IGNORED] * 4 + [2, 3, IGNORED, 5]


@pytest.mark.parametrize("same", [1, 2])
def test_no_rest_begins_with_a_learned_token(same):
    one = TokenizedConversation([7, 9, 4, 5], [IGNORED, IGNORED, 4, 5])
    packed = pack([one] * same)
    assert packed.segments == [0] + [1] * 3 + [2] * 3 * (same - 1)
    assert packed.labels == [IGNORED] + [IGNORED, 4, 5] * same


def test_mask_shows_the_common_part_and_ones_own():
    mask = attention_mask(torch.tensor([[0, 1, 1, 2, -1]]))[0, 0]
    assert mask.tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, False, False, True, False],
        [True, False, False, False, True],
    ]


@pytest.mark.parametrize("name, shown", [("instruct", True), ("instruct", False), ("text", False), ("captions", True)])
@torch.no_grad()
def test_logits_and_loss_equal_those_of_single_questions(tiny, llava, encode, name, shown):
    model, processor = llava
    conversations = read(tiny, name)
    template = "plain" if name == "captions" else TEMPLATE
    data = dataset(llava, conversations, encode if shown else None, template)
    assert len(data) == 4 and (name == "captions" or len(conversations) > 40)
    batch = PackedCollator(processor.tokenizer.pad_token_id)([data[0], data[1]])  # of different lengths
    differences = []
    with tokens_as_pictures(model):
        out = model(**batch)
        total, count = 0.0, 0
        for row, group in enumerate(by_picture(conversations)[:2]):
            shared = (data[row]["segments"] == 0).sum().item()
            begin = shared
            for one in group:
                one = one if shown else without_picture(one)
                single = tokenize(one, data.template, processor.tokenizer, data.image_ids)
                pictures = {"pixel_values": batch["pixel_values"][row : row + 1]} if shown else {}
                ids, labels = torch.tensor([single.ids]), torch.tensor([single.labels])
                alone = model(input_ids=ids, labels=labels, **pictures)
                length = len(single.ids) - shared
                difference = out.logits[row, begin : begin + length] - alone.logits[0, shared:]
                differences.append(difference.abs().max().item())
                learned = (labels[:, 1:] != IGNORED).sum().item()
                total, count, begin = total + alone.loss.item() * learned, count + learned, begin + length
    assert max(differences) < 1e-6 * out.logits.abs().max()
    assert out.loss.item() == pytest.approx(total / count, abs=1e-6)


@torch.no_grad()
def test_a_question_is_hidden_from_the_others(tiny, llava, encode):
    model, processor = llava
    data = dataset(llava, read(tiny, "instruct"), encode)
    batch = PackedCollator(processor.tokenizer.pad_token_id)([data[0]])
    of_first = data[0]["segments"] == 1
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, of_first] = processor.tokenizer.convert_tokens_to_ids("grass")
    with tokens_as_pictures(model):
        change = (model(**batch).logits - model(**other).logits)[0].abs().amax(-1)
    assert change[of_first].max() > 1e-3 and change[~of_first].max() == 0


def test_too_long_conversations_are_named(tiny, llava):
    data = dataset(llava, read(tiny, "text"), None, max_length=8)
    with pytest.raises(DataError, match=r"text.json, entry \d+ .* has \d+ tokens; LLAVA.MAX_LENGTH is 8"):
        data[0]


def test_answers_equal_those_of_generation(tiny, llava, encode):
    model, processor = llava
    texts = ["is there grass ?", "how many red things are there ?", "is there a solid red ring ?"]
    pictures = [str(tiny / "questions" / "test" / f"00000{i}.png") for i in range(2)]
    made = PackedAnswerer(model, processor, template=TEMPLATE, tokens=encode, max_new_tokens=4)
    single = Answerer(model, processor, GenerationSettings(template=TEMPLATE, max_new_tokens=4))
    answers = made(pictures, [texts, texts[:2]])
    assert answers[0] == [single(text, read_rgb(pictures[0])) for text in texts]
    assert answers[1] == [single(text, read_rgb(pictures[1])) for text in texts[:2]]
    assert any(answers[0])


def test_the_token_of_a_picture_is_never_answered(tiny, llava, encode, monkeypatch):
    model, processor = llava
    pictures, texts = [str(tiny / "questions" / "test" / "000000.png")], [["is there grass ?", "is there sand ?"]]
    made = PackedAnswerer(model, processor, template=TEMPLATE, tokens=encode)
    expected = made(pictures, texts)
    forward = model.lm_head.forward

    def prefer_it(hidden):
        logits = forward(hidden)
        return logits.index_fill(-1, torch.tensor(processor.image_token_id), logits.max().item() + 1)

    monkeypatch.setattr(model.lm_head, "forward", prefer_it)
    assert made(pictures, texts) == expected
