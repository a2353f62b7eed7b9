"""Sentences from class names, as ViLD writes them."""

import pytest

from denserc.data.vocabulary.prompts import (
    PLAIN_TEMPLATES,
    VILD_TEMPLATES,
    VerbatimTemplate,
    build_prompts,
    clean_name,
    template_set,
)
from denserc.structures import ConfigurationError, DataError


def test_the_set_has_63_different_templates_that_all_format():
    assert len(set(VILD_TEMPLATES)) == len(VILD_TEMPLATES) == 63
    prompts = build_prompts("cat", VILD_TEMPLATES)
    assert len(set(prompts)) == 63 and all(" cat" in p and "{" not in p for p in prompts)


@pytest.mark.parametrize(
    "name, written",
    [("aerosol_can", "aerosol can"), ("cabinet / shelf", "cabinet or shelf"), ("picture/frame", "picture or frame"),
     ("tissue ", "tissue"), ("batter_(food)", "batter (food)"), ("Bible", "bible")],
)  # fmt: skip
def test_names_are_rewritten(name, written):
    assert clean_name(name) == written


@pytest.mark.parametrize("name, article", [("apple", "an"), ("Orange", "an"), ("cat", "a"), ("_umbrella", "an")])
def test_the_article_fits_the_name(name, article):
    assert build_prompts(name, ["There is {article} {}."])[0].startswith(f"There is {article} ")


@pytest.mark.parametrize(
    "template, expected",
    [
        ("a photo of {article} {}.", "This is a photo of a cat."),
        ("an embroidered {}.", "This is an embroidered cat."),
        ("the toy {}.", "This is the toy cat."),
        ("There is {article} {} in the scene.", "There is a cat in the scene."),
        ("itap of my {}.", "itap of my cat."),
        ("another {}.", "another cat."),
    ],
)
def test_this_is_introduces_templates_that_begin_with_an_article(template, expected):
    assert build_prompts("cat", [template]) == [expected]


def test_plain_template():
    assert build_prompts("cat", PLAIN_TEMPLATES) == ["This is a photo of a cat."]


@pytest.mark.parametrize("templates", [[], ["a photo"], ["a {} and a {}"], ["a {color} {}"]])
def test_templates_need_exactly_one_place_for_the_name(templates):
    with pytest.raises(DataError, match="template"):
        build_prompts("cat", templates)


def test_blank_names_are_refused():
    with pytest.raises(DataError, match="letters"):
        build_prompts(" _ ", PLAIN_TEMPLATES)


def test_braces_in_a_name_are_letters():
    assert build_prompts("{}x", ["the {}"]) == ["This is the {}x"]


def test_sets_have_names():
    assert template_set("vild") is VILD_TEMPLATES
    with pytest.raises(ConfigurationError, match="plain"):
        template_set("imagenet")


def test_openais_80_templates_are_used_as_they_are():
    templates = template_set("openai")
    assert len(set(templates)) == 80 and "a photo of a {}." in templates
    prompts = build_prompts("Traffic light", templates)
    assert "a photo of a traffic light." in prompts and not any(p.startswith("This is") for p in prompts)
    assert build_prompts("cat", [VerbatimTemplate("the {}.")]) == ["the cat."]
