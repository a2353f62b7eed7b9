"""A tiny detector over a stand-in encoder, and the recorded MMDetection F-ViT where it is available."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes, Instances
from timm.models.eva import Eva
from torch import nn

from denserc.config import get_denserc_config, read_config
from denserc.construction import Construction, DenseEncoder
from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.detection import FViT, FViTBackbone
from denserc.detection.convert import from_mmdetection
from denserc.detection.modeling.options import Padding
from denserc.detection.modeling.roi_heads import FViTROIHeads
from denserc.detection.modeling.rpn import FViTRPN
from denserc.encoders import load_exactly
from denserc.encoders.towers.eva import EvaTower
from denserc.structures import BACKGROUND, CLIP_PIXELS, IMAGENET_PIXELS, TextEmbeddings
from tests.detection.squares import CLASSES, squares_config, write_squares
from tests.paths import CONFIGS, DATA

RECORDED = DATA / "fixtures" / "fvit"
NAMES = ("cup", "ball", "lamp", "kite", "boat")


class StandInEncoder(nn.Module):
    """The parts of a DenseEncoder that the backbone needs: patch 8, the maps of two blocks, a head."""

    patch_size, width, embed_dim = 8, 32, 16

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, self.width, self.patch_size, self.patch_size)
        self.norm = nn.BatchNorm2d(self.width)  # would change in training, if it were let
        self.blocks = nn.ModuleList(nn.Conv2d(self.width, self.width, 1) for _ in range(4))
        self.gates = nn.Linear(self.width, 4, bias=False)
        self.head = nn.Conv2d(self.width, self.embed_dim, 1)

    def forward_with_maps(self, images, blocks, dense=True):
        x, maps = self.norm(self.embed(images)), []
        for i, block in enumerate(self.blocks):
            x = x + torch.tanh(block(x))
            if i in blocks:
                maps.append(x)
        return (self.head(x) if dense else None), maps


class StandInText(nn.Module):
    """Embeds a sentence by its letters; names the templates apart."""

    def __init__(self, embed_dim=StandInEncoder.embed_dim):
        super().__init__()
        self.letters = nn.Embedding(128, embed_dim)

    def encode_text(self, prompts):
        return torch.stack([self.letters(torch.tensor([ord(c) % 128 for c in p])).mean(0) for p in prompts])

    def fingerprint(self):
        return f"letters-{self.letters.weight.sum().item():.6f}"


def _tiny_config(masks: bool = False) -> CfgNode:
    cfg = get_denserc_config()
    cfg.MODEL.FVIT.BLOCKS = [0, 1, 2, 3]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.FPN.NORM = cfg.MODEL.ROI_BOX_HEAD.NORM = cfg.MODEL.ROI_MASK_HEAD.NORM = "BN"
    cfg.MODEL.RPN.CONV_DIMS = [-1, -1]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 200
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 60
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.MODEL.ROI_BOX_HEAD.NUM_CONV, cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = 2, 16
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 2, 7
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 1, 16
    cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.MASK_ON = masks
    cfg.MODEL.ANCHOR_GENERATOR.NAME, cfg.MODEL.RPN.HEAD_NAME = "AnchorGrid", "RPNHead"
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_MASK_HEAD.NAME = "BoxHead", "MaskHead"
    return cfg


def build_detector(cfg: CfgNode, encoder: nn.Module, text: nn.Module, **changes) -> FViT:
    backbone = FViTBackbone.from_encoder(cfg, encoder)
    shape = backbone.output_shape()
    return FViT(
        **{
            "backbone": backbone,
            "text_tower": text,
            "proposal_generator": FViTRPN(cfg, shape),
            "roi_heads": FViTROIHeads(cfg, shape),
            "pixels": IMAGENET_PIXELS,
            "padding": Padding.SQUARE,
            "input_size": 64,
            "templates": ("a {}.",),
            **changes,
        }
    )


@pytest.fixture()
def tiny():
    """make(masks=False, **changes to the model) -> a detector with a vocabulary of five, two of them novel."""

    def make(masks: bool = False, cfg: CfgNode | None = None, **changes) -> FViT:
        torch.manual_seed(0)
        model = build_detector(cfg or _tiny_config(masks), StandInEncoder(), StandInText(), **changes)
        model.set_vocabulary(NAMES, novel=["kite", "boat"])
        return model

    return make


@pytest.fixture()
def wide():
    """make(cfg, embed_dim) -> a detector without vocabulary whose image-text space is as wide as a real one's."""

    def make(cfg: CfgNode, embed_dim: int) -> FViT:
        torch.manual_seed(0)
        encoder = type("WideEncoder", (StandInEncoder,), {"embed_dim": embed_dim})()
        return build_detector(cfg, encoder, StandInText(embed_dim)).eval()

    return make


def _make_inputs(sizes=((64, 64), (48, 64)), boxes_per_image=3, masks: bool = False) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for h, w in sizes:
        truth = Instances((h, w))
        corner = torch.rand(boxes_per_image, 2, generator=generator) * 20
        size = 10 + torch.rand(boxes_per_image, 2, generator=generator) * 15
        truth.gt_boxes = Boxes(torch.cat([corner, corner + size], dim=1))
        truth.gt_classes = torch.arange(boxes_per_image) % 3
        if masks:
            bitmaps = torch.zeros(boxes_per_image, h, w, dtype=torch.bool)
            for bitmap, (x1, y1, x2, y2) in zip(bitmaps, truth.gt_boxes.tensor.int().tolist(), strict=True):
                bitmap[y1:y2, x1:x2] = True
            truth.gt_masks = BitMasks(bitmaps)
        image = torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)
        inputs.append({"image": image, "instances": truth, "height": h, "width": w})
    return inputs


@pytest.fixture()
def make_inputs():
    """make(sizes, boxes_per_image, masks) -> batched inputs as Detectron2's."""
    return _make_inputs


@pytest.fixture()
def tiny_config():
    """make(masks=False) -> the configuration of the tiny detector."""
    return _tiny_config


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """Six images of squares, registered as squares_train (two base classes) and squares_val (all three)."""
    root = tmp_path_factory.mktemp("squares")
    file = write_squares(root)
    for name, training in (("squares_train", True), ("squares_val", False)):
        register_open_vocab_dataset(name, file, root, base=CLASSES[:2], novel=CLASSES[2:], training=training)
    return root


@pytest.fixture()
def config(squares, tmp_path):
    """make(**changes) -> see squares.squares_config."""
    return functools.partial(squares_config, tmp_path)


class Original:
    """The recorded MMDetection F-ViT of one variant: its arrays by file, and our detector with its weights."""

    def __init__(self, variant: str):
        self.variant, self.folder = variant, RECORDED
        self.settings = json.loads((RECORDED / f"{variant}_config.json").read_text())
        self._files = {}

    def __call__(self, file: str, name: str) -> torch.Tensor:
        if file not in self._files:
            self._files[file] = np.load(RECORDED / f"{self.variant}_{file}.npz")
        return torch.from_numpy(self._files[file][name])

    def names(self, file: str) -> list[str]:
        self(file, np.load(RECORDED / f"{self.variant}_{file}.npz").files[0])
        return self._files[file].files

    def state(self) -> dict[str, torch.Tensor]:
        return {name: self("weights", name) for name in self.names("weights")}

    def detector(self) -> FViT:
        spec, lvis = self.settings["spec"], self.variant == "lvis"
        cfg = read_config(CONFIGS / "Base-FViT.yaml")
        cfg.defrost()
        cfg.MODEL.FVIT.BLOCKS = spec["out_indices"]
        cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = spec["fpn"]
        cfg.MODEL.FVIT.CLASSIFIER.BACKGROUND_WEIGHT = spec["bg_weight"]
        cfg.MODEL.FVIT.FUSION.BASE, cfg.MODEL.FVIT.FUSION.NOVEL = spec["alpha"], spec["beta"]
        cfg.MODEL.FVIT.FUSION.TEMPERATURE = spec["vlm_T"]
        rules = self.settings["model"]["test_cfg"]["rcnn"]
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = rules["score_thr"]
        cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = rules["nms"]["iou_threshold"]
        cfg.TEST.DETECTIONS_PER_IMAGE = rules["max_per_img"]
        if lvis:
            cfg.MODEL.FVIT.RPN.NORM, cfg.MODEL.FVIT.ROI.LOW_QUALITY, cfg.MODEL.MASK_ON = "BN", True, True
        encoder = DenseEncoder(_recorded_tower(spec), Construction.named("clipself"))
        model = build_detector(cfg, encoder, StandInText(spec["embed"]), input_size=spec["size"])
        state, vectors = from_mmdetection(self.state())
        own = {k: v for k, v in model.state_dict().items() if k.startswith("text_tower")}
        load_exactly(model, {**state, **own}, "the recorded original")
        names = json.loads((RECORDED / f"{self.variant}_classes_all.json").read_text())
        novel = [names[i] for i in self.settings["novel_class_ids"]]
        model.set_text_embeddings(TextEmbeddings((*names, BACKGROUND), vectors), novel=novel)
        return model.eval()


def _recorded_tower(spec: dict) -> EvaTower:
    class Visual(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Identity()
            self.trunk = Eva(
                img_size=spec["clip_image_size"],
                patch_size=spec["patch"],
                embed_dim=spec["width"],
                depth=spec["depth"],
                num_heads=spec["heads"],
                mlp_ratio=spec["mlp_ratio"],
                qkv_fused=False,
                swiglu_mlp=True,
                scale_mlp=True,
                scale_attn_inner=True,
                use_rot_pos_emb=True,
                ref_feat_shape=(16, 16),
                global_pool="token",
                num_classes=spec["embed"],
            )

    return EvaTower(name="recorded", visual=Visual(), pixels=CLIP_PIXELS)


@pytest.fixture(scope="session", params=["coco", "lvis"])
def original(request) -> Original:
    """The recorded MMDetection F-ViT; skips where the recordings are not beside the repository."""
    if not (RECORDED / "NOTES.md").is_file():
        pytest.skip(f"the recordings of the original F-ViT are not at {RECORDED}")
    return Original(request.param)


@pytest.fixture(scope="session")
def original_detector(original) -> FViT:
    """Our detector with the weights of the recorded F-ViT, in eval mode; tests must not change it."""
    return original.detector()


@pytest.fixture(scope="session")
def recorded_folder() -> Path:
    return RECORDED
