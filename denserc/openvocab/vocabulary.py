"""The vocabulary of a model: text that may be exchanged at any time, because no weight depends on it.

Shape letters: C classes, E width of the image-text space, (h, w) pixels.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn

from ..data.datasets.registration import dataset_vocabulary
from ..data.images.reading import to_tensor
from ..data.vocabulary.prompts import VILD_TEMPLATES, template_set
from ..data.vocabulary.text_embeddings import embed_names, load_text_embeddings
from ..structures import BACKGROUND, ConfigurationError, PixelStatistics, TextEmbeddings, Vocabulary

logger = logging.getLogger(__name__)


class ClassSelection(NamedTuple):
    """A vocabulary with its embeddings, as ClassEmbeddings holds them."""

    vocabulary: Vocabulary | None
    vectors: torch.Tensor
    novel: torch.Tensor


class ClassEmbeddings(nn.Module):
    """The vocabulary in use: its text embeddings and which classes are novel. Has no weight and is not saved.

    Args:
        embed_dim: E.
        background: Whether "background" has an embedding of its own, after those of the classes.
    """

    def __init__(self, *, embed_dim: int, background: bool = True):
        super().__init__()
        self.background = background
        self.vocabulary: Vocabulary | None = None
        self.register_buffer("vectors", torch.zeros(0, embed_dim), persistent=False)  # (C + 1, E), or (C, E)
        self.register_buffer("novel", torch.zeros(0, dtype=torch.bool), persistent=False)  # (C,)

    def names_of(self, vocabulary: Vocabulary) -> list[str]:
        """The names whose embeddings are needed, in the order of `vectors`."""
        return [*vocabulary.names, BACKGROUND] if self.background else list(vocabulary.names)

    def set(self, vocabulary: Vocabulary, embeddings: TextEmbeddings) -> None:
        """Use another vocabulary; `embeddings` contain the names of `names_of`, in any order.

        Raises:
            DataError: A name has no embedding.
            ConfigurationError: The embeddings have another width than the encoder.
        """
        vectors = embeddings.select(self.names_of(vocabulary))
        if vectors.shape[1] != self.vectors.shape[1]:
            raise ConfigurationError(
                f"Text embeddings of width {vectors.shape[1]} do not fit an encoder of width {self.vectors.shape[1]}."
            )
        self.vectors = F.normalize(vectors.detach().to(self.vectors), dim=1)
        self.novel = vocabulary.novel_mask().to(self.novel.device)
        self.vocabulary = vocabulary

    def selection(self) -> ClassSelection:
        """The vocabulary in use, for `restore`."""
        return ClassSelection(self.vocabulary, self.vectors, self.novel)

    def restore(self, selection: ClassSelection) -> None:
        """Use a vocabulary again that was in use before; embeds nothing."""
        self.vocabulary = selection.vocabulary
        self.vectors, self.novel = selection.vectors.to(self.vectors), selection.novel.to(self.novel.device)

    def require(self) -> torch.Tensor:
        """The vectors, (C + 1, E) or (C, E).

        Raises:
            ConfigurationError: No vocabulary was set; the message names the call.
        """
        if self.vocabulary is None:
            raise ConfigurationError("The model has no vocabulary yet: call model.set_vocabulary(names) first.")
        return self.vectors


class OpenVocabularyModel(nn.Module):
    """Base of the meta-architectures: a frozen text tower, and a vocabulary that may be exchanged at any time.

    A subclass provides `classes`; `openvocab.engine` then trains and evaluates it from a Detectron2 config, and
    `openvocab.checkpoint` saves and loads it.

    Args:
        text_tower: Text tower of the CLIP whose image tower the model uses; stays frozen and in eval mode.
        pixels: Normalization of the network input.
        templates: Prompt templates for calls that give none.
        vocabulary: The first vocabulary, embedded when it is first needed; None leaves it to a call.
        embeddings_file: File of text embeddings to read names from instead of embedding them; "" for none.
        cache_dir: Folder of cached text embeddings; None for none.
        metadata: Description of the towers, for checkpoints (`checkpoint.build_towers`).
        test_augmentations: Resizing of a picture outside of training, as the test mapper does it; None if unknown, then
            `prepare` and denserc.Predictor refuse the model.
    """

    best_metrics: tuple[str, ...] = ()
    """Metrics "task/name" that TEST.BEST "auto" looks for, the first that exists; larger is better."""

    def __init__(
        self,
        *,
        text_tower: nn.Module,
        pixels: PixelStatistics,
        templates: Sequence[str] = VILD_TEMPLATES,
        vocabulary: Vocabulary | None = None,
        embeddings_file: str = "",
        cache_dir: str | Path | None = None,
        metadata: dict | None = None,
        test_augmentations: Sequence[T.Augmentation] | None = None,
    ):
        super().__init__()
        self.text_tower = text_tower.requires_grad_(False).eval()
        self.templates = tuple(templates)
        self.embeddings_file = embeddings_file
        self.cache_dir = cache_dir
        self.metadata = dict(metadata or {})
        self.test_augmentations = None if test_augmentations is None else T.AugmentationList(list(test_augmentations))
        self._pending = vocabulary
        self.register_buffer("pixel_mean", torch.tensor(pixels.mean_255).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixels.std_255).view(3, 1, 1), persistent=False)

    @staticmethod
    def options_from_config(cfg: CfgNode) -> dict:
        """Arguments of this class from a config, except the text tower and its metadata.

        The first vocabulary is that of the first training or test set.

        Raises:
            ConfigurationError: INPUT.FORMAT is not "RGB".
        """
        if cfg.INPUT.FORMAT != "RGB":
            raise ConfigurationError(f"The models read RGB; INPUT.FORMAT is {cfg.INPUT.FORMAT!r}.")
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        settings = cfg.MODEL.VOCABULARY
        return {
            "pixels": PixelStatistics(
                [value / 255.0 for value in cfg.MODEL.PIXEL_MEAN], [value / 255.0 for value in cfg.MODEL.PIXEL_STD]
            ),
            "templates": template_set(settings.TEMPLATES),
            "vocabulary": dataset_vocabulary(names[0]) if names else None,
            "embeddings_file": settings.EMBEDDINGS,
            "cache_dir": settings.CACHE_DIR or Path(cfg.OUTPUT_DIR) / "text_embeddings",
        }

    @property
    @abstractmethod
    def classes(self) -> ClassEmbeddings:
        """The embeddings that the model classifies by."""

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.pixel_mean.device

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes that the model distinguishes; label i is its i-th name."""
        return self._pending or self.classes.vocabulary

    def train(self, mode: bool = True) -> "OpenVocabularyModel":
        """Set the mode of the trained parts; the text tower stays in eval."""
        super().train(mode)
        self.text_tower.eval()
        return self

    def set_vocabulary(
        self, names: Sequence[str], templates: Sequence[str] | None = None, novel: Iterable[str] = ()
    ) -> None:
        """Use these classes from now on; changes no weight.

        Args:
            names: Label i is the i-th name. "background" is added where a model needs it and must not be among them.
            templates: Prompt templates with {} for the name; None for the model's own.
            novel: Those of the names that training has not seen.

        Raises:
            DataError: No names, a name twice, or a novel name that is not among them.
        """
        self._embed(Vocabulary(names, novel=novel), templates)

    def set_text_embeddings(self, embeddings: TextEmbeddings, novel: Iterable[str] = ()) -> None:
        """Use the classes of ready-made embeddings, in their order; "background" must be among them if needed.

        Raises:
            FingerprintMismatchError: They were made by another text encoder.
            DataError: "background" is not among them.
        """
        embeddings.require_fingerprint(self.text_tower.fingerprint())
        names = [name for name in embeddings.names if name != BACKGROUND]
        self.classes.set(Vocabulary(names, novel=novel), embeddings)
        self._pending = None

    def use_dataset(self, name: str) -> None:
        """Use the classes of a registered data set, with its novel ones."""
        self._embed(dataset_vocabulary(name), None)

    def require_vocabulary(self) -> None:
        """Embed the first vocabulary, if that has not happened; to be called before classifying."""
        if self._pending is not None:
            self._embed(self._pending, None)

    def prepare(self, pixels: np.ndarray, frame: tuple[int, int] | None = None) -> dict:
        """Input of `forward` for a whole picture, resized as in evaluation.

        Args:
            pixels: (h, w, 3) uint8 RGB of any size.
            frame: (h, w) in whose pixels results are given; None for the picture's own.

        Returns:
            "image" (3, h', w') uint8, and "height" and "width" of the frame.

        Raises:
            ConfigurationError: The model was built without `test_augmentations`.
        """
        if self.test_augmentations is None:
            raise ConfigurationError(
                f"{type(self).__name__} does not define how pictures are resized: give `test_augmentations`, the list "
                "that its test mapper uses, to the constructor in from_config."
            )
        resized = T.AugInput(pixels)
        self.test_augmentations(resized)
        height, width = frame or pixels.shape[:2]
        return {"image": to_tensor(resized.image), "height": height, "width": width}

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size (H, W) to which a prepared image (h, w) is padded in a batch of one.

        Images that share it have the same results in one forward pass as one by one, up to rounding.
        """
        return size

    def adapt_weights(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights of a checkpoint that this model uses; a subclass without an optional part leaves it out."""
        return weights

    def _embed(self, vocabulary: Vocabulary, templates: Sequence[str] | None) -> None:
        if BACKGROUND in vocabulary.names:
            raise ConfigurationError(f"{BACKGROUND!r} is added by the model itself; leave it out of the names.")
        names = self.classes.names_of(vocabulary)
        if self.embeddings_file and templates is None:
            embeddings = load_text_embeddings(self.embeddings_file, names)
            embeddings.require_fingerprint(self.text_tower.fingerprint())
            if not embeddings.fingerprint:
                logger.warning(
                    "%s does not say which text encoder made it; another one's embeddings give near-zero accuracy. "
                    "denserc embed --compare tells.",
                    self.embeddings_file,
                )
        else:
            embeddings = embed_names(
                self.text_tower, names, self.templates if templates is None else templates, cache_dir=self.cache_dir
            )
        self.classes.set(vocabulary, embeddings)
        self._pending = None
