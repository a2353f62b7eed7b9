"""Zero-shot accuracy of the miniature CLIP on crops of fresh scenes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..structures import CLIP_PIXELS
from .crops import View, cut, widened
from .scenes import compose_scene
from .world import CLASS_NAMES, STUFF, Domain, rename

PROMPT = "a photo of {}."


def to_input(crops: Sequence[np.ndarray]) -> torch.Tensor:
    """B crops (S, S, 3) uint8 RGB -> (B, 3, S, S) float32, normalized for CLIP."""
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return CLIP_PIXELS.normalize(pixels)


def labelled_crops(domain: Domain, scenes: int, side: int, seed: int) -> dict[str, tuple[list[np.ndarray], list[int]]]:
    """Crops with labels out of fresh scenes.

    Returns:
        "things": crops around things with a margin of 15 % a side and labels into CLASS_NAMES;
        "stuff": cells of a 4 x 4 grid filled by one stuff to at least 90 %, labels into STUFF.
    """
    things, stuff = ([], []), ([], [])
    for i in range(scenes):
        view = View.of(compose_scene(np.random.default_rng([seed, i]), domain))
        scene = view.scene
        h, w = scene.segments.shape
        for thing, box in zip(scene.things, view.boxes, strict=True):
            things[0].append(cut(scene.image, widened(box, (1.3, 1.3), (h, w)), side))
            things[1].append(CLASS_NAMES.index(thing.name))
        for j in range(16):
            y, x = h // 4 * (j // 4), w // 4 * (j % 4)
            share = np.bincount(scene.segments[y : y + h // 4, x : x + w // 4].ravel(), minlength=2) / (h // 4 * w // 4)
            for k, name in enumerate(scene.stuff):
                if share[k] >= 0.9:
                    stuff[0].append(cut(scene.image, (x, y, x + w // 4, y + h // 4), side))
                    stuff[1].append(STUFF.index(name))
    return {"things": things, "stuff": stuff}


@torch.no_grad()
def zero_shot_accuracy(
    model: nn.Module, tokenizer: Callable, domain: Domain, *, scenes: int = 80, seed: int = 90_001
) -> dict[str, float]:
    """Top-1 in percent, by the names of the domain: {"things": 65 ways, "stuff": 8 ways}.

    Args:
        model: An open_clip CLIP.
        tokenizer: Sentences -> (T, L) ids.
        domain: Domain whose look and names are used.
        scenes: Number of fresh scenes.
        seed: Seed of the scenes; must differ from the seeds of the training.
    """
    training = model.training
    model.eval()
    side = model.visual.image_size[0]
    result = {}
    for kind, (crops, labels) in labelled_crops(domain, scenes, side, seed).items():
        names = CLASS_NAMES if kind == "things" else STUFF
        article = "a " if kind == "things" else ""
        prompts = [PROMPT.format(article + rename(name, domain)) for name in names]
        text = F.normalize(model.encode_text(tokenizer(prompts)), dim=-1)
        guesses = []
        for start in range(0, len(crops), 256):
            images = F.normalize(model.encode_image(to_input(crops[start : start + 256])), dim=-1)
            guesses.append((images @ text.T).argmax(1))
        right = torch.cat(guesses) == torch.tensor(labels)
        result[kind] = 100 * right.float().mean().item()
    model.train(training)
    return result
