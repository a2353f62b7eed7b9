"""CAT-Seg: open-vocabulary semantic segmentation by aggregation of image-text costs.

Shape letters: B pictures, V views, T classes, E width of the image-text space, D width of the tower, (H, W) pixels,
(h, w) feature grid, F = 2^(number of decoders).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn
from torch.nn import functional as F

from ...construction import DenseEncoder, GradientCheckpointing
from ...engine import free_bytes
from ...openvocab.checkpoint import build_towers
from ...openvocab.inputs import require_images
from ...openvocab.vocabulary import ClassEmbeddings, OpenVocabularyModel
from ...structures import ConfigurationError, DataError, Vocabulary, choose
from ..data import configured_test_augmentations
from .aggregation import DROPPED, Aggregator
from .background import BackgroundEmbeddings, read_background
from .options import (
    Background,
    ClassAttentionKind,
    DenseFeatures,
    IgnoredPixels,
    Output,
    TowerTraining,
    WholePicture,
)
from .tower_training import train_image_tower, train_text_tower
from .windows import SlidingWindows, Views, Whole, resize

MERGED_AT_ONCE = 16  # classes whose maps have the picture's size at the same time


@META_ARCH_REGISTRY.register()
class CATSeg(OpenVocabularyModel):
    """Dense encoder, cost volume, aggregator; parts of both towers learn with it.

    Args:
        encoder: Encoder of dense features and residual maps; `image_training` selects what it trains, never its gates.
        aggregator: See Aggregator.
        blocks: Blocks of the tower whose residual maps guide the decoders; decoder i takes the i-th.
        guidance_channels: Channels of these maps after upsampling to the decoders' sizes.
        input_size: (H, W) of the network input; every view is squashed to it.
        views: Views of a picture outside of training, such as windows.
        dense_features, ignored, output, background: See the options.
        background_threshold: Probability below which a pixel is background, for Background.THRESHOLD.
        image_training, text_training: Weights of the two towers that are trained.
        tower_lr_factor: Factor of the learning rate for these weights.
        gradient_checkpointing: Part of the aggregator and of both towers that a training's backward pass recomputes.
        options: Arguments of OpenVocabularyModel.
    """

    best_metrics = ("sem_seg/mIoU_unseen", "sem_seg/mIoU", "sem_seg_or_predicted/mIoU")

    @configurable
    def __init__(
        self,
        *,
        encoder: DenseEncoder,
        aggregator: Aggregator,
        blocks: Sequence[int],
        guidance_channels: Sequence[int],
        input_size: tuple[int, int],
        views: Views,
        dense_features: DenseFeatures = DenseFeatures.UNIT,
        ignored: IgnoredPixels = IgnoredPixels.NEGATIVE,
        output: Output = Output.SCORES,
        background: Background = Background.NONE,
        background_threshold: float = 0.0,
        image_training: TowerTraining = TowerTraining.QV,
        text_training: TowerTraining = TowerTraining.QV,
        tower_lr_factor: float = 0.01,
        gradient_checkpointing: GradientCheckpointing = GradientCheckpointing.NONE,
        **options,
    ):
        super().__init__(learn_text=text_training is not TowerTraining.NONE, **options)
        if len(blocks) != len(guidance_channels) or len(blocks) != len(aggregator.decoders):
            raise ConfigurationError(
                f"Each of the {len(aggregator.decoders)} decoders needs a block and its guidance's channels; got "
                f"blocks {list(blocks)} and channels {list(guidance_channels)}."
            )
        self.encoder = encoder.eval()
        train_image_tower(encoder, image_training)
        train_text_tower(self.text_tower, text_training)
        self.aggregator = aggregator
        self.blocks = tuple(blocks)
        self.guidance_upsamplers = nn.ModuleList(
            nn.ConvTranspose2d(encoder.width, channels, kernel_size=2 ** (i + 1), stride=2 ** (i + 1))
            for i, channels in enumerate(guidance_channels)
        )
        self.class_embeddings = BackgroundEmbeddings(
            embed_dim=encoder.embed_dim, choice=background, threshold=background_threshold
        )
        self.input_size = tuple(input_size)
        self.views = views
        self.dense_features = dense_features
        self.ignored = ignored
        self.output = output
        self._own_background = background, background_threshold
        self.tower_lr_factor = tower_lr_factor
        self.set_gradient_checkpointing(gradient_checkpointing)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Parts as configured.

        Raises:
            ConfigurationError: An unknown option, or SOLVER.SHARDING "fsdp" with a text tower that learns.
        """
        if cfg.SOLVER.SHARDING == "fsdp" and cfg.MODEL.CATSEG.TRAIN.TEXT != TowerTraining.NONE.value:
            raise ConfigurationError(
                "SOLVER.SHARDING is 'fsdp', but the text tower learns and embeds names outside of the forward pass. "
                "Set MODEL.CATSEG.TRAIN.TEXT to 'none' or SOLVER.SHARDING to 'none'."
            )
        towers, metadata = build_towers(cfg)
        settings, key = cfg.MODEL.CATSEG, "MODEL.CATSEG"
        windows = settings.WINDOWS
        canvas = tuple(windows.CANVAS) or None
        return {
            **cls.options_from_config(cfg),
            "test_augmentations": configured_test_augmentations(cfg),
            "text_tower": towers.text,
            "metadata": metadata,
            "encoder": towers.encoder,
            "aggregator": Aggregator(
                embed_dim=towers.encoder.embed_dim,
                channels=settings.HIDDEN_DIM,
                appearance_channels=settings.APPEARANCE_DIM,
                text_channels=settings.TEXT_DIM,
                num_layers=settings.NUM_LAYERS,
                num_heads=settings.NUM_HEADS,
                window=settings.SWIN_WINDOW,
                attention=choose(ClassAttentionKind, settings.ATTENTION, f"{key}.ATTENTION"),
                decoder_channels=settings.DECODER_DIMS,
                guidance_channels=settings.GUIDANCE_DIMS,
                projected_channels=settings.PROJECTED_DIMS,
                training_pooling=tuple(settings.POOLING_TRAIN),
                test_pooling=tuple(settings.POOLING_TEST),
                class_limit=settings.CLASS_LIMIT,
                chunk=settings.CHUNK,
            ),
            "blocks": settings.BLOCKS,
            "guidance_channels": settings.GUIDANCE_DIMS,
            "input_size": tuple(settings.INPUT_SIZE),
            "views": SlidingWindows(side=windows.SIDE, overlap=windows.OVERLAP, canvas=canvas)
            if windows.ENABLED
            else Whole(choose(WholePicture, settings.WHOLE_PICTURE, f"{key}.WHOLE_PICTURE")),
            "dense_features": choose(DenseFeatures, settings.DENSE_FEATURES, f"{key}.DENSE_FEATURES"),
            "ignored": choose(IgnoredPixels, settings.IGNORED, f"{key}.IGNORED"),
            "output": choose(Output, settings.OUTPUT, f"{key}.OUTPUT"),
            "background": choose(Background, settings.BACKGROUND, f"{key}.BACKGROUND"),
            "background_threshold": settings.BACKGROUND_THRESHOLD,
            "image_training": choose(TowerTraining, settings.TRAIN.IMAGE, f"{key}.TRAIN.IMAGE"),
            "text_training": choose(TowerTraining, settings.TRAIN.TEXT, f"{key}.TRAIN.TEXT"),
            "tower_lr_factor": settings.TRAIN.LR_FACTOR,
            "gradient_checkpointing": choose(
                GradientCheckpointing, settings.GRADIENT_CHECKPOINTING, f"{key}.GRADIENT_CHECKPOINTING"
            ),
        }

    @property
    def classes(self) -> ClassEmbeddings:
        """The embeddings that pixels are compared with."""
        return self.class_embeddings

    @property
    def background(self) -> Background:
        """Background in use."""
        return self.class_embeddings.choice

    @property
    def background_threshold(self) -> float:
        """Probability below which a pixel is background, for Background.THRESHOLD."""
        return self.class_embeddings.threshold

    def set_vocabulary(
        self,
        names: Sequence[str],
        templates: Sequence[str] | None = None,
        novel: Iterable[str] = (),
        *,
        background: Background | str | None = None,
        background_threshold: float | None = None,
    ) -> None:
        """Use these classes from now on; see OpenVocabularyModel.

        Args:
            background: Background of these classes; None for the configured one.
            background_threshold: Probability below which a pixel is background; None for the configured one.

        Raises:
            ConfigurationError: An unknown background, or "threshold" without a threshold.
        """
        choice, threshold = self._own_background
        threshold = threshold if background_threshold is None else background_threshold
        if background is not None:
            choice = read_background(background, threshold)
        vocabulary = Vocabulary(names, novel=novel)  # refuses bad names before anything changes
        before = self.background, self.background_threshold
        self.class_embeddings.use_background(choice, threshold)
        try:
            super().set_vocabulary(vocabulary.names, templates, vocabulary.novel)
        except Exception:
            self.class_embeddings.use_background(*before)
            raise

    def use_dataset(self, name: str) -> None:
        """Use the classes of a registered data set, with the configured background."""
        self.class_embeddings.use_background(*self._own_background)
        super().use_dataset(name)

    def train(self, mode: bool = True) -> "CATSeg":
        """Set the mode of the aggregator; both towers stay in eval, also where parts of them learn."""
        super().train(mode)
        self.encoder.eval()
        return self

    def set_gradient_checkpointing(self, kind: GradientCheckpointing) -> None:
        """Choose what the aggregator and both towers compute again in the backward pass."""
        self.aggregator.set_gradient_checkpointing(kind)
        self.encoder.gradient_checkpointing = kind
        self.text_tower.set_gradient_checkpointing(kind is GradientCheckpointing.FULL)

    def parameter_groups(self, cfg: CfgNode) -> list[dict]:
        """Groups for the optimizer: towers at a lower rate, norms without (SOLVER.WEIGHT_DECAY_NORM) weight decay."""
        towers = [*self.encoder.parameters(), *self.text_tower.parameters()]
        norms = (nn.LayerNorm, nn.GroupNorm)
        undecayed = {p for module in self.modules() if isinstance(module, norms) for p in module.parameters()}
        learning = [p for p in self.parameters() if p.requires_grad]
        in_towers = set(towers)
        groups = [
            {"params": [p for p in learning if p in in_towers], "lr_factor": self.tower_lr_factor},
            {"params": [p for p in learning if p not in in_towers and p not in undecayed]},
            {
                "params": [p for p in learning if p not in in_towers and p in undecayed],
                "weight_decay": cfg.SOLVER.WEIGHT_DECAY_NORM,
            },
        ]
        return [group for group in groups if group["params"]]

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """The loss in training, scores or labels otherwise.

        Args:
            batched_inputs: One dict per picture, as Detectron2's: "image" (3, H, W) uint8 or float RGB in 0..255, of
                any size; in training "sem_seg" (H, W), where a label outside 0..T - 1 means "ignored"; at test
                optionally "height" and "width" of the result, by default those of the picture.

        Returns:
            {"loss_sem_seg": scalar}, or [{"sem_seg": (T, height, width) probabilities}]; with OUTPUT "labels"
            [{"sem_seg": (height, width) int64, "scores": (height, width) probability of that class}]. With a background
            there is one class more, the last.

        Raises:
            ConfigurationError: The scores of all classes do not fit into memory.
            DataError: An "image" of another form, type or range, or labels of the wrong shape.
        """
        require_images(batched_inputs)
        dtype = self.pixel_mean.dtype
        images = [(one["image"].to(self.device, dtype) - self.pixel_mean) / self.pixel_std for one in batched_inputs]
        if not self.training:
            self.require_vocabulary()
            with torch.no_grad():
                text = self.classes.require()
                pairs = zip(images, batched_inputs, strict=True)
                return [self._segment(image, one, text) for image, one in pairs]
        text = self.text_features()
        logits = self.logits(torch.cat([resize(image[None], self.input_size) for image in images]), text)
        targets = [one["sem_seg"].to(self.device) for one in batched_inputs]
        return {"loss_sem_seg": self._loss(logits, targets)}

    def logits(self, images: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalized network inputs and (T, E) unit text embeddings -> (B, T, F h, F w)."""
        dense, maps = self.encoder.forward_with_maps(images, self.blocks)
        if self.dense_features is DenseFeatures.UNIT:
            dense = F.normalize(dense, dim=1)
        guidance = [up(one) for up, one in zip(self.guidance_upsamplers, maps, strict=True)]
        return self.aggregator(dense, guidance, text.unsqueeze(1))

    def _loss(self, logits: torch.Tensor, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Mean binary cross-entropy over pictures, their pixels and classes."""
        losses = []
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        for one, target in zip(logits, targets, strict=True):
            if target.ndim != 2:
                raise DataError(f'"sem_seg" must be (H, W) labels; got {tuple(target.shape)}.')
            one = resize(one[None], tuple(target.shape))[0]  # (T, H, W)
            target = target.long()
            known = (target >= 0) & (target < len(one))
            # Cross-entropy with a one-hot target: softplus of every logit, minus the logit of the label.
            chosen = one.gather(0, target.where(known, 0)[None])[0] * known
            if self.ignored is IgnoredPixels.EXCLUDED:
                total = (F.softplus(one) * known).sum() - chosen.sum()
                losses.append(total / (known.sum().clamp(min=1) * len(one)))
            else:
                losses.append((F.softplus(one).sum() - chosen.sum()) / one.numel())
        return torch.stack(losses).mean()

    def _segment(self, image: torch.Tensor, one: dict, text: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scores or labels of a normalized picture (3, H, W), see `forward`."""
        size = one.get("height", image.shape[-2]), one.get("width", image.shape[-1])
        if self.output is Output.SCORES:
            self._require_memory(len(text), size)
        views = torch.cat([resize(view[None], self.input_size) for view in self.views.cut(image)])
        at_once = max(1, self.aggregator.maps_at_once(image.device) // len(text))
        logits = torch.cat([self.logits(some, text) for some in views.split(at_once)])  # (V, T, F h, F w)
        parts = self._merged(logits, tuple(image.shape[-2:]), size)
        if self.output is Output.LABELS:
            labels, best = self._labels(parts, size, len(text))
            return {"sem_seg": labels, "scores": best}
        scores = logits.new_full((len(text), *size), DROPPED).sigmoid()
        for index, part in parts:
            scores[index] = part
        if self.background is Background.THRESHOLD:
            scores = torch.cat([scores, torch.full_like(scores[:1], self.background_threshold)])
        return {"sem_seg": scores}

    def _require_memory(self, classes: int, size: tuple[int, int]) -> None:
        needed, free = classes * size[0] * size[1] * self.pixel_mean.element_size(), free_bytes(self.device)
        if free is not None and needed > free:
            raise ConfigurationError(
                f"Scores of {classes} classes for {size[0]} x {size[1]} pixels take {needed / 2**30:.1f} GiB, but "
                f"{free / 2**30:.1f} GiB are free. Set MODEL.CATSEG.OUTPUT to 'labels', or ask for a smaller result."
            )

    def _merged(
        self, logits: torch.Tensor, image_size: tuple[int, int], size: tuple[int, int]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Indices of some classes, ascending, with their scores (., h, w), but not of those that every view dropped."""
        alive = (logits.amax(dim=(0, 2, 3)) > DROPPED).nonzero()[:, 0]
        for index in alive.split(MERGED_AT_ONCE):
            yield index, self.views.merge(logits[:, index], image_size, size)

    def _labels(self, parts: Iterator, size: tuple[int, int], count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(h, w) class of the largest score, the first of equal ones, and (h, w) that score."""
        best = torch.full(size, -1.0, dtype=self.pixel_mean.dtype, device=self.device)
        labels = torch.zeros(size, dtype=torch.long, device=self.device)
        for index, scores in parts:
            score, position = scores.max(dim=0)
            better = score > best
            best = torch.where(better, score, best)
            labels = torch.where(better, index[position], labels)
        if self.background is Background.THRESHOLD:
            labels[best < self.background_threshold] = count
            best = best.clamp(min=self.background_threshold)
        return labels, best

    @contextmanager
    def best_labels(self) -> Iterator[None]:
        before, self.output = self.output, Output.LABELS
        try:
            yield
        finally:
            self.output = before
