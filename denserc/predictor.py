"""Open-vocabulary predictions on photographs: from a checkpoint and class names to results in the photo's pixels."""

import inspect
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image
from torch import nn

from .api import load_model
from .data.images.opening import MAX_PIXELS
from .data.images.pictures import Picture, as_pixels
from .engine import resolve_device
from .openvocab import OpenVocabularyModel
from .openvocab.vocabulary import ClassSelection
from .structures import ConfigurationError, DataError, Vocabulary
from .visualization import class_colors, detected_objects, draw_detections, draw_labels, draw_legend
from .visualization.canvas import enlarge

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()  # of models that predictors share


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The classes of a picture's pixels; all tensors are on the CPU.

    Args:
        labels: (h, w) int64 indices of `class_names`; len(class_names) for background, where the model has one.
        scores: (h, w) float32 score of the best class, on the model's own scale: probability of CATSeg, cosine of
            DenseSegmenter. None if the model gives labels only.
        class_names: Names of the labels.
    """

    labels: torch.Tensor
    scores: torch.Tensor | None
    class_names: tuple[str, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """(h, w), as of Instances."""
        return tuple(self.labels.shape)

    def fractions(self) -> dict[str, float]:
        """Share of the pixels, 0 to 1, of each class that occurs, largest first; background is left out."""
        counts = torch.bincount(self.labels.flatten(), minlength=len(self.class_names)).tolist()
        pairs = zip(self.class_names, counts, strict=False)  # a count for background may follow
        shares = {name: count / self.labels.numel() for name, count in pairs if count}
        return dict(sorted(shares.items(), key=lambda pair: -pair[1]))


class Predictor:
    """Find the classes of a vocabulary in pictures of any size.

    A picture is resized as in the model's evaluation, so its own size does not decide the size of the network input.
    Calls are thread-safe: one forward pass of a model runs at a time, and a call keeps the vocabulary that it began
    with. Predictors that share one loaded model have vocabularies of their own.

    Example::

        predictor = denserc.Predictor("model_final.pth", names=["red cup", "striped ball"])
        detections = predictor("photo.jpg")
        for name, score, box in zip(detections.class_names, detections.scores, detections.pred_boxes):
            print(name, float(score), box.tolist())  # box: x1, y1, x2, y2 in pixels of photo.jpg

    With supervision: `supervision.Detections.from_detectron2({"instances": detections})`. With Detectron2:
    `Visualizer(pixels, Metadata(thing_classes=predictor.names)).draw_instance_predictions(detections)`.

    A model that segments, such as CATSeg or DenseSegmenter, gives a `Segmentation` instead of Instances::

        segmentation = denserc.Predictor("catseg.pth", names=["sky", "red cup"])("photo.jpg")
        print(segmentation.fractions(), segmentation.labels.shape)  # (h, w) of photo.jpg

    Args:
        source: Path of a checkpoint, name of a packaged model, or a loaded model, which is set to eval mode.
        names: Class names; None for the model's own vocabulary at the time of each call.
        templates: Prompt templates with {} for the name; None for the model's own.
        novel: Names that training has not used, if known; they are scored and drawn accordingly.
        device: Device of the model. "auto" is the GPU where there is one, for a loaded model the device it is on.
        threshold: Lowest score of a detection that is returned, 0 to 1; 0 for all that the model gives. It has no
            effect on a segmentation, see `background`.
        batch_size: Most pictures in one forward pass. Only pictures of one padded size share it, so results are
            those of one by one, up to rounding.
        background: Label len(names) of a segmentation, for pixels of no class: "none", "prompt" (where the name
            "background" has the best score) or "threshold" (where no class reaches `background_threshold`). None for
            the model's own. It needs `names`.
        background_threshold: Probability, 0 to 1; None for the model's own. CATSeg scores each class by itself;
            DenseSegmenter's probability is a share among all names.
        max_pixels: Most pixels of a file or Pillow image that is read; each takes up to 12 bytes of memory.

    Raises:
        CheckpointError: The source is not the checkpoint of a model.
        ConfigurationError: A value out of range, a model that is not an OpenVocabularyModel, or a background for a
            detector.
    """

    def __init__(
        self,
        source: str | Path | OpenVocabularyModel,
        names: Sequence[str] | None = None,
        *,
        templates: Sequence[str] | None = None,
        novel: Iterable[str] = (),
        device: str = "auto",
        threshold: float = 0.2,
        batch_size: int = 1,
        background: str | None = None,
        background_threshold: float | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        if not 0 <= threshold <= 1:
            raise ConfigurationError(f"threshold must be a score from 0 to 1; got {threshold}.")
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1; got {batch_size}.")
        if background_threshold is not None and (background != "threshold" or not 0 < background_threshold <= 1):
            raise ConfigurationError(
                "background_threshold is a probability above 0 and at most 1, with background='threshold'; got "
                f"{background_threshold} with background={background!r}."
            )
        self.model = _model(source, device)
        self._options: dict = {}
        if background is not None:
            self._options = _background_options(self.model, names, background, background_threshold)
        self.templates = templates
        self.threshold = threshold
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self._lock = _LOCKS.setdefault(self.model, threading.RLock())
        self._selection: ClassSelection | None = None
        if names is not None:
            self.set_vocabulary(names, novel=novel)

    def set_vocabulary(
        self, names: Sequence[str], templates: Sequence[str] | None = None, novel: Iterable[str] = (), **options
    ) -> None:
        """Find these classes from now on; changes no weight.

        Args:
            names: Class names; label i is the i-th.
            templates: Prompt templates with {} for the name; None for those of the constructor.
            novel: Names that training has not used.
            options: Further arguments of the model's own `set_vocabulary`, such as `background="prompt"`; those of the
                constructor are the default.

        Raises:
            DataError: No names, a name twice, or a novel name that is not among them.
            ConfigurationError: One string instead of a list, or "background" among the names.
        """
        if isinstance(names, str):
            raise ConfigurationError(f"names must be a list of class names, as [{names!r}]; got one string.")
        with self._lock:
            options = {**self._options, **options}
            self.model.set_vocabulary(names, self.templates if templates is None else templates, novel, **options)
            self._selection = self.model.classes.selection()

    def use_dataset(self, name: str) -> None:
        """Find the classes of a registered data set from now on, as in its evaluation.

        Raises:
            DataError: The name is not registered, or without classes.
        """
        with self._lock:
            self.model.use_dataset(name)
            self._selection = self.model.classes.selection()

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Classes that are looked for; None if there are none yet."""
        return self.model.vocabulary if self._selection is None else self._selection.vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """Class names; `pred_classes` index them."""
        return () if self.vocabulary is None else self.vocabulary.names

    def __call__(
        self, images: Picture | Sequence[Picture], *, frame: tuple[int, int] | None = None
    ) -> Instances | Segmentation | list[Instances] | list[Segmentation]:
        """Detections in one picture, or its segmentation, or in each of a list or tuple of pictures.

        Args:
            images: Path, Pillow image of any mode, (h, w, 3) uint8 RGB array or (3, h, w) uint8 RGB tensor, or a list
                of them. Files and Pillow images are turned upright by EXIF and become RGB as in training: see
                `read_rgb`. Arrays and tensors of other shapes or types are refused, and so are addresses on the web.
            frame: (h, w) in whose pixels results are given; None for each picture's own. A small frame saves memory
                where the model has masks or segments.

        Returns:
            Detectron2's Instances on the CPU, or a list of them. They have pred_boxes (N, 4), scores (N,), pred_classes
            (N,), class_names (N strings), and pred_masks (N, h, w) bool if the model has masks. A model that segments
            returns a Segmentation, or a list of them.

        Raises:
            DataError: A picture that cannot be read or is not one of these kinds.
            ConfigurationError: No class names were given yet.
        """
        selection = self._current()
        pictures = images if isinstance(images, (list, tuple)) else [images]
        results: list[Instances | Segmentation | None] = [None] * len(pictures)
        waiting: dict[tuple[int, int], list[tuple[int, dict]]] = {}
        for index, picture in enumerate(pictures):
            one = self.model.prepare(self.read(picture), frame)
            one["score_threshold"] = self.threshold
            size = self.model.padded_size(tuple(one["image"].shape[-2:]))
            waiting.setdefault(size, []).append((index, one))
            if len(waiting[size]) == self.batch_size:
                self._run(waiting.pop(size), selection, results)
        for group in waiting.values():
            self._run(group, selection, results)
        return results if isinstance(images, (list, tuple)) else results[0]

    def draw(
        self,
        image: Picture,
        result: Instances | Segmentation | None = None,
        *,
        overlap: float = 0.5,
        min_side: int = 384,
    ) -> Image.Image:
        """Draw boxes, class names and scores, and masks if there are any; novel classes red, others blue.

        Of a segmentation, tint the pixels of each class and add a legend of those that occur below the picture.

        Args:
            image: Picture as in a call.
            result: Result of a call; None to predict now.
            overlap: Largest IoU of two drawn boxes of any classes, the better first; 1 draws all.
            min_side: A picture whose shorter side has fewer pixels is enlarged by a whole factor, so that text is
                legible.

        Raises:
            DataError: The result is in the pixels of a picture of another size.
        """
        pixels = self.read(image)
        if result is None:
            result = self(pixels)
        if tuple(result.image_size) != pixels.shape[:2]:
            raise DataError(
                f"The result is in a frame of {tuple(result.image_size)} (h, w) pixels, the picture has "
                f"{pixels.shape[:2]}: pass the picture that it belongs to."
            )
        vocabulary = self._current().vocabulary
        if isinstance(result, Segmentation):
            return Image.fromarray(_tinted(pixels, result, vocabulary.novel, min_side))
        objects = detected_objects(result, vocabulary, overlap=overlap)
        return Image.fromarray(draw_detections(pixels, objects, min_side=min_side))

    def read(self, picture: Picture) -> np.ndarray:
        """A picture of any accepted kind as (h, w, 3) uint8 RGB, upright; see `as_pixels`."""
        return as_pixels(picture, max_pixels=self.max_pixels)

    def _current(self) -> ClassSelection:
        """The vocabulary of a call."""
        with self._lock:
            if self._selection is not None:
                return self._selection
            if self.model.vocabulary is None:
                raise ConfigurationError(
                    "This Predictor has no class names: give names=[...] or call set_vocabulary([...]) first."
                )
            self.model.require_vocabulary()
            return self.model.classes.selection()

    def _run(self, group: list[tuple[int, dict]], selection: ClassSelection, results: list) -> None:
        """One forward pass; puts each result in its place."""
        with self._lock, torch.no_grad(), self.model.best_labels():
            if self.model.classes.vocabulary is not selection.vocabulary:
                self.model.classes.restore(selection)
            outputs = self.model([one for _, one in group])
        for (index, _), output in zip(group, outputs, strict=True):
            results[index] = self._result(output, selection.vocabulary.names)

    def _result(self, output: dict, names: tuple[str, ...]) -> Instances | Segmentation:
        """The result for one picture; decided by what Detectron2 calls the model's output, not by the model's type."""
        if "instances" not in output and "sem_seg" not in output:
            raise ConfigurationError(
                f"{type(self.model).__name__} gives {sorted(output)}; Predictor reads 'instances' or 'sem_seg' "
                "(Detectron2's names)."
            )
        if "instances" not in output:
            return _segmentation(output, names)
        found = output["instances"]
        found = found[found.scores >= self.threshold].to("cpu")
        found.class_names = ClassNames(names[label] for label in found.pred_classes.tolist())
        return found


def _segmentation(output: dict, names: tuple[str, ...]) -> Segmentation:
    """From "sem_seg", (C, h, w) scores or (h, w) labels, and in the second case "scores" (h, w) if there are any."""
    found = output["sem_seg"]
    if found.ndim == 3:
        scores, labels = found.max(dim=0)
    else:
        scores, labels = output.get("scores"), found
    return Segmentation(labels.long().cpu(), None if scores is None else scores.float().cpu(), names)


def _background_options(model: OpenVocabularyModel, names, background: str, threshold: float | None) -> dict:
    """Arguments of the model's `set_vocabulary`.

    Raises:
        ConfigurationError: No names, or a model without a background.
    """
    if "background" not in inspect.signature(model.set_vocabulary).parameters:
        raise ConfigurationError(
            f"background={background!r} is for a model that labels pixels, such as CATSeg; {type(model).__name__} has "
            "detections, and threshold= leaves out the uncertain ones."
        )
    if names is None:
        raise ConfigurationError(f"background={background!r} belongs to a vocabulary: give names too.")
    return {"background": background, "background_threshold": threshold}


def _tinted(pixels: np.ndarray, result: Segmentation, novel: Iterable[str], min_side: int) -> np.ndarray:
    """A picture with its label map over it, enlarged to `min_side`, and the legend below."""
    colors = class_colors(len(result.class_names))
    large, factor = enlarge(pixels, min_side)
    labels = result.labels.numpy()
    drawn = draw_labels(large, labels.repeat(factor, axis=0).repeat(factor, axis=1), colors)
    shown = [label for label in np.unique(labels).tolist() if label < len(result.class_names)]
    names = [result.class_names[label] for label in shown]
    legend = draw_legend(names, colors[shown], [name in novel for name in names], width=drawn.shape[1])
    return np.concatenate([drawn, legend])


class ClassNames(tuple):
    """A name per detection, as a field of Instances: is indexed as tensors are."""

    def __getitem__(self, item):
        """A name for an integer; ClassNames for a slice, a mask (N,) or indices, as tensor, array or list."""
        if isinstance(item, slice):
            return ClassNames(super().__getitem__(item))
        indices = np.arange(len(self))[item.cpu().numpy() if isinstance(item, torch.Tensor) else item]
        if indices.ndim == 0:
            return super().__getitem__(int(indices))
        return ClassNames(tuple.__getitem__(self, i) for i in indices.tolist())

    @staticmethod
    def cat(parts: Sequence["ClassNames"]) -> "ClassNames":
        """Names one after the other, for `Instances.cat`."""
        return ClassNames(name for part in parts for name in part)


def _model(source: str | Path | OpenVocabularyModel, device: str) -> OpenVocabularyModel:
    if isinstance(source, (str, Path)):
        return load_model(source, device=device)
    if not isinstance(source, OpenVocabularyModel):
        raise ConfigurationError(
            f"A Predictor needs the path of a checkpoint or an OpenVocabularyModel; got {type(source).__name__}."
        )
    return source.eval() if device == "auto" else source.eval().to(resolve_device(device))
