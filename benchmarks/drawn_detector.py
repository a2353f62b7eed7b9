"""A detector of a configuration's size with drawn weights, and drawn images for it.

Random weights give all anchors and all regions nearly the same scores. Therefore the running statistics of the norms
are set by drawn images, and gates and objectness are spread. Detections then depend on the picture as those of a
trained detector do.
"""

import argparse
from collections.abc import Callable
from enum import Enum

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn

from benchmarks.measure import machine, write
from denserc.config import read_config
from denserc.detection import FViT
from denserc.engine import resolve_device
from denserc.structures import TextEmbeddings, Vocabulary

VITB16, VITL14 = "configs/ovcoco_vitb16.yaml", "configs/ovcoco_vitl14.yaml"
QUICK = "configs/miniature/fvit.yaml"
CLASSES, NOVEL = 65, 17  # of OV-COCO


def configuration(file: str, device: torch.device, *, size: int = 0, bf16: bool = False) -> CfgNode:
    """A detector's configuration with random weights, without data sets.

    Args:
        size: INPUT.SIZE, pixels; 0 for the file's.
        bf16: True for bf16 in the frozen encoder and the trained parts.
    """
    cfg = read_config(file)
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.ENCODER.RANDOM_INIT, cfg.MODEL.MASK_ON = str(device), True, False
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    cfg.INPUT.SIZE = size or cfg.INPUT.SIZE
    if bf16:
        cfg.MODEL.FVIT.BACKBONE_PRECISION = cfg.SOLVER.AMP.PRECISION = "bf16"
        cfg.SOLVER.AMP.ENABLED = True
    return cfg


def drawn_inputs(count: int, side: int, seed: int, boxes: int = 8) -> list[dict]:
    """Images of blobs at three scales, and as many boxes of base classes each."""
    generator, inputs = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        noise = sum(
            F.interpolate(torch.randn(1, 3, cells, cells, generator=generator), (side, side), mode="bicubic")[0]
            for cells in (4, 16, 64)
        )
        corner = torch.rand(boxes, 2, generator=generator) * 0.6 * side
        extent = (0.05 + 0.3 * torch.rand(boxes, 2, generator=generator)) * side
        truth = Instances((side, side), gt_boxes=Boxes(torch.cat([corner, corner + extent], dim=1)))
        truth.gt_classes = torch.randint(0, CLASSES - NOVEL, (boxes,), generator=generator)
        image = (128 + 40 * noise).clamp(0, 255).byte()
        inputs.append({"image": image, "instances": truth, "height": side, "width": side})
    return inputs


def drawn_detector(cfg: CfgNode) -> FViT:
    """The detector, with OV-COCO's number of classes under drawn text embeddings."""
    torch.manual_seed(0)
    model = build_model(cfg)
    names = [f"class {index}" for index in range(CLASSES)]
    embed_dim = model.backbone.encoder.embed_dim
    vectors = F.normalize(torch.randn(CLASSES + 1, embed_dim), dim=1)
    model.roi_heads.classes.set(
        Vocabulary(names, novel=names[-NOVEL:]), TextEmbeddings([*names, "background"], vectors)
    )
    model.text_tower = nn.Identity()  # not needed further
    if model.backbone.encoder.gates is not None:
        for projection in model.backbone.encoder.gates.projections:
            nn.init.normal_(projection.weight, std=0.02)
    nn.init.normal_(model.proposal_generator.head.objectness.weight, std=0.3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of the last forward
    patch = model.backbone.size_divisibility
    side = cfg.INPUT.SIZE
    model.input_size = max(side // (4 * patch), 4) * patch  # a quarter of the size has the same statistics
    with torch.no_grad():
        model.train()(drawn_inputs(1, model.input_size, seed=1))
    model.input_size = side
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return model.eval()


def report_detectors(
    name: str, options: argparse.Namespace, ways: type[Enum], compare: Callable[..., dict], table: Callable[..., str]
) -> dict:
    """Compare each configuration, print the table and write FOLDER/name.json, for both detector benchmarks.

    Args:
        options: Options config_file, ways, device, quick, and those that `compare` reads.
        ways: All variants; without options.ways all but "explicit" on a GPU.
        compare: Function (file, options, device) -> a detector's report.
        table: Function reports -> Markdown.
    """
    device = resolve_device(options.device)
    options.ways = options.ways or [way.value for way in ways if device.type == "cpu" or way.value != "explicit"]
    if options.quick:
        options.config_file = [QUICK]
    reports = []
    for file in options.config_file:
        reports.append(compare(file, options, device))
        print(table(reports[-1:]), flush=True)
    report = {"machine": machine(device), "torch": torch.__version__, "settings": vars(options)}
    report |= {"detectors": reports, "table": table(reports)}
    write(name, report)
    return report
