"""A CAT-Seg of a configuration's size with drawn weights, and drawn pictures for it."""

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from benchmarks.drawn_detector import drawn_inputs
from denserc.config import read_config
from denserc.segmentation.modeling.meta_arch import CATSeg
from denserc.structures import TextEmbeddings

OPENAI_VITB16, EVA_VITB16 = "configs/catseg_openai_vitb16.yaml", "configs/catseg_vitb16.yaml"
MINIATURE = [  # sizes of OPENAI_VITB16 for the miniature encoder, to see that the scripts run
    *("MODEL.ENCODER.NAME", "DenseRC-Miniature", "MODEL.CONSTRUCTION.NAME", "denserc"),
    *("MODEL.CATSEG.INPUT_SIZE", [48, 48], "MODEL.CATSEG.BLOCKS", [1, 2], "MODEL.CATSEG.SWIN_WINDOW", 3),
    *("MODEL.CATSEG.HIDDEN_DIM", 16, "MODEL.CATSEG.NUM_HEADS", 2, "MODEL.CATSEG.CLASS_LIMIT", 16),
    *("MODEL.CATSEG.DECODER_DIMS", [16, 16], "MODEL.CATSEG.GUIDANCE_DIMS", [8, 8]),
    *("MODEL.CATSEG.PROJECTED_DIMS", [4, 4]),
    *("MODEL.CATSEG.WINDOWS.SIDE", 48, "MODEL.CATSEG.WINDOWS.CANVAS", [80, 80]),
]


def configuration(file: str, device: torch.device, *changes) -> CfgNode:
    """A segmenter's configuration with random weights, without data sets, for labels.

    Args:
        file: Path of the configuration.
        device: MODEL.DEVICE.
        changes: Keys and values, one after the other.
    """
    cfg = read_config(file)
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.ENCODER.RANDOM_INIT, cfg.MODEL.ENCODER.WEIGHTS = str(device), True, ""
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    cfg.MODEL.CATSEG.OUTPUT = "labels"
    cfg.merge_from_list(list(changes))
    return cfg


def drawn_segmenter(cfg: CfgNode, names: list[str]) -> CATSeg:
    """The segmenter with drawn embeddings of these names, in eval mode.

    Random towers give all prompts nearly the same embedding. Drawn embeddings and a larger last convolution spread the
    logits, so that labels depend on the picture and ties are rare.

    Args:
        cfg: See `configuration`.
        names: Class names.
    """
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    vectors = F.normalize(torch.randn(len(names), model.encoder.embed_dim), dim=1)
    model.set_text_embeddings(TextEmbeddings(names, vectors, model.text_tower.fingerprint()))
    nn.init.normal_(model.aggregator.embedding.weight, std=0.5)
    nn.init.normal_(model.aggregator.head.weight, std=0.3)
    return model


def class_names(count: int) -> list[str]:
    """Names of that many classes: numbers, as their embeddings are drawn."""
    return [f"class {index}" for index in range(count)]


def drawn_picture(size: tuple[int, int], result: tuple[int, int], classes: int, seed: int = 0) -> dict:
    """A picture of blobs (3, H, W) with a label map of rectangles.

    Args:
        size: (H, W) of the picture and of its labels.
        result: (height, width) of the result.
        classes: Number of classes; label `classes` is ignored.
        seed: Seed of the drawing.
    """
    (drawn,) = drawn_inputs(1, max(size), seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes + 1, (1, 1, 8, 8), generator=generator).float()
    labels = F.interpolate(labels, size)[0, 0].long()
    image = drawn["image"][:, : size[0], : size[1]]
    return {"image": image, "sem_seg": labels, "height": result[0], "width": result[1]}
