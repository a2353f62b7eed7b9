"""Templates against tokens and labels worked out by hand."""

import pytest

from denserc.llava.conversations import Conversation
from denserc.llava.templates import IGNORED, TEMPLATES, prompt_ids, require_template, tokenize
from denserc.structures import ConfigurationError, DataError
from tests.llava.conftest import make_tokenizer

pytest.importorskip("transformers", reason="needs denserc[llava]")

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant . The assistant gives helpful , detailed , "
    "and polite answers to the user ' s questions ."
)
TWO = Conversation("two", "a.png", (("<image>\nwhat color is it", "red thing"), ("how many", "two")))
TEXT = Conversation("text", None, (("is it red", "no ."),))
CAPTION = Conversation("caption", "a.png", (("<image>\nwhat is it", "red thing"),))


def worked(tokenizer, text: str):
    """Ids and labels of words, those in brackets learned; "/" for a line break."""
    words = [{"/": "\n", "[/]": "[\n]"}.get(word, word) for word in text.split()]
    ids = [tokenizer.convert_tokens_to_ids(word.strip("[]")) for word in words]
    return ids, [one if word.startswith("[") else IGNORED for one, word in zip(ids, words, strict=True)]


def made(conversation, name, tokenizer, images=3):
    found = tokenize(conversation, TEMPLATES[name], tokenizer, [tokenizer.convert_tokens_to_ids("<image>")] * images)
    return found.ids, found.labels


def test_vicuna_learns_answers_and_their_end(tokenizer):
    expected = worked(
        tokenizer,
        f"<s> {SYSTEM} USER : <image> <image> <image> / what color is it ASSISTANT : [red] [thing] [</s>] "
        "USER : how many ASSISTANT : [two] [</s>]",
    )
    assert tokenizer.unk_token_id not in expected[0]
    assert made(TWO, "vicuna_v1", tokenizer) == expected


def test_vicuna_of_text_only(tokenizer):
    expected = worked(tokenizer, f"<s> {SYSTEM} USER : is it red ASSISTANT : [no] [.] [</s>]")
    assert made(TEXT, "vicuna_v1", tokenizer) == expected


def test_without_the_system_text(tokenizer):
    expected = worked(tokenizer, "<s> USER : is it red ASSISTANT : [no] [.] [</s>]")
    assert made(TEXT, "vicuna_v1_without_system", tokenizer) == expected


def test_plain_learns_the_caption_and_its_line_break(tokenizer):
    """The question's words are not read, and there is no end of sequence: as in LLaVA's stage 1."""
    assert made(CAPTION, "plain", tokenizer, images=2) == worked(tokenizer, "<s> <image> <image> [red] [thing] [/]")


def test_a_tokenizer_without_a_begin_gets_none():
    plain = make_tokenizer(begin=False)
    assert made(CAPTION, "plain", plain, images=1) == worked(plain, "<image> [red] [thing] [/]")


def test_names_of_special_tokens_in_a_text_stay_text(tokenizer):
    text = Conversation("text", None, (("is </s> it", "<image> no"),))
    ids, labels = made(text, "vicuna_v1_without_system", tokenizer)
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<image>") not in ids
    assert labels[-2] == tokenizer.convert_tokens_to_ids("no")


def test_a_prompt_is_the_sequence_up_to_the_answer(tokenizer):
    for conversation, name in ((CAPTION, "vicuna_v1"), (TEXT, "vicuna_v1"), (CAPTION, "plain")):
        ids, labels = made(conversation, name, tokenizer)
        images = [tokenizer.convert_tokens_to_ids("<image>")] * 3
        prompt = prompt_ids(conversation.rounds[0][0], TEMPLATES[name], tokenizer, images)
        assert prompt == ids[: next(i for i, label in enumerate(labels) if label != IGNORED)]


def test_tokens_of_llama_are_those_of_llavas_own_reader():
    """LLaVA used Llama's tokenizer of 2023, which puts a space before every piece of text, also after </s>.

    Today's class does so at the beginning of a text only, hence each piece is a text of its own. Worked by hand.
    """
    from transformers import LlamaTokenizer

    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "<0x0A>",
        "\u2581",
        ":",
        "is",
        "\u2581is",
        "no",
        "\u2581no",
        "i",
        "s",
        "n",
        "o",
        "<image>",
    ]
    pieces += ["U", "S", "E", "R", "A", "I", "T", "N", "\u2581A", "\u2581U"]
    merges = [("i", "s"), ("n", "o"), ("\u2581", "is"), ("\u2581", "no"), ("\u2581", "A"), ("\u2581", "U")]
    llama = LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, add_bos_token=True)
    one = Conversation("one", "a.png", (("<image>\nis", "no no"), ("is", "no")))
    found = tokenize(one, TEMPLATES["vicuna_v1_without_system"], llama, [llama.convert_tokens_to_ids("<image>")])
    user, assistant = "\u2581U S E R :".split(), "\u2581A S S I S T A N T :".split()
    learned = ["\u2581no", "\u2581no", "</s>"], ["\u2581no", "</s>"]
    first = ["<s>", *user, "\u2581", "<image>", "\u2581", "<0x0A>", "is", *assistant]
    expected = [*first, *learned[0], *user, "\u2581is", *assistant, *learned[1]]
    assert llama.convert_ids_to_tokens(found.ids) == expected
    second = len(user) + 1 + len(assistant)
    masks = [False] * len(first) + [True] * 3 + [False] * second + [True] * 2
    assert [label != IGNORED for label in found.labels] == masks


def test_plain_is_for_one_round_about_a_picture():
    assert require_template([CAPTION], "plain") is TEMPLATES["plain"]
    for other in (TWO, TEXT):
        with pytest.raises(DataError, match="1 conversations are not of that kind. .*'vicuna_v1'"):
            require_template([CAPTION, other], "plain")


def test_an_unknown_template_is_named():
    with pytest.raises(ConfigurationError, match="'v2'; legal are 'plain', 'vicuna_v1'"):
        require_template([CAPTION], "v2")
