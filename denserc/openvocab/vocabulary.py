"""The vocabulary of a model: text that may be exchanged at any time, because no weight depends on it.

Shape letters: C classes, E width of the image-text space, (h, w) pixels.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
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
from ..data.vocabulary.prompts import VILD_TEMPLATES, build_prompts, clean_name, is_background, template_set
from ..data.vocabulary.text_embeddings import average_templates, embed_names, load_text_embeddings
from ..data.vocabulary.texts import text_of, warn_of_cut_texts, warn_of_same_texts
from ..structures import BACKGROUND, ConfigurationError, DataError, PixelStatistics, TextEmbeddings, Vocabulary, choose

logger = logging.getLogger(__name__)


class Synonyms(Enum):
    """Reading of a class name with commas, such as "couch, sofa"."""

    WHOLE = "whole"  # one phrase
    FIRST = "first"  # synonyms, of which the first one is used: CAT-Seg
    MEAN = "mean"  # synonyms, whose embeddings are averaged

    def phrases(self, name: str) -> tuple[str, ...]:
        """The phrases of a name that are embedded; synonyms are cleaned and not repeated.

        Raises:
            DataError: The name has nothing beside commas.
        """
        if self is Synonyms.WHOLE:
            return (name,)
        found = tuple(dict.fromkeys(clean_name(part) for part in name.split(",") if clean_name(part)))
        if not found:
            raise DataError(f"A class name must hold letters; got {name!r}.")
        return found[:1] if self is Synonyms.FIRST else found

    def repeated(self, names: Sequence[str], reader: object = None) -> list[tuple[str, ...]]:
        """Groups of names with the same phrases, so that the model cannot distinguish them.

        Args:
            names: Class names.
            reader: Text tower, by whose tokens phrases are compared; None compares by `clean_name`.
        """
        phrases = {name: self.phrases(name) for name in names}
        text = text_of([phrase for several in phrases.values() for phrase in several], reader)
        groups: dict[tuple, list[str]] = {}
        for name, several in phrases.items():
            groups.setdefault(tuple(text[phrase] for phrase in several), []).append(name)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def combine(self, names: Sequence[str], phrases: Sequence[str], vectors: torch.Tensor) -> torch.Tensor:
        """(len(phrases), E) unit vectors -> (len(names), E): of each name the mean of its phrases, as a unit vector."""
        row = {phrase: i for i, phrase in enumerate(phrases)}
        rows = [[row[phrase] for phrase in self.phrases(name)] for name in names]
        if self is not Synonyms.MEAN:
            return vectors[[one[0] for one in rows]]
        return F.normalize(torch.stack([vectors[one].mean(dim=0) for one in rows]), dim=1)


class ClassSelection(NamedTuple):
    """A vocabulary with its embeddings, as ClassEmbeddings holds them."""

    vocabulary: Vocabulary | None
    vectors: torch.Tensor
    novel: torch.Tensor


class ClassEmbeddings(nn.Module):
    """The vocabulary in use: its text embeddings and which classes are novel. Has no weight and is not saved.

    Args:
        embed_dim: Width E of the embeddings.
        background: True if "background" has an embedding of its own, after those of the classes.
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
        text_tower: Text tower of the CLIP whose image tower the model uses; in eval mode, and frozen unless
            `learn_text`.
        pixels: Normalization of the network input.
        templates: Prompt templates for calls that give none.
        vocabulary: The first vocabulary, embedded when it is first needed; None leaves it to a call.
        embeddings_file: File of text embeddings to read names from instead of embedding them; "" for none.
        cache_dir: Folder of cached text embeddings; None for none.
        metadata: Description of the towers, for checkpoints (`checkpoint.build_towers`).
        synonyms: See Synonyms.
        learn_text: The subclass lets weights of the text tower learn: training embeds the vocabulary in every step
            (`text_features`), and embeddings made before are made again.
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
        synonyms: Synonyms = Synonyms.WHOLE,
        learn_text: bool = False,
        test_augmentations: Sequence[T.Augmentation] | None = None,
    ):
        super().__init__()
        self.text_tower = text_tower.requires_grad_(False).eval()
        self.templates = tuple(templates)
        self.embeddings_file = embeddings_file
        self.cache_dir = cache_dir
        self.synonyms = synonyms
        self.learn_text = learn_text
        self._metadata = dict(metadata or {})
        self.test_augmentations = None if test_augmentations is None else T.AugmentationList(list(test_augmentations))
        self._pending = vocabulary
        self._pending_templates: Sequence[str] | None = None
        self._used_templates: Sequence[str] | None = None
        if learn_text:
            self.register_load_state_dict_post_hook(lambda model, _: model.embed_again())
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
            "vocabulary": dataset_vocabulary(names[0], training=bool(cfg.DATASETS.TRAIN)) if names else None,
            "embeddings_file": settings.EMBEDDINGS,
            "cache_dir": settings.CACHE_DIR or Path(cfg.OUTPUT_DIR) / "text_embeddings",
            "synonyms": choose(Synonyms, settings.SYNONYMS, "MODEL.VOCABULARY.SYNONYMS"),
        }

    @property
    @abstractmethod
    def classes(self) -> ClassEmbeddings:
        """The embeddings that the model classifies by."""

    @property
    def metadata(self) -> dict:
        """Description of the towers, with the fingerprint of the text tower as it is now."""
        if self.learn_text:
            self._metadata["text_fingerprint"] = self.text_tower.fingerprint()
        return self._metadata

    @metadata.setter
    def metadata(self, value: dict) -> None:
        self._metadata = value

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
            novel: Names that training has not used.

        Raises:
            DataError: No names, a name twice, or a novel name that is not among them.
        """
        self._embed(Vocabulary(names, novel=novel), templates)

    def set_default_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Use a vocabulary until another is set; its names are embedded when that is first needed."""
        self._pending, self._pending_templates = vocabulary, None

    def set_text_embeddings(self, embeddings: TextEmbeddings, novel: Iterable[str] = ()) -> None:
        """Use the classes of ready-made embeddings, in their order; "background" must be among them if needed.

        Raises:
            FingerprintMismatchError: They were made by another text encoder.
            DataError: "background" is not among them.
        """
        embeddings.require_fingerprint(self.text_tower.fingerprint())
        names = [name for name in embeddings.names if name != BACKGROUND]
        self.classes.set(Vocabulary(names, novel=novel), embeddings)
        self._pending = self._used_templates = None

    def use_dataset(self, name: str) -> None:
        """Use the classes of a registered data set, with its novel ones."""
        self._embed(dataset_vocabulary(name), None)

    def require_vocabulary(self) -> None:
        """Embed the vocabulary, if that has not happened with these weights; to be called before classifying."""
        if self._pending is not None:
            self._embed(self._pending, self._pending_templates)

    def embed_again(self) -> None:
        """Let the next `require_vocabulary` embed the vocabulary anew, because the text tower has changed."""
        if self._pending is None and self.classes.vocabulary is not None:
            self._pending, self._pending_templates = self.classes.vocabulary, self._used_templates

    def text_features(self) -> torch.Tensor:
        """(C, E) unit vectors of the classes, without background; in training of a text tower with their gradient."""
        if not (self.training and self.learn_text):
            self.require_vocabulary()
            return self.classes.require()[: len(self.vocabulary)]
        if self.vocabulary is None:
            self.classes.require()  # names the remedy
        names, templates = self.vocabulary.names, self._templates
        phrases = self._phrases(names)
        vectors = self.text_tower([prompt for phrase in phrases for prompt in build_prompts(phrase, templates)])
        vectors = average_templates(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), len(templates))
        self.embed_again()  # a step of training follows
        return self.synonyms.combine(names, phrases, vectors)

    @property
    def _templates(self) -> Sequence[str]:
        """Templates of the vocabulary in use."""
        given = self._used_templates if self._pending is None else self._pending_templates
        return self.templates if given is None else given

    def _phrases(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(phrase for name in names for phrase in self.synonyms.phrases(name)))

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

    @contextmanager
    def best_labels(self) -> Iterator[None]:
        """Context in which only the best class per pixel is used, so that scores of all classes need not be made."""
        yield

    def adapt_weights(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights of a checkpoint that this model uses; a subclass without an optional part leaves it out."""
        return weights

    def _embed(self, vocabulary: Vocabulary, templates: Sequence[str] | None) -> None:
        background = [name for name in vocabulary.names if is_background(name)] if self.classes.background else []
        if background:
            raise ConfigurationError(
                f"{BACKGROUND!r} is added by the model itself; leave {background[0]!r} out of the names, or rename it."
            )
        names = self.classes.names_of(vocabulary)
        phrases = self._phrases(names)
        prompts = self.templates if templates is None else templates
        if self.embeddings_file and templates is None:
            embeddings = load_text_embeddings(self.embeddings_file, phrases)
            embeddings.require_fingerprint(self.text_tower.fingerprint())
            if not embeddings.fingerprint:
                logger.warning(
                    "%s does not say which text encoder made it; another one's embeddings give near-zero accuracy. "
                    "denserc embed --compare tells.",
                    self.embeddings_file,
                )
        else:
            embeddings = embed_names(self.text_tower, phrases, prompts, cache_dir=self.cache_dir)
            warn_of_cut_texts(phrases, prompts, self.text_tower)
        # After the embedding, because a tokenizer that had to be fetched is known only then.
        warn_of_same_texts(self.synonyms.repeated(vocabulary.names, self.text_tower))
        vectors = self.synonyms.combine(names, phrases, embeddings.select(phrases))
        self.classes.set(vocabulary, TextEmbeddings(names, vectors, embeddings.fingerprint, embeddings.templates))
        self._pending, self._used_templates = None, templates
