"""Train the miniature CLIP on captioned crops of freshly drawn scenes: `python -m denserc.miniature.train_clip`.

The recipe: open_clip's contrastive loss, AdamW, warm-up and cosine, bfloat16 on the CPU. Scenes are drawn from
all 256 combinations of texture, colour and shape, as the web shows a CLIP more than any detection set labels;
one scene in five has the transfer domain's look. Every step draws some new scenes, which replace the oldest.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from ..encoders.miniature import create_miniature
from .crops import View, captioned_crop
from .scenes import compose_scene
from .world import ALL_THINGS, Domain
from .zero_shot import to_input, zero_shot_accuracy


@dataclass(frozen=True)
class Recipe:
    """Every number of the training.

    Args:
        steps, batch: length of the training, and crops a step.
        rate, decay, warmup: AdamW's peak rate and weight decay, and the steps of linear warm-up before the cosine.
        pool, fresh: scenes held at once, and how many of them are replaced each step.
        transfer_share: share of scenes in the look of the transfer domain.
        seed: of weights and data.
    """

    steps: int = 2200
    batch: int = 128
    rate: float = 1.5e-3
    decay: float = 0.1
    warmup: int = 150
    pool: int = 2400
    fresh: int = 8
    transfer_share: float = 0.2
    seed: int = 0


class ScenePool:
    """Scenes to cut crops from; the oldest are replaced as training goes on."""

    def __init__(self, recipe: Recipe):
        self._rng = np.random.default_rng([recipe.seed, 1])
        self._share = recipe.transfer_share
        self._side = 64
        self._views = [self._draw() for _ in tqdm(range(recipe.pool), desc="drawing scenes", leave=False)]
        self._oldest = 0

    def _draw(self) -> View:
        domain = Domain.TRANSFER if self._rng.random() < self._share else Domain.MAIN
        return View.of(compose_scene(self._rng, domain, things=ALL_THINGS))

    def refresh(self, count: int) -> None:
        """Replace the `count` oldest scenes by new ones."""
        for _ in range(count):
            self._views[self._oldest] = self._draw()
            self._oldest = (self._oldest + 1) % len(self._views)

    def batch(self, size: int) -> tuple[torch.Tensor, list[str]]:
        """`size` crops of different scenes, (size, 3, 64, 64) normalised, and their captions."""
        chosen = self._rng.choice(len(self._views), size, replace=size > len(self._views))
        crops, captions = zip(*(captioned_crop(self._views[i], self._side, self._rng) for i in chosen), strict=True)
        return to_input(crops), list(captions)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * progress))


def _parameter_groups(model: nn.Module, decay: float) -> list[dict]:
    """Matrices decay; gains, biases, positions and the temperature do not."""
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim >= 2 and "pos" not in name and "cls_token" not in name else free).append(parameter)
    return [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]


def save_weights(model: nn.Module, path: Path) -> None:
    """All weights as float16 safetensors, replacing the file in one move."""
    state = {key: value.detach().to(torch.float16).contiguous() for key, value in model.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(state, part)
    part.replace(path)


def train_clip(
    out: Path, recipe: Recipe, *, evaluate_every: int = 300, evaluation_scenes: int = 80, log_every: int = 20
) -> dict:
    """Train from scratch.

    Args:
        out: folder for `miniature_clip.safetensors` and `metrics.json`, both rewritten at every evaluation.
        recipe: all numbers.
        evaluate_every: steps between zero-shot evaluations.
        evaluation_scenes: fresh scenes of each domain that these use.
        log_every: steps between entries of the loss curve.

    Returns:
        What `metrics.json` holds: the recipe, the loss curve, the zero-shot accuracies and the seconds taken.
    """
    out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    model, tokenizer = create_miniature(None, seed=recipe.seed)
    for module in model.visual.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # bfloat16's fused attention takes 4 times as long backwards on a CPU
    model.train()
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, recipe.decay), lr=recipe.rate, betas=(0.9, 0.98), eps=1e-6, fused=True
    )
    loss_of = ClipLoss()
    pool = ScenePool(recipe)
    metrics = {"recipe": asdict(recipe), "loss": [], "zero_shot": []}
    start = time.monotonic()
    progress = tqdm(range(recipe.steps), desc="miniature CLIP", unit="step", mininterval=5)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        pool.refresh(recipe.fresh)
        images, captions = pool.batch(recipe.batch)
        with torch.autocast("cpu", torch.bfloat16):
            image_features = model.encode_image(images, normalize=True)
            text_features = model.encode_text(tokenizer(captions), normalize=True)
        loss = loss_of(image_features.float(), text_features.float(), model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        last = step + 1 == recipe.steps
        if step % log_every == 0 or last:
            metrics["loss"].append([step, round(loss.item(), 4)])
            progress.set_postfix(loss=f"{loss.item():.3f}")
        if (step + 1) % evaluate_every == 0 or last:
            scores = {
                domain.value: zero_shot_accuracy(model, tokenizer, domain, scenes=evaluation_scenes)
                for domain in Domain
            }
            metrics["zero_shot"].append({"step": step + 1, **scores})
            metrics["seconds"] = round(time.monotonic() - start, 1)
            save_weights(model, out / "miniature_clip.safetensors")
            (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
            tqdm.write(f"step {step + 1}: zero-shot {scores}, {metrics['seconds']:.0f} s")
    return metrics


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/miniature_clip"), help="folder of weights and metrics")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--rate", type=float, default=Recipe.rate)
    parser.add_argument("--evaluate-every", type=int, default=300)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=2, help="threads of the training")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = Recipe(steps=args.steps, batch=args.batch, rate=args.rate, seed=args.seed)
    train_clip(args.out, recipe, evaluate_every=args.evaluate_every)


if __name__ == "__main__":
    main()
