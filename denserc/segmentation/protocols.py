"""Published protocols of training-free segmentation, as data: sizes, windows, thresholds and class names.

Sources: SCLIP b56bd30, ClearCLIP ad68a40, ProxyCLIP e7b767f, NACLIP 0cac3a6, DeCLIP 3b65d49 (branch ZSSS). The last
block of the encoder is not part of a protocol: MODEL.CONSTRUCTION chooses it. A figure is comparable only with others
of the same protocol, names and threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from ..structures import BACKGROUND, ConfigurationError

BENCHMARKS = ("voc21", "context60", "coco_object", "voc20", "cityscapes", "context59", "ade20k", "coco_stuff")


class WindowFit(Enum):
    """Treatment of a window whose sides are not multiples of the patch size."""

    DROP = "drop"  # the rest at the right and the bottom is not encoded, and the scores are stretched over it
    PAD = "pad"  # zeros around it, after normalization; their scores are cut off


class NameSet(Enum):
    """Class names and background names that are prompted."""

    PLAIN = "plain"  # ClearCLIP: one name per class, "background"
    PROXY = "proxy"  # ProxyCLIP, DeCLIP: one name per class, a list of backgrounds for VOC21 and COCO-Object
    SCLIP = "sclip"  # SCLIP, NACLIP: several names of person and television, the same list of backgrounds for both


@dataclass(frozen=True)
class DenseProtocol:
    """Resizing, windows and labeling of the pictures in one published protocol.

    Args:
        name: Name of the protocol.
        short_side: Shorter side of the resized picture, pixels.
        long_side: Largest longer side, pixels; it takes precedence over `short_side`.
        crop: Side of a window, pixels; 0 for the whole picture.
        stride: Distance between windows, pixels.
        fit: See WindowFit.
        multiple: Multiple that WindowFit.PAD pads sides to, where the patch size divides it; otherwise the patch size.
        scale: Factor of the cosines before the softmax over all prompted names. It matters for the threshold only.
        threshold: Probability of the best name below which a pixel is background.
        area_threshold: Classes that cover at most this share of the picture's foreground are dropped; 0 drops none.
        names: See NameSet.
        refinement: Steps of `refinement.refined` on the averaged cosines; 0 for none, as in every fair table.
    """

    name: str
    short_side: int
    long_side: int
    crop: int
    stride: int
    fit: WindowFit
    multiple: int
    scale: float
    threshold: float = 0.0
    area_threshold: float = 0.0
    names: NameSet = NameSet.PLAIN
    refinement: int = 0

    def __post_init__(self):
        if self.short_side < 1 or self.long_side < self.short_side:
            raise ConfigurationError(
                f"The protocol needs 1 <= short_side <= long_side; got {self.short_side} and {self.long_side}."
            )
        if self.crop < 0 or (self.crop and not 1 <= self.stride <= self.crop):
            raise ConfigurationError(
                f"Windows need a stride from 1 to their side, so that they cover the picture; got the side {self.crop} "
                f"and the stride {self.stride}."
            )

    def __str__(self) -> str:
        windows = f"windows {self.crop} / {self.stride}" if self.crop else "whole picture"
        background = f", background below {self.threshold:g} at scale {self.scale:g}" if self.threshold else ""
        refinement = f", PAMR {self.refinement} steps" if self.refinement else ""
        return f"{self.name}: short side {self.short_side}, {windows}, names {self.names.value}{background}{refinement}"


@dataclass(frozen=True)
class _Family:
    """A protocol with what differs on single benchmarks."""

    base: DenseProtocol
    on: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


_SCLIP = DenseProtocol(
    "sclip", 336, 2048, crop=224, stride=112, fit=WindowFit.DROP, multiple=0, scale=40, names=NameSet.SCLIP
)
_DECLIP = DenseProtocol(
    "declip", 448, 4096, crop=336, stride=112, fit=WindowFit.PAD, multiple=16, scale=40, names=NameSet.PROXY
)
_DECLIP_THRESHOLDS = {
    "voc21": {"scale": 80, "threshold": 0.4},
    "context60": {"threshold": 0.15},
    "coco_object": {"threshold": 0.2},
}

_NACLIP_ON = {
    "voc21": {"threshold": 0.1, "crop": 0},
    "voc20": {"crop": 0},
    "context60": {"threshold": 0.1},
    "coco_object": {"threshold": 0.1},
    "cityscapes": {"short_side": 560},
}

_FAMILIES = {
    "sclip": _Family(
        _SCLIP,
        {
            "voc21": {"scale": 65, "threshold": 0.1, "area_threshold": 0.1},
            "context60": {"scale": 50, "threshold": 0.1},
            "coco_object": {"scale": 50, "threshold": 0.1},
            "cityscapes": {"short_side": 560},
            "coco_stuff": {"short_side": 448},
        },
    ),
    "clearclip": _Family(
        DenseProtocol(
            "clearclip", 448, 2048, crop=448, stride=224, fit=WindowFit.PAD, multiple=16, scale=50, names=NameSet.PLAIN
        ),
        {
            "voc21": {"threshold": 0.5},
            "context60": {"threshold": 0.15},
            "coco_object": {"threshold": 0.4},
            "cityscapes": {"crop": 224},
        },
    ),
    "proxyclip": _Family(
        DenseProtocol(
            "proxyclip", 336, 2048, crop=336, stride=112, fit=WindowFit.PAD, multiple=56, scale=40, names=NameSet.PROXY
        ),
        {
            "voc21": {"threshold": 0.2},
            "context60": {"threshold": 0.15},
            "coco_object": {"threshold": 0.25},
            "cityscapes": {"short_side": 448, "crop": 224},
            "ade20k": {"short_side": 448},
        },
    ),
    "naclip": _Family(replace(_SCLIP, name="naclip"), _NACLIP_ON),
    # NACLIP's own default, worth 3 points of mIoU on average.
    "naclip_pamr": _Family(replace(_SCLIP, name="naclip_pamr", refinement=10), _NACLIP_ON),
    "declip": _Family(
        _DECLIP,
        {
            **_DECLIP_THRESHOLDS,
            "cityscapes": {"short_side": 560},
            "coco_object": {**_DECLIP_THRESHOLDS["coco_object"], "long_side": 2048},
        },
    ),
    # Ours: one pass over the whole picture. The thresholds are DeCLIP's; tune them on training pictures only.
    "whole_image": _Family(
        replace(_DECLIP, name="whole_image", crop=0, stride=0, multiple=0),
        {**_DECLIP_THRESHOLDS, "cityscapes": {"short_side": 560}},
    ),
}

PROTOCOLS = tuple(_FAMILIES)


def protocol(name: str, benchmark: str = "") -> DenseProtocol:
    """The constants of a protocol on a benchmark.

    Args:
        name: One of PROTOCOLS.
        benchmark: One of BENCHMARKS; "" for data of one's own, which have no threshold until one is given.

    Raises:
        ConfigurationError: A name that does not exist.
    """
    if name not in _FAMILIES:
        raise ConfigurationError(f"Unknown protocol {name!r}; known are {', '.join(_FAMILIES)}.")
    if benchmark and benchmark not in BENCHMARKS:
        raise ConfigurationError(f"Unknown benchmark {benchmark!r}; known are {', '.join(BENCHMARKS)}.")
    family = _FAMILIES[name]
    return replace(family.base, **family.on.get(benchmark, {}))


# Spellings of the class files that all four methods share.
_VOC = {"boat": "ship", "diningtable": "table"}
_JOINED = {
    "coco_stuff": (
        "traffic light", "fire hydrant", "stop sign", "parking meter", "sports ball", "baseball bat", "baseball glove",
        "tennis racket", "wine glass", "hot dog", "potted plant", "dining table", "cell phone", "teddy bear",
        "hair drier",
    ),
    "cityscapes": ("traffic light", "traffic sign"),
    "ade20k": (
        "chest of drawers", "pool table", "screen door", "coffee table", "kitchen island", "swivel chair",
        "arcade machine", "television receiver", "dirt track", "conveyer belt", "swimming pool", "trade name",
        "traffic light", "crt screen", "bulletin board",
    ),
}  # fmt: skip
_SPELLINGS: dict[str, dict[str, str]] = {
    "voc20": _VOC,
    "voc21": _VOC,
    "context59": {"diningtable": "table"},
    "context60": {"diningtable": "table"},
    **{benchmark: {name: name.replace(" ", "") for name in names} for benchmark, names in _JOINED.items()},
}

_PERSON = tuple(
    ["person", *(f"person in {wear}" for wear in ("shirt", "jeans", "dress", "sweater", "skirt", "jacket"))]
)
_SEVERAL_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "voc20": {
        "person": _PERSON,
        "tvmonitor": ("television monitor", "tv monitor", "monitor", "television", "screen"),
    },
    "coco_object": {"person": (*_PERSON, "body")},
}
_SEVERAL_NAMES["voc21"] = _SEVERAL_NAMES["voc20"]

_BACKGROUNDS = (
    "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sands", "desk", "bed", "building",
    "cloud", "lamp", "door", "window", "wardrobe", "ceiling", "shelf", "curtain", "stair", "floor", "hill", "rail",
    "fence",
)  # fmt: skip
_FEWER_BACKGROUNDS = (*_BACKGROUNDS[:14], "floor", "hill", "rail")
_LISTS_OF_BACKGROUNDS = {
    (NameSet.SCLIP, "voc21"): _BACKGROUNDS,
    (NameSet.SCLIP, "coco_object"): _BACKGROUNDS,
    (NameSet.PROXY, "voc21"): _BACKGROUNDS,
    (NameSet.PROXY, "coco_object"): _FEWER_BACKGROUNDS,  # its "bed" ties with the class of that name, as published
}


def class_queries(names: Sequence[str], benchmark: str, name_set: NameSet) -> list[tuple[str, ...]]:
    """The phrases that are prompted for each class; a pixel's score of a class is its best phrase's.

    Names with commas are synonyms: "couch, sofa" gives two phrases.
    """
    several = _SEVERAL_NAMES.get(benchmark, {}) if name_set is NameSet.SCLIP else {}
    spelled = _SPELLINGS.get(benchmark, {})
    return [several.get(name) or _synonyms(spelled.get(name, name)) for name in names]


def background_queries(benchmark: str, name_set: NameSet) -> tuple[str, ...]:
    """The phrases that are prompted for the background."""
    return _LISTS_OF_BACKGROUNDS.get((name_set, benchmark), (BACKGROUND,))


def _synonyms(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in name.replace(";", ",").split(",") if part.strip())) or (name,)
