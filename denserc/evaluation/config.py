"""Configuration keys of the evaluators.

They also read TEST.INPUT_SIZE, INPUT.SIZE, MODEL.ENCODER.POOLED_MAP, MODEL.VOCABULARY.TEMPLATES and
TEST.IMS_PER_PROCESS, which have the same meaning for the models.
"""

from ..structures import Key
from .detection.open_vocabulary import LvisProtocol
from .segmentation import AbsentClasses

KEYS = (
    Key(
        "TEST.LVIS_PROTOCOLS",
        ["standard"],
        "LVIS AP: standard (300 detections per image), fixed (10,000 per class), or both.",
        choices=LvisProtocol,
        lengths=(1, 2),
    ),
    Key(
        "TEST.SEM_SEG_PROTOCOLS",
        ["present"],
        "Classes without ground truth in mIoU: present leaves them out, present_or_predicted counts 0 for those that "
        "were predicted anywhere; or both, each under a task of its own.",
        choices=AbsentClasses,
        lengths=(1, 2),
    ),
    Key(
        "TEST.PROPOSAL_RECALL",
        False,
        "Report the recall of the RPN's proposals too: AR@100, AR@300, AR@1000 by groups of classes.",
    ),
    Key(
        "TEST.REGIONS.CROPS",
        False,
        "Region classification: classify crops of all boxes at the encoder's native size too, an upper reference.",
    ),
    Key(
        "TEST.REGIONS.THING_CROP_SCALE",
        1.5,
        "Growth of a thing's box before it is cropped (CLIPSelf: 1.5); the crop of stuff is its box.",
        above=0,
    ),
)
