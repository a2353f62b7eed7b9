import pytest

from denserc.detection.modeling.options import Padding
from denserc.structures import ConfigurationError, choose


def test_known_value():
    assert choose(Padding, "square", "KEY") is Padding.SQUARE


def test_unknown_value_lists_the_legal_ones():
    with pytest.raises(ConfigurationError, match="KEY is 'sqare'; legal are 'square', 'divisible'"):
        choose(Padding, "sqare", "KEY")
