"""Names are found in any usual spelling, and never by their position."""

import pytest

from denserc.data.vocabulary.names import category_ids, find_names
from denserc.structures import DataError


def categories(*names):
    return [{"id": 10 + i, "name": name} for i, name in enumerate(names)]


@pytest.mark.parametrize(
    "name, held",
    [("tissue ", "tissue"), ("tissue", "tissue "), ("cabinet / shelf", "cabinet/shelf"),
     ("dining table", "diningtable"), ("hami melon", "hamimelon"), ("Wine Glass", "wine glass")],
)  # fmt: skip
def test_blanks_and_capitals_do_not_hide_a_class(name, held):
    assert find_names([name], ["lamp", held]) == {name: held}
    assert category_ids(categories("lamp", held), [name]) == {name: 11}


def test_the_exact_name_goes_first():
    held = ["hot dog", "hotdog", "Hot Dog"]
    assert find_names(held, held) == {name: name for name in held}
    assert find_names(["HOT DOG"], held) == {}  # three could be meant


def test_other_spellings_are_tried_after_the_name_itself():
    assert find_names(["Basket"], ["Bakset"], {"Basket": "Bakset"}) == {"Basket": "Bakset"}
    assert find_names(["Basket"], ["Bakset", "Basket"], {"Basket": "Bakset"}) == {"Basket": "Basket"}


def test_ids_follow_the_names_given():
    assert list(category_ids(categories("a", "b", "c"), ["c", "a"]).items()) == [("c", 12), ("a", 10)]


def test_two_names_for_one_category_are_refused():
    with pytest.raises(DataError, match="hot dog.*hotdog"):
        category_ids(categories("hot-dog", "Hot Dog"), ["hot dog", "hotdog"])
