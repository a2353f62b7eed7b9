import pytest

from denserc.config import get_denserc_config
from denserc.construction import Construction, build_dense_model, construction_from_config
from denserc.encoders import PositionResize
from denserc.structures import ConfigurationError


def configured(*pairs):
    cfg = get_denserc_config()
    cfg.merge_from_list(["MODEL.ENCODER.NAME", "DenseRC-Miniature", *pairs])
    return cfg


def test_miniature_uses_packaged_weights_unless_random_is_asked(caplog):
    packaged = build_dense_model(configured())
    assert packaged.extra["encoder_weights"] == "packaged" and "RANDOM" not in caplog.text
    random = build_dense_model(configured("MODEL.ENCODER.RANDOM_INIT", True))
    assert random.extra["encoder_weights"] == "RANDOM" and "!!! DenseRC-Miniature has RANDOM WEIGHTS" in caplog.text
    assert packaged.text.fingerprint() != random.text.fingerprint()


def test_other_encoders_without_weights_are_random_and_say_so(caplog):
    model = build_dense_model(configured("MODEL.ENCODER.NAME", "EVA02-B-16"))
    assert model.extra["encoder_weights"] == "RANDOM" and "!!! EVA02-B-16 has RANDOM WEIGHTS" in caplog.text


def test_overrides_replace_choices_of_a_named_construction():
    replaced = ["MODEL.CONSTRUCTION.NUM_BLOCKS", "2", "MODEL.CONSTRUCTION.PROJECTION", "last"]
    construction = construction_from_config(configured(*replaced, "MODEL.CONSTRUCTION.FINAL_MLP", "True"))
    expected = Construction.named("denserc", num_blocks=2, projection="last", final_mlp=True)
    assert construction == expected
    assert construction_from_config(configured("MODEL.CONSTRUCTION.NAME", "clipself")) == Construction.named("clipself")


def test_the_resize_of_position_embeddings_is_chosen_by_name():
    chosen = build_dense_model(configured("MODEL.ENCODER.POSITION_RESIZE", "bicubic_antialias"))
    assert chosen.encoder.tower.position_resize is PositionResize.BICUBIC_ANTIALIAS
    assert build_dense_model(configured()).encoder.tower.position_resize is PositionResize.BICUBIC
    with pytest.raises(ConfigurationError, match="MODEL.ENCODER.POSITION_RESIZE is 'bilinear'"):
        build_dense_model(configured("MODEL.ENCODER.POSITION_RESIZE", "bilinear"))


def test_misspelt_keys_and_values_are_refused():
    with pytest.raises((KeyError, AssertionError), match="BLOCKS"):  # which one depends on yacs
        configured("MODEL.CONSTRUCTION.BLOCKS", "2")
    with pytest.raises(ConfigurationError, match="'last'"):
        construction_from_config(configured("MODEL.CONSTRUCTION.PROJECTION", "final"))
