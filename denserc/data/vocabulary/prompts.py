"""From class names to sentences: ViLD's prompt templates and the plain one.

A template has {} for the name and may have {article}. As in ViLD: underscores become blanks, "/" becomes " or ",
the article is "an" before a vowel, and "This is " is put before templates that begin with a, an or the in lower case.
"""

import re
from collections.abc import Iterable, Sequence

from ...structures import BACKGROUND, ConfigurationError, DataError

PLAIN_TEMPLATES: tuple[str, ...] = ("a photo of a {}.",)
CATSEG_TEMPLATES: tuple[str, ...] = ("A photo of a {} in the scene",)

VILD_TEMPLATES: tuple[str, ...] = (
    "There is {article} {} in the scene.",
    "There is the {} in the scene.",
    "a photo of {article} {} in the scene.",
    "a photo of the {} in the scene.",
    "a photo of one {} in the scene.",
    "itap of {article} {}.",  # itap: "I took a picture"
    "itap of my {}.",
    "itap of the {}.",
    "a photo of {article} {}.",
    "a photo of my {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a photo of many {}.",
    "a good photo of {article} {}.",
    "a good photo of the {}.",
    "a bad photo of {article} {}.",
    "a bad photo of the {}.",
    "a photo of a nice {}.",
    "a photo of the nice {}.",
    "a photo of a cool {}.",
    "a photo of the cool {}.",
    "a photo of a weird {}.",
    "a photo of the weird {}.",
    "a photo of a small {}.",
    "a photo of the small {}.",
    "a photo of a large {}.",
    "a photo of the large {}.",
    "a photo of a clean {}.",
    "a photo of the clean {}.",
    "a photo of a dirty {}.",
    "a photo of the dirty {}.",
    "a bright photo of {article} {}.",
    "a bright photo of the {}.",
    "a dark photo of {article} {}.",
    "a dark photo of the {}.",
    "a photo of a hard to see {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of {article} {}.",
    "a low resolution photo of the {}.",
    "a cropped photo of {article} {}.",
    "a cropped photo of the {}.",
    "a close-up photo of {article} {}.",
    "a close-up photo of the {}.",
    "a jpeg corrupted photo of {article} {}.",
    "a jpeg corrupted photo of the {}.",
    "a blurry photo of {article} {}.",
    "a blurry photo of the {}.",
    "a pixelated photo of {article} {}.",
    "a pixelated photo of the {}.",
    "a black and white photo of the {}.",
    "a black and white photo of {article} {}.",
    "a plastic {}.",
    "the plastic {}.",
    "a toy {}.",
    "the toy {}.",
    "a plushie {}.",
    "the plushie {}.",
    "a cartoon {}.",
    "the cartoon {}.",
    "an embroidered {}.",
    "the embroidered {}.",
    "a painting of the {}.",
    "a painting of a {}.",
)

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {
    "vild": VILD_TEMPLATES,
    "plain": PLAIN_TEMPLATES,
    "catseg": CATSEG_TEMPLATES,
}

OPENAI = "openai"  # 80 templates, made when they are asked for

_STARTS_WITH_ARTICLE = re.compile(r"(a|an|the)\b")


class VerbatimTemplate(str):
    """A template that is used as it is: "This is " never precedes it."""


def openai_templates() -> tuple[VerbatimTemplate, ...]:
    """OpenAI's 80 templates for ImageNet, as open_clip has them."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(VerbatimTemplate(template("{}")) for template in OPENAI_IMAGENET_TEMPLATES)


def template_set(name: str) -> tuple[str, ...]:
    """A set of templates by name; ConfigurationError lists the known ones."""
    if name == OPENAI:
        return openai_templates()
    if name not in TEMPLATE_SETS:
        raise ConfigurationError(f"Unknown prompt templates {name!r}; known: {sorted([*TEMPLATE_SETS, OPENAI])}.")
    return TEMPLATE_SETS[name]


def clean_name(name: str) -> str:
    """A class name as it is written in a sentence: "Cabinet/shelf." -> "cabinet or shelf"."""
    return " ".join(name.replace("_", " ").replace("/", " or ").lower().split()).rstrip(".")


def is_background(name: str) -> bool:
    """True for a class whose sentence is that of the background, such as "Background."."""
    return clean_name(name) == BACKGROUND


def article(name: str) -> str:
    """The indefinite article of a name: "an" before a vowel, else "a"."""
    return "an" if name[:1].lower() in ("a", "e", "i", "o", "u") else "a"


def build_prompts(name: str, templates: Sequence[str]) -> list[str]:
    """One sentence per template.

    Raises:
        DataError: The name is blank, or a template lacks its {}.
    """
    check_templates(templates)
    noun = clean_name(name)
    if not noun:
        raise DataError(f"A class name must hold letters; got {name!r}.")
    return [_sentence(template, noun) for template in templates]


def check_templates(templates: Iterable[str]) -> None:
    """DataError unless there is at least one template and each has exactly one {}."""
    templates = list(templates)
    wrong = [t for t in templates if t.count("{}") != 1 or "{" in t.replace("{}", "").replace("{article}", "")]
    if wrong or not templates:
        raise DataError(f"A prompt template needs one {{}} for the name and may use {{article}}; got {wrong}.")


def _sentence(template: str, noun: str) -> str:
    sentence = template.format(noun, article=article(noun))
    return sentence if isinstance(template, VerbatimTemplate) else _introduce(sentence)


def _introduce(sentence: str) -> str:
    return f"This is {sentence}" if _STARTS_WITH_ARTICLE.match(sentence) else sentence
