import json

import pytest

from denserc.data.vocabulary.prompts import VILD_TEMPLATES
from denserc.encoders.miniature import MINIATURE_WORDS, miniature_tokenizer, miniature_tokens
from denserc.miniature.captions import lexicon
from denserc.miniature.world import (
    ALL_THINGS,
    BASE_NAMES,
    CLASS_NAMES,
    NOVEL_NAMES,
    STUFF,
    SYNONYMS,
    THINGS,
    Domain,
    rename,
)


def words(names):
    return {word for name in names for word in name.split()}


def test_65_classes_split_48_and_17():
    assert (len(BASE_NAMES), len(NOVEL_NAMES), len(set(CLASS_NAMES))) == (48, 17, 65)
    assert len(ALL_THINGS) == 256
    assert set(CLASS_NAMES) <= {thing.name for thing in ALL_THINGS}
    assert tuple(thing.name for thing in THINGS) == CLASS_NAMES


def test_every_word_of_a_novel_name_is_in_some_base_name():
    assert words(NOVEL_NAMES) <= words(BASE_NAMES)


def test_the_list_is_not_alphabetical():
    assert list(CLASS_NAMES) != sorted(CLASS_NAMES)


def test_other_names_share_no_word_with_the_main_ones():
    assert words(SYNONYMS) == words(CLASS_NAMES) | set(STUFF)
    assert not words(SYNONYMS.values()) & words(SYNONYMS)
    assert len({rename(name, Domain.TRANSFER) for name in CLASS_NAMES + STUFF}) == 65 + 8
    assert rename("striped purple cross", Domain.TRANSFER) == "lined violet plus"
    assert rename("striped purple cross", Domain.MAIN) == "striped purple cross"


def test_the_shipped_token_list_is_made_of_the_lexicon():
    assert json.loads(MINIATURE_WORDS.read_text(encoding="utf-8")) == miniature_tokens(lexicon())


@pytest.mark.parametrize("name", [*CLASS_NAMES[:5], *(rename(n, Domain.TRANSFER) for n in CLASS_NAMES[:5]), *STUFF])
def test_names_need_no_spelling(name):
    tokenizer = miniature_tokenizer()
    assert len(tokenizer.encode(name)) <= 2 * len(name.split())


def test_names_in_every_prompt_template_fit_the_context():
    tokenizer = miniature_tokenizer()
    longest = max(CLASS_NAMES, key=lambda name: len(tokenizer.encode(rename(name, Domain.TRANSFER))))
    rows = tokenizer([template.format(longest, article="a") for template in VILD_TEMPLATES])
    assert (rows[:, -1] == 0).all()
