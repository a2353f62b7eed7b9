"""Every answer follows from the scene, as a reader of the question's words finds it."""

import numpy as np
import pytest

from denserc.miniature.llava.questions import (
    ATTRIBUTES,
    CONTENT_QUESTION,
    NUMBERS,
    describe,
    draw_scene,
    names_by_popularity,
    negatives,
    open_questions,
    paired_questions,
    present_names,
    training_questions,
)
from denserc.miniature.scenes import compose_scene
from denserc.miniature.world import ALL_THINGS, STUFF

NAMES = [thing.name for thing in ALL_THINGS]
SCENES = [draw_scene(np.random.default_rng([5, i])) for i in range(60)]
SCENES.append(compose_scene(np.random.default_rng(1), count=0))


def center(scene, name):
    (index,) = [i for i, thing in enumerate(scene.things) if thing.name == name]
    return np.nonzero(scene.thing_mask(index))[1].mean()


def matching(scene, words):
    """Names of the visible things that have all these words."""
    return [thing.name for thing in scene.things if set(words) <= {*thing.name.split(), "thing", "things"}]


def answer_by_eye(scene, text):
    """The answer of a reader who knows the scene and takes the question word by word."""
    if text == CONTENT_QUESTION:
        columns = [np.nonzero(scene.thing_mask(i))[1].mean() for i in range(len(scene.things))]
        return " ; ".join([*(scene.things[i].name for i in np.argsort(columns)), *scene.stuff])
    words = text.removesuffix(" ?").split()
    if words[:3] == ["is", "there", "a"]:
        return "yes" if matching(scene, words[3:]) else "no"
    if words[:2] == ["is", "there"]:
        return "yes" if words[2] in scene.stuff else "no"
    if words[:2] == ["how", "many"]:
        return NUMBERS[len(matching(scene, [words[2]]))]
    if words[:2] == ["are", "there"]:
        return "yes" if NUMBERS[len(matching(scene, [words[3]]))] == words[2] else "no"
    if words[0] == "what":
        (name,) = matching(scene, words[4:])
        return name.split()[list(ATTRIBUTES).index(words[1])]
    if "or" in words:
        first, second = " ".join(words[2:5]), " ".join(words[-3:])
        return "left" if center(scene, first) < center(scene, second) else "right"
    if "of" in words:
        first, second = " ".join(words[2:5]), " ".join(words[-3:])
        return "yes" if (words[5] == "left") == (center(scene, first) < center(scene, second)) else "no"
    (name,) = matching(scene, words[2:4])
    return "yes" if name.split()[1] == words[4] else "no"


@pytest.mark.parametrize("asked", [training_questions, open_questions])
def test_answers_are_those_of_a_reader_of_the_scene(asked):
    kinds = set()
    for index, scene in enumerate(SCENES):
        found = asked(scene, np.random.default_rng(index))
        assert len({one.text for one in found}) == len(found)
        for one in found:
            assert one.answer == answer_by_eye(scene, one.text), (describe(scene), one)
            kinds.add(one.kind)
    assert kinds >= {"texture", "color", "shape", "count", "position", "stuff"}


def test_words_alone_do_not_tell_whether_a_thing_is_there():
    answers = {"yes": [], "no": []}
    for index, scene in enumerate(SCENES):
        for one in training_questions(scene, np.random.default_rng(index)):
            if one.kind == "existence" and one.text.removeprefix("is there a ").removesuffix(" ?") in NAMES:
                answers[one.answer].append(one.text)
    assert len(answers["no"]) > 60 and len(answers["yes"]) / len(answers["no"]) == pytest.approx(1, abs=0.1)
    half = {f"is there a {name} ?" for name in names_by_popularity()[: len(NAMES) // 2]}
    popular = {answer: np.mean([text in half for text in texts]) for answer, texts in answers.items()}
    assert abs(popular["yes"] - popular["no"]) < 0.2


def test_pairs_are_a_yes_and_a_no():
    subtasks = set()
    for index, scene in enumerate(SCENES):
        for subtask, pair in paired_questions(scene, np.random.default_rng(index)).items():
            subtasks.add(subtask)
            assert [one.answer for one in pair] == ["yes", "no"]
            assert [answer_by_eye(scene, one.text) for one in pair] == ["yes", "no"], (describe(scene), pair)
    assert subtasks == {"existence", "count", "color", "position"}


@pytest.mark.parametrize("split", ["random", "popular", "adversarial"])
def test_negatives_are_different_and_absent(split):
    for index, scene in enumerate(SCENES):
        found = negatives(scene, split, 3, np.random.default_rng(index))
        assert len(set(found)) == 3 and not set(found) & set(present_names(scene)) and set(found) <= set(NAMES)


def test_popular_negatives_are_the_most_frequent_absent_names():
    drawn = [thing.name for scene in SCENES for thing in scene.things]
    order = names_by_popularity()
    half = set(order[: len(order) // 2])
    assert sum(name in half for name in drawn) > 0.6 * len(drawn)
    for scene in SCENES:
        found = negatives(scene, "popular", 2, np.random.default_rng(0))
        before = order[: order.index(found[1])]
        assert set(before) - {found[0]} <= set(present_names(scene))


def test_adversarial_negatives_share_most_words():
    for index, scene in enumerate(SCENES[:-1]):
        present = present_names(scene)

        def shared(name, present=present):
            return max(len(set(name.split()) & set(other.split())) for other in present)

        (found,) = negatives(scene, "adversarial", 1, np.random.default_rng(index))
        assert shared(found) == max(shared(name) for name in NAMES if name not in present)


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="'rare'; legal are 'random', 'popular', 'adversarial'"):
        negatives(SCENES[0], "rare", 1, np.random.default_rng(0))


def test_descriptions_name_everything_from_left_to_right():
    for scene in SCENES:
        *names, last = describe(scene).split(" ; ")
        assert last in STUFF and sorted([*names, last]) == sorted(scene.names)
