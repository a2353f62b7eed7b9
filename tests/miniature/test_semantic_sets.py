"""The semantic sets of the miniature world: written from panoptic annotations, registered by name."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from denserc.config import read_config
from denserc.data.datasets.builtin import register_miniature
from denserc.data.datasets.registration import dataset_vocabulary
from denserc.data.images.labels import read_labels
from denserc.miniature.annotations import ALL_NAMES
from denserc.miniature.scenes import compose_scene
from denserc.miniature.world import BASE_NAMES, NOVEL_NAMES, SEEN_NAMES, STUFF, UNSEEN_STUFF, Domain, rename
from denserc.miniature.write_world import IGNORE_LABEL, Sizes, write_world
from denserc.segmentation.data import training_mapper
from denserc.structures import DataError
from tests.paths import CONFIGS

SEED = 4
SIZES = Sizes(train=40, val=12, transfer=8, lvis_train=1, lvis_val=1)
TRAIN, VAL, TRANSFER = (f"miniature_semantic_{one}" for one in ("train_seen", "val", "transfer_val"))
DRAWN = {TRAIN: (0, Domain.MAIN), VAL: (1, Domain.MAIN), TRANSFER: (4, Domain.TRANSFER)}  # number of the split


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root, seed=SEED, sizes=SIZES)
    register_miniature(root)
    yield root
    register_miniature(root / "absent")  # no other test finds them


def drawn_names(name: str, index: int) -> np.ndarray:
    """(H, W) names of the pixels of a scene, drawn again."""
    split, domain = DRAWN[name]
    scene = compose_scene(np.random.default_rng([SEED, split, index]), domain)
    return np.array([rename(one, domain) for one in scene.names])[scene.segments]


def test_two_kinds_of_stuff_and_all_novel_things_are_unseen():
    assert set(ALL_NAMES) - set(SEEN_NAMES) == {*NOVEL_NAMES, *UNSEEN_STUFF}
    assert len(ALL_NAMES) == 73 and len(SEEN_NAMES) == 54 and set(UNSEEN_STUFF) < set(STUFF)


@pytest.mark.parametrize(("name", "count"), [(TRAIN, SIZES.train), (VAL, SIZES.val), (TRANSFER, SIZES.transfer)])
def test_labels_are_the_drawn_classes_by_name(sets, name, count):
    records, classes = DatasetCatalog.get(name), MetadataCatalog.get(name).stuff_classes
    assert len(records) == count
    ignored = 0
    for index, record in enumerate(records):
        labels, names = read_labels(record["sem_seg_file_name"]), drawn_names(name, index)
        assert labels.shape == names.shape == (record["height"], record["width"])
        known = labels != IGNORE_LABEL
        assert np.array_equal(np.array(classes)[labels[known]], names[known])
        hidden = np.isin(names, classes, invert=True)
        assert np.array_equal(hidden, ~known)
        ignored += hidden.mean()
    assert (0.1 < ignored / count < 0.6) if name == TRAIN else ignored == 0


def test_training_has_no_name_that_it_never_annotates(sets):
    classes = MetadataCatalog.get(TRAIN).stuff_classes
    assert set(classes) == set(SEEN_NAMES) and tuple(classes) != SEEN_NAMES  # by category id
    assert set(dataset_vocabulary(TRAIN).names) == set(SEEN_NAMES)
    assert MetadataCatalog.get(TRAIN).training and not MetadataCatalog.get(VAL).training


def test_the_mapper_gives_no_label_to_unseen_pixels(sets):
    mapper = training_mapper(read_config(CONFIGS / "miniature/catseg.yaml", ["INPUT.RANDOM_FLIP", "none"]))
    classes = MetadataCatalog.get(TRAIN).stuff_classes
    for index, record in enumerate(DatasetCatalog.get(TRAIN)[:10]):
        labels, names = mapper(record)["sem_seg"].numpy(), drawn_names(TRAIN, index)
        assert np.array_equal(labels < 0, np.isin(names, classes, invert=True))


def test_validation_is_split_into_seen_and_unseen(sets):
    metadata = MetadataCatalog.get(VAL)
    assert set(metadata.stuff_classes) == set(ALL_NAMES)
    assert set(metadata.base_classes) == {*BASE_NAMES, *STUFF} - set(UNSEEN_STUFF)
    assert set(metadata.novel_classes) == {*NOVEL_NAMES, *UNSEEN_STUFF}
    assert dataset_vocabulary(VAL).novel == {*NOVEL_NAMES, *UNSEEN_STUFF}


def test_the_second_domain_has_its_own_names(sets):
    metadata = MetadataCatalog.get(TRANSFER)
    assert set(metadata.stuff_classes) == {rename(name, Domain.TRANSFER) for name in ALL_NAMES}
    assert not set(metadata.stuff_classes) & set(ALL_NAMES) and not metadata.novel_classes


def test_absent_sets_name_the_command_that_writes_them(sets, tmp_path):
    register_miniature(tmp_path)
    try:
        for name in DRAWN:
            with pytest.raises(DataError, match="denserc dataset miniature"):
                DatasetCatalog.get(name)
    finally:
        register_miniature(sets)
