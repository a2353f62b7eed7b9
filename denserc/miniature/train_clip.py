"""Train the miniature CLIP on captioned crops of freshly drawn scenes (`denserc lab train-clip`).

Two losses: open_clip's contrastive loss between crops and captions, and a word contrast, in which a crop with one
clear subject is nearer to the subject's texture, color and shape word than to the other words of that kind. (A batch
of 128 captions is told apart by only colors and stuff; without the second loss shapes were still unlearnt after 600
steps.) Muon and AdamW, warm-up and cosine, bfloat16 on the CPU. Scenes are drawn from all 256 combinations of
texture, color and shape, as the web shows a CLIP more than any detection set labels; one scene in five has the
transfer domain's look. Every step draws some new scenes, which replace the oldest.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from timm.layers.patch_dropout import PatchDropoutWithIndices
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ..encoders.miniature import create_miniature
from ..structures.files import atomic_path, write_json
from .captions import word_captions
from .crops import View, captioned_crop
from .scenes import MAX_THINGS, compose_scene
from .world import ALL_THINGS, COLOURS, SHAPES, TEXTURES, Domain, Thing
from .zero_shot import to_input, zero_shot_accuracy


@dataclass(frozen=True)
class Recipe:
    """Every number of the training.

    Args:
        steps, batch: Number of steps, and crops per step.
        words: Weight of the word contrast.
        rate, muon_rate, decay, warmup: Peak rates of AdamW and Muon, weight decay of both, and the steps of linear
            warm-up before the cosine.
        pool, fresh: Scenes held at once, and how many of them are replaced each step.
        transfer_share: Share of scenes in the look of the transfer domain.
        easy: Share of the training over which it goes from crops of lone things to crops of everything.
        masked, masked_until: Share of patches left out, as in FLIP, and for what share of the training: twice the
            pictures in the same time.
        seed: Seed of weights and data.
    """

    steps: int = 2000
    batch: int = 128
    words: float = 1.0
    rate: float = 1.2e-3
    muon_rate: float = 5e-3
    decay: float = 0.1
    warmup: int = 100
    pool: int = 2400
    fresh: int = 8
    transfer_share: float = 0.2
    easy: float = 0.5
    masked: float = 0.5
    masked_until: float = 0.75
    seed: int = 0


class ScenePool:
    """Scenes to cut crops from; the oldest are replaced as training goes on."""

    def __init__(self, recipe: Recipe):
        self._rng = np.random.default_rng([recipe.seed, 1])
        self._share = recipe.transfer_share
        self._side = 64
        self.ease = 1.0
        self._views = [self._draw() for _ in tqdm(range(recipe.pool), desc="drawing scenes", leave=False)]
        self._oldest = 0

    def _draw(self) -> View:
        domain = Domain.TRANSFER if self._rng.random() < self._share else Domain.MAIN
        most = 1 + round((MAX_THINGS - 1) * (1 - self.ease))
        count = int(self._rng.integers(1, most + 1))
        return View.of(compose_scene(self._rng, domain, things=ALL_THINGS, count=count))

    def refresh(self, count: int) -> None:
        """Replace the `count` oldest scenes by new ones."""
        for _ in range(count):
            self._views[self._oldest] = self._draw()
            self._oldest = (self._oldest + 1) % len(self._views)

    def batch(self, size: int) -> tuple[torch.Tensor, list[str], list[Thing | None]]:
        """`size` crops of different scenes, (size, 3, 64, 64) normalized, their captions and their clear subjects."""
        chosen = self._rng.choice(len(self._views), size, replace=size > len(self._views))
        share = 0.5 + 0.45 * self.ease
        crops = [captioned_crop(self._views[i], self._side, self._rng, thing_share=share) for i in chosen]
        return to_input([c.image for c in crops]), [c.caption for c in crops], [c.subject for c in crops]

    def words(self) -> list[list[str]]:
        """The captions of the word contrast: textures, colors, shapes."""
        return word_captions(self._rng)


def word_contrast(
    images: torch.Tensor, words: Sequence[torch.Tensor], subjects: Sequence[Thing | None], scale: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of each subject's texture, color and shape among the words of its kind, averaged.

    Args:
        images: (B, E) unit vectors.
        words: Unit vectors of the texture, color and shape words, each (number of words, E).
        subjects: B things or None; crops without a subject are left out.
        scale: Inverse temperature of the cosines.
    """
    rows = [i for i, subject in enumerate(subjects) if subject is not None]
    if not rows:
        return images.sum() * 0
    losses = []
    for vectors, names, kind in zip(words, (TEXTURES, COLOURS, SHAPES), ("texture", "colour", "shape"), strict=True):
        labels = torch.tensor([names.index(getattr(subjects[i], kind)) for i in rows])
        losses.append(F.cross_entropy(scale * images[rows] @ vectors.T, labels))
    return torch.stack(losses).mean()


def initialise(model: nn.Module) -> None:
    """Random weights that suit a narrow tower, in place; the caller seeds torch.

    EVA-02's own deviation of 0.02 is meant for widths of 768 and more. At 128 it makes attention uniform and
    positions faint; after 200 steps it names 12 % of the things, with these weights 16 %.
    """
    trunk = model.visual.trunk
    for module in trunk.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for depth, block in enumerate(trunk.blocks, start=1):
        for last in (block.attn.proj, block.mlp.fc2):
            last.weight.data.div_(math.sqrt(2 * depth))
    nn.init.trunc_normal_(trunk.pos_embed, std=0.5)
    nn.init.trunc_normal_(trunk.cls_token, std=0.5)


def learning_rate(step: int, recipe: Recipe) -> float:
    """The share of the peak rates at a step: linear warm-up, then a cosine to zero."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for everything else; gains, biases and positions do not decay."""
    inner, decayed, free = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "blocks." in name:
            inner.append(parameter)
        elif parameter.ndim >= 2 and "pos" not in name and "cls_token" not in name:
            decayed.append(parameter)
        else:
            free.append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": free, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
    muon = torch.optim.Muon(
        inner, lr=recipe.muon_rate, weight_decay=recipe.decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for optimizer in (adamw, muon):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [adamw, muon]


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all weights as float16 safetensors, atomically."""
    state = {key: value.detach().to(torch.float16).contiguous() for key, value in model.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(state, partial)


def train_clip(
    out: Path, recipe: Recipe, *, evaluate_every: int = 300, evaluation_scenes: int = 50, log_every: int = 20
) -> dict:
    """Train from scratch.

    Args:
        out: Folder for `miniature_clip.safetensors` and `metrics.json`, both rewritten at every evaluation.
        recipe: All numbers of the training.
        evaluate_every: Steps between zero-shot evaluations.
        evaluation_scenes: Fresh scenes of each domain that these use.
        log_every: Steps between entries of the loss curve.

    Returns:
        What `metrics.json` holds: the recipe, the loss curve, the zero-shot accuracies and the seconds taken.
    """
    out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    model, tokenizer = create_miniature(None, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    initialise(model)
    for module in model.visual.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # bfloat16's fused attention takes 4 times as long backwards on a CPU
    model.visual.trunk.patch_drop = PatchDropoutWithIndices(recipe.masked, num_prefix_tokens=1)
    model.train()
    optimizers = _optimizers(model, recipe)
    loss_of = ClipLoss()
    pool = ScenePool(recipe)
    metrics = {"recipe": asdict(recipe), "loss": [], "zero_shot": []}
    start = time.monotonic()
    progress = tqdm(range(recipe.steps), desc="miniature CLIP", unit="step", mininterval=5)
    for step in progress:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak"] * learning_rate(step, recipe)
        if step == int(recipe.masked_until * recipe.steps):
            model.visual.trunk.patch_drop = None
        pool.ease = max(0.0, 1 - step / max(1, recipe.easy * recipe.steps))
        pool.refresh(recipe.fresh)
        images, captions, subjects = pool.batch(recipe.batch)
        words = pool.words()
        texts = captions + [word for kind in words for word in kind]
        with torch.autocast("cpu", torch.bfloat16):
            image_features = model.encode_image(images, normalize=True)
            text_features = model.encode_text(tokenizer(texts), normalize=True)
        image_features, scale = image_features.float(), model.logit_scale.exp()
        caption_features, *word_features = text_features.float().split([len(captions), *map(len, words)])
        loss = loss_of(image_features, caption_features, scale)
        loss = loss + recipe.words * word_contrast(image_features, word_features, subjects, scale)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
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
            write_json(out / "metrics.json", metrics, indent=1)
            tqdm.write(f"step {step + 1}: zero-shot {scores}, {metrics['seconds']:.0f} s")
    return metrics
