"""F-ViT: an open-vocabulary detector over a frozen dense encoder.

Shape letters: B images, (H, W) pixels of the padded network input.
"""

import logging

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.structures import ImageList, Instances

from ...openvocab.checkpoint import build_towers
from ...openvocab.inputs import require_images
from ...openvocab.registry import registered
from ...openvocab.vocabulary import ClassEmbeddings, OpenVocabularyModel
from ...structures import ConfigurationError
from ..data import configured_test_augmentations
from .backbone import FViTBackbone, build_fvit_backbone
from .feature_cache import view_digest
from .options import Padding
from .postprocess import original_size, proposals_to_original_size, to_original_size
from .roi_heads import FViTROIHeads
from .rpn import FViTRPN
from .test_time_flip import infer_with_flip

LONGEST = 8  # side of an image in network inputs: attention over a longer one would take minutes
ANY_SIDE = 1024  # pixels that an image may have a side in any case
logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class FViT(OpenVocabularyModel):
    """Frozen DenseEncoder, feature pyramid, region proposals, open-vocabulary heads.

    Both towers are frozen: always in eval mode, without gradient, unchanged by training. Given novel names, base and
    novel classes have exponents of their own in the fusion, and novel ones are masked out of the training loss.

    Args:
        backbone: Frozen image side with the trained pyramid.
        proposal_generator, roi_heads: The two stages.
        padding: See Padding.
        input_size: Smallest side of the square that Padding.SQUARE pads to, pixels.
        test_input_size: The same outside of training; None for `input_size`.
        flip: Outside of training, combine each image with its mirror image (see `test_time_flip.infer_with_flip`).
        mask_threshold: Probability from which a pixel belongs to a mask.
        views_alone: True to encode each image of a training batch by itself, see FViTBackbone.forward.
        options: Arguments of OpenVocabularyModel.
    """

    best_metrics = ("ov_lvis_masks/AP_rare", "ov_lvis/AP_rare", "ov_coco/AP50_novel", "coco/AP_all")

    @configurable
    def __init__(
        self,
        *,
        backbone: FViTBackbone,
        proposal_generator: FViTRPN,
        roi_heads: FViTROIHeads,
        padding: Padding = Padding.SQUARE,
        input_size: int,
        mask_threshold: float = 0.5,
        test_input_size: int | None = None,
        flip: bool = False,
        views_alone: bool = False,
        **options,
    ):
        super().__init__(**options)
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.padding = padding
        self.input_size = input_size
        self.test_input_size = test_input_size or input_size
        self.flip = flip
        self.mask_threshold = mask_threshold
        self.views_alone = views_alone

    @classmethod
    def from_config(cls, cfg) -> dict:
        """Parts as configured."""
        name = cfg.MODEL.BACKBONE.NAME
        if name != build_fvit_backbone.__name__:
            raise ConfigurationError(
                f"MODEL.BACKBONE.NAME is {name!r}; legal is {build_fvit_backbone.__name__!r}. FViT classifies by the "
                "text tower that belongs to its image tower; MODEL.ENCODER chooses both."
            )
        proposals, roi = cfg.MODEL.PROPOSAL_GENERATOR.NAME, cfg.MODEL.ROI_HEADS.NAME
        generator = registered(PROPOSAL_GENERATOR_REGISTRY, proposals, "MODEL.PROPOSAL_GENERATOR.NAME", FViTRPN)
        heads = registered(ROI_HEADS_REGISTRY, roi, "MODEL.ROI_HEADS.NAME", FViTROIHeads)
        dense_model, metadata = build_towers(cfg)
        side, patch = min(cfg.INPUT.SIZE, cfg.TEST.INPUT_SIZE or cfg.INPUT.SIZE), dense_model.encoder.patch_size
        if side <= patch:  # the coarsest map is half as large as the encoder's
            raise ConfigurationError(
                f"INPUT.SIZE is {cfg.INPUT.SIZE} and TEST.INPUT_SIZE {cfg.TEST.INPUT_SIZE}; expected are more pixels "
                f"than one patch of the encoder, {patch}."
            )
        origin = [metadata.get(key) for key in ("encoder", "construction", "position_resize")]
        backbone = FViTBackbone.from_encoder(cfg, dense_model.encoder, about=str(origin))
        shape = backbone.output_shape()
        return {
            **cls.options_from_config(cfg),
            "test_augmentations": configured_test_augmentations(cfg),
            "text_tower": dense_model.text,
            "metadata": metadata,
            "backbone": backbone,
            "proposal_generator": generator(cfg, shape),
            "roi_heads": heads(cfg, shape),
            "input_size": cfg.INPUT.SIZE,
            "test_input_size": cfg.TEST.INPUT_SIZE or None,
            "flip": cfg.TEST.FLIP,
            "views_alone": cfg.INPUT.FIXED_VIEWS > 0 or bool(cfg.MODEL.FVIT.CACHE.DIR),
        }

    @property
    def classes(self) -> ClassEmbeddings:
        """The embeddings that both branches of the heads classify by."""
        return self.roi_heads.classes

    def adapt_weights(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All weights; with MODEL.MASK_ON False without those of a mask head."""
        if self.roi_heads.mask_head is not None:
            return weights
        used = {key: value for key, value in weights.items() if not key.startswith("roi_heads.mask_head.")}
        if len(used) < len(weights):
            logger.info("MODEL.MASK_ON is False: the checkpoint's mask head is not used.")
        return used

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """Losses in training, detections otherwise.

        Args:
            batched_inputs: One dict per image, as Detectron2's: "image" (3, h, w) uint8 or float RGB in 0..255, no side
                above LONGEST network inputs and ANY_SIDE pixels; in training "instances" with gt_boxes, gt_classes (and
                gt_masks); at test optionally "height" and "width" of the original image, which detections are then
                given in, and "score_threshold", below which they are left out before their masks are enlarged. Images
                are padded, not resized: the mappers, `prepare` and denserc.Predictor bring a photograph to the size of
                the test input.

        Returns:
            {loss name: scalar}, or [{"instances": Instances, "proposals": Instances}]: the former with pred_boxes,
            scores, pred_classes (and pred_masks), the latter with proposal_boxes and scores.

        Raises:
            DataError: An "image" of another form, type or range.
        """
        largest = max(self.input_size, self.test_input_size)
        require_images(batched_inputs, longest=max(LONGEST * largest, ANY_SIDE))
        self.require_vocabulary()
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess(batched_inputs)
        truth = [one["instances"].to(self.device) for one in batched_inputs]
        views = None
        if self.views_alone:
            views = [view_digest(one["image"], images.tensor.shape[-2:]) for one in batched_inputs]
        features = self.backbone(images.tensor, views)
        proposals, rpn_losses = self.proposal_generator(images, features, truth)
        _, losses = self.roi_heads(images, features, proposals, truth)
        return {**rpn_losses, **losses}

    @torch.no_grad()
    def inference(self, batched_inputs: list[dict]) -> list[dict]:
        """Detections, see `forward`."""
        if self.flip:
            results, proposals = infer_with_flip(self, batched_inputs)
        else:
            images = self.preprocess(batched_inputs)
            features = self.backbone(images.tensor)
            proposals, _ = self.proposal_generator(images, features)
            results, _ = self.roi_heads(images, features, proposals)
        return [
            {
                "instances": self._postprocess(result, one),
                "proposals": proposals_to_original_size(proposed, original_size(one, proposed)),
            }
            for result, proposed, one in zip(results, proposals, batched_inputs, strict=True)
        ]

    def preprocess(self, batched_inputs: list[dict]) -> ImageList:
        """Normalize and pad to one size: (B, 3, H, W), zeros at the bottom and the right after normalization."""
        images = [(one["image"].to(self.device).float() - self.pixel_mean) / self.pixel_std for one in batched_inputs]
        constraints = None
        if self.padding is Padding.SQUARE:
            longest = max(max(image.shape[-2:]) for image in images)
            constraints = {"square_size": max(longest, self.input_size if self.training else self.test_input_size)}
        return ImageList.from_tensors(images, self.backbone.size_divisibility, 0.0, constraints)

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The square or the next multiple of the patch size, as `preprocess` pads one image outside of training."""
        if self.padding is Padding.SQUARE:
            size = (max(*size, self.test_input_size),) * 2
        step = self.backbone.size_divisibility
        return tuple(-(-side // step) * step for side in size)

    def _postprocess(self, result: Instances, one: dict) -> Instances:
        if "score_threshold" in one:
            result = result[result.scores >= one["score_threshold"]]
        return to_original_size(result, original_size(one, result), mask_threshold=self.mask_threshold)
