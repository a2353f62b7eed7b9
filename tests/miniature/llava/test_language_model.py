"""The tokenizer knows every word of the files, and joins what it separates."""

import json

import pytest

pytest.importorskip("transformers", reason="needs denserc[llava]")


def texts(folder):
    for name in ("text", "captions", "instruct"):
        for entry in json.loads((folder / "questions" / f"{name}.json").read_text()):
            yield from (turn["value"] for turn in entry["conversations"])
    for name in ("pope", "gqa", "mme"):
        for line in (folder / "questions" / f"{name}.jsonl").read_text().splitlines():
            yield json.loads(line)["text"]


def test_every_word_has_its_id_and_comes_back(tiny):
    from denserc.miniature.llava.language_model import build_tokenizer

    tokenizer = build_tokenizer()
    for text in texts(tiny):
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids, text
        assert tokenizer.decode(ids) == text.replace("\n", " \n ")


def test_it_comes_back_from_a_folder_without_a_begin(tiny):
    from transformers import AutoTokenizer

    from denserc.llava.templates import begin_ids
    from denserc.miniature.llava.language_model import build_tokenizer

    read, made = AutoTokenizer.from_pretrained(tiny / "start"), build_tokenizer()
    assert read.get_vocab() == made.get_vocab() and begin_ids(read) == []
    assert read("USER: <image>\nis there grass ?").input_ids == made("USER: <image>\nis there grass ?").input_ids


def test_shipped_sizes_have_two_to_five_million_parameters():
    from denserc.config import read_config
    from denserc.miniature.llava.language_model import LlamaSizes, build_language_model, build_tokenizer
    from tests.paths import CONFIGS

    sizes = LlamaSizes.from_config(read_config(CONFIGS / "miniature" / "llava_text.yaml"))
    model = build_language_model(build_tokenizer(), sizes, positions=512, seed=0)
    assert 2e6 < model.num_parameters() < 5e6


@pytest.mark.parametrize(
    "given, words",
    [((32, 2, 3, 48), "heads must divide the width"), ((32, 2, 2), "expected 4 values"), ((0, 2, 2, 4), "at least 1")],
)
def test_impossible_sizes_are_refused(given, words):
    from denserc.config import read_config
    from denserc.miniature.llava.language_model import LlamaSizes
    from denserc.structures import ConfigurationError
    from tests.paths import CONFIGS

    with pytest.raises(ConfigurationError, match=words):
        LlamaSizes.from_config(read_config(CONFIGS / "miniature" / "llava_text.yaml", ["MODEL.LLAVA.LLAMA", given]))
