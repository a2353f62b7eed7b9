"""Segmentation by dense features only: each pixel gets the class whose text is nearest. Nothing is trained.

Shape letters: C classes, Q prompted phrases (synonyms and backgrounds are phrases of their own), E width of the
image-text space, (H, W) pixels of the resized picture, (h, w) of the result, V windows of (a, b) pixels.

Cosines are averaged over windows and resized to the result. All of this is linear, so phrases are scored in chunks with
a running maximum, and memory does not grow with the number of classes. The class of a pixel is that of its best phrase.
The softmax over phrases matters only where a background threshold exists.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from torch.nn import functional as F

from ..construction import DenseEncoder
from ..openvocab import engine
from ..openvocab.checkpoint import build_towers
from ..openvocab.engine import EvaluatorFactory, Mappers
from ..openvocab.inputs import require_images
from ..openvocab.vocabulary import OpenVocabularyModel, Synonyms
from ..structures import BACKGROUND, ConfigurationError, Vocabulary
from .data import SemanticMapper
from .modeling.background import read_background
from .modeling.options import Background
from .modeling.windows import resize, window_starts
from .protocols import DenseProtocol, WindowFit, protocol
from .queries import QueryEmbeddings
from .refinement import affinities, refined

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Windows:
    """Windows of a picture, row by row; the last one of an axis is moved back to end at the border.

    Args:
        size: (H, W) of the picture.
        crop: Side of a window; a picture that is smaller gives one window of its own size on that axis. 0: the whole.
        stride: Distance between windows.
    """

    size: tuple[int, int]
    crop: int
    stride: int

    @property
    def shape(self) -> tuple[int, int]:
        """(a, b) of each window."""
        return tuple(min(self.crop, side) if self.crop else side for side in self.size)

    @property
    def places(self) -> list[tuple[int, int]]:
        """(row, column) of the upper left corners."""
        rows, columns = (window_starts(*one, max(self.stride, 1)) for one in zip(self.size, self.shape, strict=True))
        return [(row, column) for row in rows for column in columns]


@dataclass(frozen=True)
class _View:
    """Input from which the labels of a picture are computed.

    Args:
        features: (V, E, ., .) unit features of the windows.
        windows: Positions of the windows.
        size: (h, w) of the result.
        weights: (P, h, w) of the refinement; None without one.
    """

    features: torch.Tensor
    windows: Windows
    size: tuple[int, int]
    weights: torch.Tensor | None


def resized(image: np.ndarray, short_side: int, long_side: int) -> np.ndarray:
    """(h, w, 3) uint8 -> the same with the given sides at most, by OpenCV's bilinear without antialiasing."""
    import cv2

    h, w = image.shape[:2]
    factor = min(short_side / min(h, w), long_side / max(h, w))
    size = max(int(h * factor + 0.5), 1), max(int(w * factor + 0.5), 1)
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


@META_ARCH_REGISTRY.register()
class DenseSegmenter(OpenVocabularyModel):
    """Pixels against text by the dense features of a frozen encoder.

    The constants are those of a protocol on the benchmark that a registered set names, see `protocols`. A set with a
    background has it prompted, and pixels below the threshold fall to it.

    Args:
        encoder: Frozen dense encoder.
        protocol: One of `protocols.PROTOCOLS`.
        short_side: Shorter side of the resized picture, pixels; 0 for the protocol's.
        threshold: Probability below which a pixel is background; negative for the protocol's.
        windows_at_once: Windows in one pass of the encoder.
        phrases_at_once: Score maps held at once.
        options: Arguments of OpenVocabularyModel, except `test_augmentations`.
    """

    best_metrics = ("sem_seg/mIoU_unseen", "sem_seg/mIoU")

    @configurable
    def __init__(
        self,
        *,
        encoder: DenseEncoder,
        protocol: str,
        short_side: int = 0,
        threshold: float = -1.0,
        windows_at_once: int = 8,
        phrases_at_once: int = 32,
        **options,
    ):
        super().__init__(test_augmentations=(), **options)  # `forward` resizes
        if self.synonyms is not Synonyms.WHOLE:
            raise ConfigurationError(
                "DenseSegmenter scores each synonym by itself and takes the best; set MODEL.VOCABULARY.SYNONYMS to "
                f"'whole' (it is {self.synonyms.value!r})."
            )
        if min(windows_at_once, phrases_at_once) < 1:
            raise ConfigurationError(
                f"WINDOWS_AT_ONCE and PHRASES_AT_ONCE must be at least 1; got {windows_at_once} and {phrases_at_once}."
            )
        self.encoder = encoder.requires_grad_(False).eval()
        self.protocol = protocol
        self.short_side = short_side
        self.threshold = threshold
        self.windows_at_once = windows_at_once
        self.phrases_at_once = phrases_at_once
        self.query_embeddings = QueryEmbeddings(embed_dim=encoder.embed_dim)
        self._configure("", has_background=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Parts as configured; pixels are normalized as the encoder was trained."""
        towers, metadata = build_towers(cfg)
        settings = cfg.MODEL.DENSE_SEGMENTER
        return {
            **cls.options_from_config(cfg),
            "pixels": towers.encoder.tower.pixels,
            "text_tower": towers.text,
            "metadata": metadata,
            "encoder": towers.encoder,
            "protocol": settings.PROTOCOL,
            "short_side": settings.SHORT_SIDE,
            "threshold": settings.THRESHOLD,
            "windows_at_once": settings.WINDOWS_AT_ONCE,
            "phrases_at_once": settings.PHRASES_AT_ONCE,
        }

    @property
    def classes(self) -> QueryEmbeddings:
        """The embeddings that pixels are compared with."""
        return self.query_embeddings

    @property
    def constants(self) -> DenseProtocol:
        """The protocol's constants in use."""
        return self.classes.constants

    def use_dataset(self, name: str) -> None:
        """Use the classes of a registered set, with the protocol's constants and names for its benchmark."""
        metadata = MetadataCatalog.get(name)
        has_background = BACKGROUND in metadata.get("stuff_classes", ())
        self._configure(metadata.get("benchmark", ""), has_background=has_background)
        super().use_dataset(name)
        logger.info(
            "%s: %s, %d phrases for %d classes", name, self.constants, len(self.classes.label_of), len(self.vocabulary)
        )

    def set_vocabulary(
        self,
        names: Sequence[str],
        templates: Sequence[str] | None = None,
        novel: Iterable[str] = (),
        *,
        background: bool | Background | str = False,
        background_threshold: float | None = None,
    ) -> None:
        """Use these classes from now on; see OpenVocabularyModel.

        Args:
            background: True prompts "background" too; its pixels, and those below the threshold, have the label C.
                "prompt" and "threshold" are one of both, "none" and False neither.
            background_threshold: Probability below which a pixel is background, of the softmax over all phrases; None
                for the model's own.

        Raises:
            ConfigurationError: An unknown background, or "threshold" without a threshold or with one name only.
        """
        vocabulary = Vocabulary(names, novel=novel)  # refuses bad names before anything changes
        if isinstance(background, bool):
            self._configure("", has_background=background, threshold=background_threshold)
        else:
            self._configure_choice(background, background_threshold, len(vocabulary))
        super().set_vocabulary(vocabulary.names, templates, vocabulary.novel)

    def _configure_choice(self, background: Background | str, threshold: float | None, count: int) -> None:
        """Either of the prompt and the threshold."""
        if threshold is None:
            threshold = self.threshold if self.threshold >= 0 else protocol(self.protocol, "").threshold
        choice = read_background(background, threshold)
        if choice is Background.THRESHOLD and count == 1:
            raise ConfigurationError(
                "background='threshold' needs two names: the probability of a single one is 1 everywhere. Use 'prompt'."
            )
        self._configure("", has_background=choice is Background.PROMPT, threshold=0.0)
        if choice is Background.THRESHOLD:
            self.classes.constants = replace(self.classes.constants, threshold=threshold)

    def _configure(self, benchmark: str, *, has_background: bool, threshold: float | None = None) -> None:
        constants = protocol(self.protocol, benchmark)
        if self.short_side:
            constants = replace(
                constants, short_side=self.short_side, long_side=max(constants.long_side, self.short_side)
            )
        threshold = self.threshold if threshold is None else threshold
        if threshold >= 0:
            constants = replace(constants, threshold=threshold)
        if not has_background:
            constants = replace(constants, threshold=0.0, area_threshold=0.0)
        self.classes.constants, self.classes.benchmark = constants, benchmark
        self.classes.has_background = has_background

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Label the pixels of pictures.

        Args:
            batched_inputs: One dict per picture: "image" (3, ., .) RGB in 0..255 as in the file, and optionally
                "height" and "width" of the result, by default the picture's.

        Returns:
            [{"sem_seg": (height, width) int64 labels, C for background, "scores": (height, width) cosine of the best
            phrase}].

        Raises:
            ConfigurationError: In training mode, as there is nothing to train.
            DataError: An "image" of another form, type or range.
        """
        if self.training:
            raise ConfigurationError("DenseSegmenter has nothing to train: evaluate it (--eval-only).")
        require_images(batched_inputs)
        self.require_vocabulary()
        return [self._segment(one) for one in batched_inputs]

    @torch.no_grad()
    def _segment(self, one: dict) -> dict[str, torch.Tensor]:
        image = one["image"]
        size = one.get("height", image.shape[-2]), one.get("width", image.shape[-1])
        pixels = resized(
            image.cpu().numpy().transpose(1, 2, 0).astype(np.uint8), self.constants.short_side, self.constants.long_side
        )
        picture = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(self.device).float()
        picture = (picture - self.pixel_mean) / self.pixel_std
        windows = Windows(tuple(picture.shape[-2:]), self.constants.crop, self.constants.stride)
        features = self.window_features(picture, windows)
        weights = None
        if self.constants.refinement:
            weights = affinities(resize(picture[None], size)[0])
        labels, scores = self._labels(_View(features, windows, size, weights))
        return {"sem_seg": labels, "scores": scores}

    def window_features(self, picture: torch.Tensor, windows: Windows) -> torch.Tensor:
        """A normalized picture (3, H, W) -> unit features (V, E, ., .) of its windows, in the encoder's grid."""
        (a, b), patch = windows.shape, self.encoder.patch_size
        cut = torch.stack([picture[:, row : row + a, column : column + b] for row, column in windows.places])
        if self.constants.fit is WindowFit.DROP and min(a, b) >= patch:
            cut = cut[..., : a // patch * patch, : b // patch * patch]
        else:
            cut = F.pad(cut, self._margins((a, b)))
        return torch.cat([F.normalize(self.encoder(part).float(), dim=1) for part in cut.split(self.windows_at_once)])

    def _margins(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """(left, right, top, bottom) zeros around a window, centered."""
        multiple = self.constants.multiple
        if not multiple or multiple % self.encoder.patch_size:
            multiple = self.encoder.patch_size
        (top, bottom), (left, right) = ((-s % multiple // 2, -s % multiple - -s % multiple // 2) for s in shape)
        return left, right, top, bottom

    def _score_maps(self, view: "_View", rows: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Some phrases' indices (q,) with their cosines (q, h, w), in chunks."""
        features, windows = view.features, view.windows
        (a, b), patch = windows.shape, self.encoder.patch_size
        dropped = self.constants.fit is WindowFit.DROP and min(a, b) >= patch
        left, right, top, bottom = (0, 0, 0, 0) if dropped else self._margins((a, b))
        count = features.new_zeros(windows.size)
        for row, column in windows.places:
            count[row : row + a, column : column + b] += 1
        for index in rows.split(self.phrases_at_once):
            vectors = self.classes.vectors[index]
            total = features.new_zeros(len(index), *windows.size)
            for one, (row, column) in zip(features, windows.places, strict=True):
                cosines = torch.einsum("qe,eij->qij", vectors, one)
                full = resize(cosines[None], (a + top + bottom, b + left + right))[0]
                total[:, row : row + a, column : column + b] += full[:, top : top + a, left : left + b]
            total /= count
            maps = resize(total[None], view.size)[0]
            if view.weights is not None:
                maps = refined(maps, view.weights, self.constants.refinement)
            yield index, maps

    def _labels(self, view: "_View") -> tuple[torch.Tensor, torch.Tensor]:
        """(h, w) labels, and the cosine of each pixel's best phrase."""
        constants, background = self.constants, len(self.vocabulary)
        rows = torch.arange(len(self.classes.label_of), device=self.device)
        best, phrase, denominator = self._best(view, rows)
        labels = self.classes.label_of[phrase]
        if constants.area_threshold:
            kept = self._large_enough(labels)
            if len(kept) < len(rows):
                best, phrase, _ = self._best(view, kept)
                labels = self.classes.label_of[phrase]
        if constants.threshold:
            labels[(constants.scale * best - denominator).exp() < constants.threshold] = background
        return labels, best

    def _best(self, view: "_View", rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Largest cosine of some phrases, its phrase, and log(sum(exp(scale * cosine))), each (h, w)."""
        size = view.size
        best = torch.full(size, -torch.inf, device=self.device)
        phrase = torch.zeros(size, dtype=torch.long, device=self.device)
        denominator = torch.full(size, -torch.inf, device=self.device)
        for index, maps in self._score_maps(view, rows):
            value, position = maps.max(dim=0)
            better = value > best  # of equal ones the first
            best = torch.where(better, value, best)
            phrase = torch.where(better, index[position], phrase)
            if self.constants.threshold:
                denominator = torch.logaddexp(denominator, (self.constants.scale * maps).logsumexp(dim=0))
        return best, phrase, denominator

    def _large_enough(self, labels: torch.Tensor) -> torch.Tensor:
        """Phrases of the background, and of classes that cover more than `area_threshold` of the foreground."""
        background = len(self.vocabulary)
        areas = torch.bincount(labels.reshape(-1), minlength=background + 1)
        large = areas > self.constants.area_threshold * areas[:background].sum()
        large[background] = True
        return large[self.classes.label_of].nonzero()[:, 0]


def dense_mapper(cfg: CfgNode) -> SemanticMapper:
    """The mapper of DenseSegmenter: pictures as in their files, which the model resizes itself."""
    return SemanticMapper([], training=False)


DENSE_MAPPERS = Mappers(training=dense_mapper, test=dense_mapper)


def evaluate(cfg: CfgNode, evaluator_factory: EvaluatorFactory) -> dict[str, dict]:
    """Evaluate DenseSegmenter on DATASETS.TEST; see `openvocab.engine.run`."""
    return engine.run(cfg, DENSE_MAPPERS, evaluator_factory=evaluator_factory, eval_only=True)
