"""Protocols as published: constants by benchmark, numbers of prompted phrases, and names."""

from dataclasses import replace

import pytest
from detectron2.data import MetadataCatalog

from denserc.data.datasets.registration import dataset_vocabulary
from denserc.data.datasets.semantic import SEMANTIC_SETS, register_semantic_sets
from denserc.segmentation.protocols import (
    BENCHMARKS,
    PROTOCOLS,
    DenseProtocol,
    NameSet,
    WindowFit,
    background_queries,
    class_queries,
    protocol,
)
from denserc.structures import BACKGROUND, ConfigurationError

SET_OF = {one.benchmark: one.name for one in SEMANTIC_SETS if one.benchmark}
WITH_BACKGROUND = {"voc21", "context60", "coco_object"}


@pytest.fixture
def asked(tmp_path, forget_registered):
    """benchmark -> (names that a model is asked with, whether the set has a background)."""
    register_semantic_sets(tmp_path)
    return {
        benchmark: (dataset_vocabulary(name).names, BACKGROUND in MetadataCatalog.get(name).stuff_classes)
        for benchmark, name in SET_OF.items()
    }


def test_every_benchmark_is_a_registered_set(asked):
    assert set(asked) == set(BENCHMARKS)
    assert {benchmark for benchmark, (_, background) in asked.items() if background} == WITH_BACKGROUND


@pytest.mark.parametrize(
    "names, benchmark, count",
    [
        (NameSet.SCLIP, "voc21", 56), (NameSet.SCLIP, "voc20", 30), (NameSet.SCLIP, "coco_object", 113),
        (NameSet.PROXY, "voc21", 46), (NameSet.PROXY, "voc20", 20), (NameSet.PROXY, "coco_object", 97),
        (NameSet.PLAIN, "voc21", 21), (NameSet.PLAIN, "voc20", 20), (NameSet.PLAIN, "coco_object", 81),
        *((names, benchmark, count) for names in NameSet for benchmark, count in
          (("context59", 59), ("context60", 60), ("cityscapes", 19), ("ade20k", 150), ("coco_stuff", 171))),
    ],
)  # fmt: skip
def test_numbers_of_phrases_are_the_published_ones(asked, names, benchmark, count):
    classes, has_background = asked[benchmark]
    phrases = [phrase for one in class_queries(classes, benchmark, names) for phrase in one]
    backgrounds = background_queries(benchmark, names) if has_background else ()
    assert len(phrases) + len(backgrounds) == count
    assert len(set(phrases)) == len(phrases)


def test_spellings_of_the_shared_class_files(asked):
    def phrases(benchmark):
        names = asked[benchmark][0]
        return dict(zip(names, class_queries(names, benchmark, NameSet.PLAIN), strict=True))

    assert phrases("voc21")["boat"] == ("ship",) and phrases("voc21")["diningtable"] == ("table",)
    assert phrases("context59")["diningtable"] == ("table",) and phrases("context59")["boat"] == ("boat",)
    assert phrases("coco_stuff")["traffic light"] == ("trafficlight",)
    assert phrases("coco_object")["traffic light"] == ("traffic light",)
    assert phrases("cityscapes")["traffic sign"] == ("trafficsign",)
    joined = {name for name, (phrase,) in phrases("ade20k").items() if phrase != name}
    assert len(joined) == 15 and "bed" not in joined
    assert len({n for n, (p,) in phrases("coco_stuff").items() if p != n}) == 15


def test_names_with_commas_are_synonyms():
    assert class_queries(["couch, sofa", "rug"], "", NameSet.SCLIP) == [("couch", "sofa"), ("rug",)]


# short side, crop, stride, scale, threshold, area threshold
PUBLISHED = {
    ("sclip", "voc21"): (336, 224, 112, 65, 0.1, 0.1),
    ("sclip", "context60"): (336, 224, 112, 50, 0.1, 0),
    ("sclip", "cityscapes"): (560, 224, 112, 40, 0, 0),
    ("sclip", "coco_stuff"): (448, 224, 112, 40, 0, 0),
    ("clearclip", "voc21"): (448, 448, 224, 50, 0.5, 0),
    ("clearclip", "coco_object"): (448, 448, 224, 50, 0.4, 0),
    ("clearclip", "cityscapes"): (448, 224, 224, 50, 0, 0),
    ("proxyclip", "ade20k"): (448, 336, 112, 40, 0, 0),
    ("proxyclip", "cityscapes"): (448, 224, 112, 40, 0, 0),
    ("proxyclip", "coco_object"): (336, 336, 112, 40, 0.25, 0),
    ("declip", "voc21"): (448, 336, 112, 80, 0.4, 0),
    ("declip", "cityscapes"): (560, 336, 112, 40, 0, 0),
    ("naclip", "voc21"): (336, 0, 112, 40, 0.1, 0),
    ("naclip", "coco_stuff"): (336, 224, 112, 40, 0, 0),
    ("whole_image", "context60"): (448, 0, 0, 40, 0.15, 0),
}


@pytest.mark.parametrize("key", PUBLISHED, ids="-".join)
def test_constants_are_the_published_ones(key):
    one = protocol(*key)
    found = (one.short_side, one.crop, one.stride, one.scale, one.threshold, one.area_threshold)
    assert found == PUBLISHED[key]


def test_limits_of_the_longer_side_and_fits():
    assert {protocol("declip", b).long_side for b in BENCHMARKS if b != "coco_object"} == {4096}
    assert protocol("declip", "coco_object").long_side == 2048
    fits = {name: (protocol(name).fit, protocol(name).multiple) for name in PROTOCOLS}
    assert fits == {
        "sclip": (WindowFit.DROP, 0), "naclip": (WindowFit.DROP, 0), "naclip_pamr": (WindowFit.DROP, 0),
        "clearclip": (WindowFit.PAD, 16),
        "proxyclip": (WindowFit.PAD, 56), "declip": (WindowFit.PAD, 16), "whole_image": (WindowFit.PAD, 0),
    }  # fmt: skip


def test_only_naclip_pamr_refines_labels():
    assert {name for name in PROTOCOLS for b in BENCHMARKS if protocol(name, b).refinement} == {"naclip_pamr"}
    assert replace(protocol("naclip_pamr"), name="naclip", refinement=0) == protocol("naclip")
    assert str(protocol("naclip_pamr")).endswith("PAMR 10 steps")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_only_sets_with_background_have_a_threshold(name):
    assert {b for b in BENCHMARKS if protocol(name, b).threshold} == WITH_BACKGROUND
    assert protocol(name).threshold == 0


def test_a_protocol_names_itself_and_its_threshold():
    assert str(protocol("sclip", "voc21")) == (
        "sclip: short side 336, windows 224 / 112, names sclip, background below 0.1 at scale 65"
    )


def test_unknown_names_and_gaps_between_windows_are_refused():
    with pytest.raises(ConfigurationError, match="known are sclip"):
        protocol("maskclip")
    with pytest.raises(ConfigurationError, match="known are voc21"):
        protocol("sclip", "voc")
    with pytest.raises(ConfigurationError, match="stride from 1 to their side"):
        DenseProtocol("x", 336, 2048, crop=100, stride=200, fit=WindowFit.PAD, multiple=16, scale=40)
