"""Inputs of benchmarks.cost_model, each counted, measured or assumed.

counted: multiply-accumulates and parameters, from the models' shapes (benchmarks.counts). measured: loader, scoring and
steps of this repository, on a CPU. assumed: everything about GPUs and links (`Assumed`), as no cluster was available.
"""

from dataclasses import dataclass

from benchmarks.counts import DetectorCounts, DistillationCounts
from denserc.distillation.data.regions import GridRule, grid_choices

LVIS_CLASSES = 1203


@dataclass(frozen=True)
class Assumed:
    """Assumptions without a measurement of ours, see MEANING; each is an option of the command line."""

    peak: float = 312.0
    utilisation: float = 0.40
    inside: float = 100.0
    between: float = 25.0
    per_machine: int = 8

    def compute_seconds(self, macs: float) -> float:
        """Seconds of `macs` multiply-accumulates on one GPU."""
        return 2 * macs / (1e12 * self.peak * self.utilisation)

    def ring_seconds(self, sent: float, gpus: int) -> float:
        """Seconds in which each GPU sends `sent` bytes."""
        return sent / (1e9 * (self.inside if gpus <= self.per_machine else self.between))


MEANING = {
    "peak": "TFLOP/s of dense bf16 products of one GPU (an A100's data sheet)",
    "utilisation": "share of that over a whole step, however few its images",
    "inside": "GB/s of a ring between the GPUs of one machine",
    "between": "GB/s of a ring that leaves a machine (one link of 200 Gbit/s)",
    "per_machine": "GPUs in a machine",
}


@dataclass(frozen=True)
class Training:
    """One row of the tables.

    Args:
        config: File below configs/.
        images, epochs, batch: Schedule of the paper.
        counts: Counted numbers, see COUNTED.
        crops: Number of regions per image, on average.
        loaders: Milliseconds of one core for one image, measured, by setting.
    """

    name: str
    config: str
    images: int
    epochs: int
    batch: int
    counts: DistillationCounts | DetectorCounts
    crops: float
    loaders: dict[str, float]

    @property
    def macs(self) -> float:
        """Multiply-accumulates of one training image."""
        if isinstance(self.counts, DetectorCounts):
            return self.counts.encoder + self.counts.heads
        return self.counts.student + self.counts.foundation + self.crops * self.counts.crop

    @property
    def gradient_bytes(self) -> int:
        """Float32."""
        return 4 * self.counts.learning


# `python -m benchmarks.cost_model --count` counts these again; tests/benchmarks/test_cost_model.py compares.
COUNTED = {
    "distill/denserc_vitb16.yaml": DistillationCounts(
        student=1846750791168,
        student_forward=616388903424,
        foundation=659215632384,
        crop=16348090368,
        learning=86272256,
    ),
    "distill/denserc_vitl14.yaml": DistillationCounts(
        student=5995241668608,
        student_forward=1999235973120,
        foundation=2064755245056,
        crop=184212258816,
        learning=304449216,
    ),
    "ovlvis_vitb16.yaml": DetectorCounts(
        encoder=629160559104, heads=920672337920, inference=1100818383360, learning=23614485
    ),
    "ovlvis_vitl14.yaml": DetectorCounts(
        encoder=2021574836224, heads=960986415104, inference=2521111068672, learning=33579285
    ),
}
# Measured: ms of one core of an AMD EPYC for an image, processor time, by setting; the first is the default. The
# distillation's two squares and 16 crops (benchmarks.data_path --grid 4), F-ViT's view with masks (.detector_loader).
LOADERS = {
    "distillation": {
        "default": 31.0,
        "DISTILL.RESAMPLING torchvision_uint8": 8.0,
        "DISTILL.VIEWS device": 2.5,  # only reading; the views are then the GPU's work
    },
    "F-ViT": {"default": 30.0},
}
# Measured: seconds on the clock of one process that scores saved boxes of the whole set (docs/SPEED.md).
SCORING = {"LVIS val": (19_809, 102.0)}
# Measured (docs/TRAINING.md): B/16's step with 20 crops on 2 CPU cores, bf16: side, counted T MACs, s of two runs.
CPU_STEPS = ((512, 0.75, 8.2, 9.3), (768, 1.50, 14.6, 18.1), (1024, 2.98, 33.7, 34.9))


def mean_crops(max_split: int = 6, limit: int = 20) -> float:
    """Average regions per image: all grids of at most max_split per side are equally likely, at most `limit` cells."""
    cells = [min(limit, rows * columns) for rows, columns in grid_choices(max_split, GridRule.UNIFORM)]
    return sum(cells) / len(cells)


def trainings() -> list[Training]:
    """The paper's: 6 epochs of COCO, 48 of LVIS."""
    distillation = [
        Training(name, config, 117_266, 6, 16, COUNTED[config], mean_crops(), LOADERS["distillation"])
        for name, config in (
            ("distillation, B/16 at 1024", "distill/denserc_vitb16.yaml"),
            ("distillation, L/14 at 896", "distill/denserc_vitl14.yaml"),
        )
    ]
    detection = [
        Training(name, config, 100_170, 48, 64, COUNTED[config], 0.0, LOADERS["F-ViT"])
        for name, config in (
            ("F-ViT, LVIS, B/16 at 1024", "ovlvis_vitb16.yaml"),
            ("F-ViT, LVIS, L/14 at 896", "ovlvis_vitl14.yaml"),
        )
    ]
    return distillation + detection
