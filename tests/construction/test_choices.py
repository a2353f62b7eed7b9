import pytest

from denserc.construction import CONSTRUCTIONS, Construction
from denserc.structures import ConfigurationError


@pytest.mark.parametrize("name", sorted(CONSTRUCTIONS))
def test_dictionaries_go_there_and_back(name):
    construction = Construction.named(name)
    assert Construction.from_dict(construction.to_dict()) == construction


def test_the_default_is_the_papers_denserc():
    assert Construction().to_dict() == {
        "values": "last_k_blocks",
        "num_blocks": 3,
        "module": "hsg",
        "shared_gate": True,
        "projection": "own",
        "gate_position": "before_norm",
        "final_mlp": False,
    }


def test_wrong_names_values_and_keys_list_the_legal_ones():
    with pytest.raises(ConfigurationError, match="clipself"):
        Construction.named("clip_self")
    with pytest.raises(ConfigurationError, match="qq_attention"):
        Construction(module="qq")
    with pytest.raises(ConfigurationError, match="num_blocks"):
        Construction(num_blocks=0)
    with pytest.raises(ConfigurationError, match="type int"):
        Construction(num_blocks="3")
    with pytest.raises(ConfigurationError, match="blocks'"):
        Construction.from_dict({"blocks": 3})


def test_how_many_gates():
    assert [Construction.named(n).num_gates for n in ("denserc", "denserc_per_layer", "clipself")] == [1, 3, 0]
