"""F-ViT: an open-vocabulary detector over a frozen dense encoder.

Shape letters: B images, (H, W) pixels of the padded network input.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, PROPOSAL_GENERATOR_REGISTRY, ROI_HEADS_REGISTRY
from detectron2.structures import ImageList, Instances
from torch import nn

from ..data.prompts import VILD_TEMPLATES, template_set
from ..data.registration import dataset_vocabulary
from ..data.text_embeddings import embed_names, load_text_embeddings
from ..structures import BACKGROUND, ConfigurationError, PixelStatistics, TextEmbeddings, Vocabulary, choose
from .backbone import FViTBackbone
from .checkpoint import build_towers
from .feature_cache import view_digest
from .flip import infer_with_flip
from .options import Padding
from .postprocess import original_size, proposals_to_original_size, to_original_size
from .roi_heads import FViTROIHeads
from .rpn import FViTRPN

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class FViT(nn.Module):
    """Frozen DenseEncoder, feature pyramid, region proposals, open-vocabulary heads.

    Both towers are frozen: in eval mode always, without gradient, unchanged by training. A vocabulary is text and
    may be exchanged at any time with `set_vocabulary`; no weight depends on it.

    Args:
        backbone: with the frozen image side.
        text_tower: of the same CLIP.
        proposal_generator, roi_heads: the two stages.
        pixels: normalisation of the network input.
        padding: see Padding.
        input_size: least side of the square that Padding.SQUARE pads to.
        test_input_size: the same outside of training; None: as in training.
        flip: outside of training, look at every image and its mirror image (see `flip.infer_with_flip`).
        templates: prompt templates that are used when a call gives none.
        vocabulary: the first vocabulary, embedded when it is first needed; or None, to be set by a call.
        embeddings_file: text embeddings to take names from before embedding any; "" for none.
        cache_dir: where embedded vocabularies are kept; None for nowhere.
        metadata: of the towers, for checkpoints.
        mask_threshold: probability from which a pixel belongs to a mask.
        views_alone: in training each image is encoded by itself, see FViTBackbone.forward.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: FViTBackbone,
        text_tower: nn.Module,
        proposal_generator: FViTRPN,
        roi_heads: FViTROIHeads,
        pixels: PixelStatistics,
        padding: Padding,
        input_size: int,
        templates: Sequence[str] = VILD_TEMPLATES,
        vocabulary: Vocabulary | None = None,
        embeddings_file: str = "",
        cache_dir: str | Path | None = None,
        metadata: dict | None = None,
        mask_threshold: float = 0.5,
        test_input_size: int | None = None,
        flip: bool = False,
        views_alone: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.text_tower = text_tower.requires_grad_(False).eval()
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.padding = padding
        self.input_size = input_size
        self.test_input_size = test_input_size or input_size
        self.flip = flip
        self.templates = tuple(templates)
        self.embeddings_file = embeddings_file
        self.cache_dir = cache_dir
        self.metadata = dict(metadata or {})
        self.mask_threshold = mask_threshold
        self.views_alone = views_alone
        self._awaited = vocabulary
        self.register_buffer("pixel_mean", torch.tensor(pixels.mean_255).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixels.std_255).view(3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        """Parts by configuration; the first vocabulary is that of the first training or test set."""
        if cfg.INPUT.FORMAT != "RGB":
            raise ConfigurationError(f"F-ViT reads RGB; INPUT.FORMAT is {cfg.INPUT.FORMAT!r}.")
        dense_model, metadata = build_towers(cfg)
        origin = [metadata.get(key) for key in ("encoder", "construction", "position_resize")]
        backbone = FViTBackbone.from_encoder(cfg, dense_model.encoder, about=str(origin))
        shape = backbone.output_shape()
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        return {
            "backbone": backbone,
            "text_tower": dense_model.text,
            "proposal_generator": PROPOSAL_GENERATOR_REGISTRY.get(cfg.MODEL.PROPOSAL_GENERATOR.NAME)(cfg, shape),
            "roi_heads": ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)(cfg, shape),
            "pixels": PixelStatistics(
                [value / 255.0 for value in cfg.MODEL.PIXEL_MEAN], [value / 255.0 for value in cfg.MODEL.PIXEL_STD]
            ),
            "padding": choose(Padding, cfg.MODEL.FVIT.PADDING, "MODEL.FVIT.PADDING"),
            "input_size": cfg.INPUT.SIZE,
            "test_input_size": cfg.TEST.INPUT_SIZE or None,
            "flip": cfg.TEST.FLIP,
            "templates": template_set(cfg.MODEL.FVIT.VOCABULARY.TEMPLATES),
            "vocabulary": dataset_vocabulary(names[0]) if names else None,
            "embeddings_file": cfg.MODEL.FVIT.VOCABULARY.EMBEDDINGS,
            "cache_dir": cfg.MODEL.FVIT.VOCABULARY.CACHE_DIR or Path(cfg.OUTPUT_DIR) / "text_embeddings",
            "metadata": metadata,
            "views_alone": cfg.INPUT.FIXED_VIEWS > 0 or bool(cfg.MODEL.FVIT.CACHE.DIR),
        }

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.pixel_mean.device

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes that detections are told apart by; label i is its i-th name."""
        return self._awaited or self.roi_heads.classes.vocabulary

    def train(self, mode: bool = True) -> "FViT":
        """Only the trained parts follow `mode`; both towers stay in eval."""
        super().train(mode)
        self.text_tower.eval()
        return self

    def set_vocabulary(
        self, names: Sequence[str], templates: Sequence[str] | None = None, novel: Iterable[str] = ()
    ) -> None:
        """Detect these classes from now on; touches no weight.

        Args:
            names: label i is the i-th name. "background" is added by itself and must not be among them.
            templates: prompt templates with {} for the name; None: the model's own.
            novel: those of the names that training has not seen. Given, base and novel classes have exponents of
                their own in the fusion and novel ones are masked out of the training loss; empty: one for all.

        Raises:
            DataError: no names, a name twice, or a novel name that is not among them.
        """
        self._use(Vocabulary(names, novel=novel), templates)

    def set_text_embeddings(self, embeddings: TextEmbeddings, novel: Iterable[str] = ()) -> None:
        """Detect the classes of ready-made embeddings, which must hold "background" too; label order is theirs.

        Raises:
            FingerprintMismatchError: they come from another text encoder.
            DataError: "background" is not among them.
        """
        embeddings.require_fingerprint(self.text_tower.fingerprint())
        names = [name for name in embeddings.names if name != BACKGROUND]
        self.roi_heads.classes.set(Vocabulary(names, novel=novel), embeddings)
        self._awaited = None

    def use_dataset(self, name: str) -> None:
        """Detect the classes of a registered data set, with its novel ones."""
        self._use(dataset_vocabulary(name), None)

    def _use(self, vocabulary: Vocabulary, templates: Sequence[str] | None) -> None:
        if BACKGROUND in vocabulary.names:
            raise ConfigurationError(f"{BACKGROUND!r} is added by the detector itself; leave it out of the names.")
        names = [*vocabulary.names, BACKGROUND]
        if self.embeddings_file and templates is None:
            embeddings = load_text_embeddings(self.embeddings_file, names)
            embeddings.require_fingerprint(self.text_tower.fingerprint())
            if not embeddings.fingerprint:
                logger.warning(
                    "%s does not say which text encoder made it; another one's embeddings give near-zero accuracy. "
                    "python -m denserc.tools.embed_names --compare tells.",
                    self.embeddings_file,
                )
        else:
            embeddings = embed_names(
                self.text_tower, names, self.templates if templates is None else templates, cache_dir=self.cache_dir
            )
        self.roi_heads.classes.set(vocabulary, embeddings)
        self._awaited = None

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """Losses in training, detections otherwise.

        Args:
            batched_inputs: one dict an image, as Detectron2's: "image" (3, h, w) RGB in 0..255, of any size;
                in training "instances" with gt_boxes, gt_classes (and gt_masks); at test optionally "height" and
                "width" of the original image, which detections are then given in.

        Returns:
            {loss name: scalar}, or [{"instances": Instances, "proposals": Instances}]: the former with pred_boxes,
            scores, pred_classes (and pred_masks), the latter with proposal_boxes and scores.
        """
        if self._awaited is not None:
            self._use(self._awaited, None)
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
        """Normalise and pad to one size: (B, 3, H, W), zeros at the bottom and the right after normalisation."""
        images = [(one["image"].to(self.device).float() - self.pixel_mean) / self.pixel_std for one in batched_inputs]
        constraints = None
        if self.padding is Padding.SQUARE:
            longest = max(max(image.shape[-2:]) for image in images)
            constraints = {"square_size": max(longest, self.input_size if self.training else self.test_input_size)}
        return ImageList.from_tensors(images, self.backbone.size_divisibility, 0.0, constraints)

    def _postprocess(self, result: Instances, one: dict) -> Instances:
        return to_original_size(result, original_size(one, result), mask_threshold=self.mask_threshold)
