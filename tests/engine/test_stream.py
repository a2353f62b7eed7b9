"""A stream passes over images that cannot be read, and every other item stays what it was."""

import numpy as np
import pytest

from denserc.engine.stream import UNREADABLE, TrainingStream
from denserc.structures import DataError, UnreadableImageError


def make_stream(broken=(), *, views=0, error=UnreadableImageError):
    """Items {"id", "draw"} of ten records, of which those of the ids `broken` cannot be read."""

    def mapper(record):
        if record["id"] in broken:
            np.random.rand()  # what a mapper draws before it fails must not matter
            raise error(f"{record['id']}.png cannot be read", f"{record['id']}.png")
        return {**record, "draw": np.random.rand()}

    return TrainingStream([{"id": i} for i in range(10)], mapper, seed=3, views=views)


@pytest.mark.parametrize("views", [0, 2])
def test_only_positions_of_unreadable_images_change(views):
    whole, damaged = make_stream(views=views), make_stream({4}, views=views)
    expected, found = [whole[i] for i in range(40)], [damaged[i] for i in range(40)]
    changed = [i for i in range(40) if expected[i]["id"] == 4]
    assert len(changed) == 4
    for i in range(40):
        if i not in changed:
            assert found[i] == expected[i]
            continue
        reasons = found[i].pop(UNREADABLE)
        assert reasons == (("4.png", "4.png cannot be read"),) and found[i]["id"] == 5
        assert views or found[i]["draw"] == expected[i]["draw"]  # of the position
        if views:  # one of the fixed views of record 5
            assert found[i]["draw"] in {item["draw"] for item in expected if item["id"] == 5}


def test_several_in_a_row_are_all_named():
    stream = make_stream({8, 9, 0})
    item = next(item for item in map(stream.__getitem__, range(10)) if len(item.get(UNREADABLE, ())) == 3)
    assert item["id"] == 1 and [path for path, _ in item[UNREADABLE]] == ["8.png", "9.png", "0.png"]


def test_nothing_readable_is_an_error():
    with pytest.raises(DataError, match="None of the 10 images can be read; the first: .*png cannot be read"):
        make_stream(set(range(10)))[0]


def test_other_errors_are_not_passed_over():
    with pytest.raises(DataError, match="cannot be read"):
        [make_stream({4}, error=lambda message, path: DataError(message))[i] for i in range(10)]


def test_the_global_generator_stays():
    np.random.seed(7)
    state = np.random.get_state()[1].copy()
    [make_stream({4})[i] for i in range(10)]
    assert (np.random.get_state()[1] == state).all()
