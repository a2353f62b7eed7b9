"""The demo's pictures: detections, similarity maps, curves."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from ...construction import DenseEncoder, load_checkpoint
from ...predictor import Predictor
from ...visualization import (
    DrawnObjects,
    detected_objects,
    detection_page,
    draw_detections,
    grid_of_pictures,
    pca_picture,
)
from ...visualization import similarity_picture as similarity_of
from ..scenes import Scene, compose_scene
from ..world import NOVEL_NAMES, Domain, rename
from .stages import CONTENDERS, Contender, Places

SCENES_SEED = 70_001  # fresh scenes: no data set of the demo draws from it
SHOWN = 0.2  # detections below this score are not drawn
MOST = 7  # detections drawn in one picture
OVERLAP = 0.5  # of two boxes that overlap more, whatever their classes, the better one is drawn


def fresh_scenes(count: int, domain: Domain = Domain.MAIN, things: int | None = None) -> list[Scene]:
    """Scenes that no stage has seen."""
    return [
        compose_scene(np.random.default_rng([SCENES_SEED, i, domain is Domain.MAIN]), domain, count=things)
        for i in range(count)
    ]


def truth_of(scene: Scene) -> DrawnObjects:
    """Names of a scene's contents."""
    names = [rename(thing.name, scene.domain) for thing in scene.things]
    novel = [thing.name in NOVEL_NAMES for thing in scene.things]
    boxes = []
    for index in range(len(scene.things)):
        rows, columns = np.nonzero(scene.thing_mask(index))
        boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return DrawnObjects(np.array(boxes), names, novel)


def load_predictor(places: Places, seed: int, contender: Contender, names: Sequence[str]) -> Predictor:
    """A contender's detector, looking for these names."""
    novel = [name for name in names if name in NOVEL_NAMES]
    return Predictor(places.detector(seed, contender), names, novel=novel, device="cpu", threshold=SHOWN)


def detect(predictor: Predictor, picture: np.ndarray) -> DrawnObjects:
    """The best detections in a picture (H, W, 3) uint8 RGB, one label per place."""
    return detected_objects(predictor(picture), predictor.vocabulary, overlap=OVERLAP).best(MOST)


def compare_detectors(places: Places, seed: int, names: Sequence[str], count: int = 4) -> np.ndarray:
    """A page of fresh scenes, ground truth and every contender's detections side by side."""
    scenes = fresh_scenes(count, things=5)
    found = {}
    for contender in CONTENDERS:
        detector = load_predictor(places, seed, contender, names)
        found[contender.title] = [detect(detector, scene.image) for scene in scenes]
    return detection_page([scene.image for scene in scenes], [truth_of(scene) for scene in scenes], found)


def first_look(count: int = 3) -> tuple[np.ndarray, list[DrawnObjects]]:
    """Fresh scenes, ground truth and what the packaged detector finds there, before anything is trained.

    Returns:
        The page, and the detections of each scene.
    """
    predictor = Predictor("miniature", device="cpu", threshold=SHOWN)
    scenes = fresh_scenes(count, things=5)
    found = [detect(predictor, scene.image) for scene in scenes]
    truths = [truth_of(scene) for scene in scenes]
    return detection_page([scene.image for scene in scenes], truths, {"packaged detector": found}), found


def ask(places: Places, seed: int, names: Sequence[str], count: int = 6) -> tuple[np.ndarray, list[list[dict]]]:
    """Fresh scenes searched for names given by the user.

    Returns:
        The page, and for each scene its detections as {"name", "score", "box"}.
    """
    detector = load_predictor(places, seed, CONTENDERS[-1], names)
    panels, answers = [], []
    for scene in fresh_scenes(count, things=5):
        found = detect(detector, scene.image)
        panels.append(draw_detections(scene.image, found))
        answers.append(
            [
                {"name": name, "score": round(score, 3), "box": [round(v, 1) for v in box]}
                for name, score, box in zip(found.labels, found.scores, found.boxes.tolist(), strict=True)
            ]
        )
    half = (count + 1) // 2
    return grid_of_pictures([panels[:half], panels[half:]]), answers


@torch.no_grad()
def before_and_after(places: Places, seed: int, count: int = 3) -> list[np.ndarray]:
    """Each encoder's similarity to one point inside a thing, and its principal components, on fresh scenes."""
    encoders = {c.title: load_checkpoint(places.encoder(seed, c)).encoder.eval() for c in CONTENDERS}
    pictures = []
    for scene in fresh_scenes(count, things=3):
        maps = {title: _dense(encoder, scene.image) for title, encoder in encoders.items()}
        largest = max(range(len(scene.things)), key=lambda i: scene.thing_mask(i).sum())
        depth = cv2.distanceTransform(scene.thing_mask(largest).astype(np.uint8), cv2.DIST_L2, 3)
        point = np.unravel_index(depth.argmax(), depth.shape)  # the innermost pixel
        pictures.append(similarity_of(scene.image, maps, tuple(int(v) for v in point)))
        pictures.append(pca_picture(scene.image, maps))
    return pictures


def _dense(encoder: DenseEncoder, picture: np.ndarray) -> torch.Tensor:
    image = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
    return encoder(encoder.tower.pixels.normalize(image)[None])[0]
