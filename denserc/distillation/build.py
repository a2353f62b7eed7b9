"""The parts of a distillation from a configuration; nothing else of this package reads one."""

import functools
import logging
from copy import deepcopy
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..construction import DenseEncoder, DenseModel, GradientCheckpointing, checkpointing_that_fits, kept_bytes
from ..data.images.resizing import BicubicKernel
from ..data.images.tolerance import UnreadableMonitor
from ..data.proposals import ProposalLimits, read_proposals
from ..encoders import PositionResize, build_clip, build_foundation_model
from ..encoders.towers.base import FoundationModel, ImageTower
from ..engine import (
    RateScaling,
    Sharding,
    arithmetic,
    free_bytes,
    join_processes,
    scaled_rate,
)
from ..engine.config import configured_clip_norm, configured_precision, images_per_forward
from ..engine.sharding import shard
from ..engine.solver import build_trained_average
from ..engine.stream import describe_data
from ..structures import ConfigurationError, choose
from .data.crops import CropResize, CropTransform
from .data.dataset import DistillationDataset, build_loader
from .data.regions import GridRegions, GridRule, ImageRecord, ProposalRegions, RegionSource, WithoutProposals
from .data.sources import collect_images
from .data.views import ViewPlace
from .distiller import Distiller, foundation_input_size
from .losses import CoherenceFeatures, CoherenceReading, PooledMap
from .optim import Trainable, build_optimizer, learning_rate, set_trainable
from .target_cache import TargetMemory
from .trainer import DistillationTrainer

logger = logging.getLogger(__name__)


def build_trainer(
    cfg: CfgNode,
    model: DenseModel,
    *,
    device: torch.device,
    seed: int,
    images_drawn: int = 0,
    memory: TargetMemory | None = None,
) -> DistillationTrainer:
    """All parts of a training from the configuration; `model.encoder` is the student and moves to the device."""
    settings, world = cfg.DISTILL, comm.get_world_size()
    share = images_per_forward(cfg, world)
    teacher = build_teacher(cfg, model)
    foundation = build_foundation(cfg)
    set_trainable(model.encoder, choose(Trainable, settings.TRAINABLE, "DISTILL.TRAINABLE"))
    autocast, scaler = arithmetic(configured_precision(cfg), device, "SOLVER.AMP.PRECISION")
    distiller = Distiller(
        student=model.encoder,
        teacher=teacher,
        foundation=foundation,
        semantics_weight=settings.SEMANTICS.WEIGHT,
        coherence_weight=settings.COHERENCE.WEIGHT,
        pooled_map=choose(PooledMap, cfg.MODEL.ENCODER.POOLED_MAP, "MODEL.ENCODER.POOLED_MAP"),
        reading=choose(CoherenceReading, settings.COHERENCE.READING, "DISTILL.COHERENCE.READING"),
        coherence_features=choose(CoherenceFeatures, settings.COHERENCE.FEATURES, "DISTILL.COHERENCE.FEATURES"),
        teacher_final_mlp=settings.TEACHER.FINAL_MLP,
        crops_per_forward=settings.TEACHER.CROPS_PER_FORWARD,
        autocast=autocast,
        memory=memory,
    ).to(device)
    dataset = build_dataset(cfg, teacher, foundation, seed=seed)
    loader = build_loader(
        dataset,
        batch_size=share,
        start=images_drawn,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=device.type == "cuda",
    )
    sharding = choose(Sharding, cfg.SOLVER.SHARDING, "SOLVER.SHARDING")
    model.encoder.gradient_checkpointing = build_checkpointing(cfg, model.encoder, device, autocast, images=share)
    unsharded = None
    if sharding.acts:
        unsharded = deepcopy(model.encoder).cpu() if comm.is_main_process() else None
        shard(model.encoder, parts=model.encoder.tower.blocks, methods=("forward_with_context",))
        joined = distiller
    else:
        # Which parameters stay without gradient depends on the construction.
        joined = join_processes(distiller, device, find_unused=True)
    rate = build_rate(cfg)
    optimizer = build_optimizer(
        model.encoder,
        lr=rate,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        betas=tuple(cfg.SOLVER.BETAS),
        eps=cfg.SOLVER.EPS,
        gate_rate=settings.GATE_RATE,
    )
    steps = cfg.SOLVER.MAX_ITER
    schedule = functools.partial(learning_rate, base=rate, warmup=cfg.SOLVER.WARMUP_ITERS, total=steps)
    trained = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)
    logger.info(
        f"{len(dataset.records)} images, {steps} steps of {cfg.SOLVER.IMS_PER_BATCH} = "
        f"{steps * cfg.SOLVER.IMS_PER_BATCH / len(dataset.records):.2f} epochs; {trained / 1e6:.3f} M parameters learn."
    )
    return DistillationTrainer(
        model=joined,
        batches=loader,
        optimizer=optimizer,
        schedule=schedule,
        device=device,
        accumulate=cfg.SOLVER.ACCUMULATE,
        clip_norm=configured_clip_norm(cfg),
        monitor=UnreadableMonitor(total=len(dataset.records), limit=cfg.DATALOADER.MAX_UNREADABLE),
        seed=seed,
        images_drawn=images_drawn,
        images_per_step=cfg.SOLVER.IMS_PER_BATCH,
        data=describe_data(Path(record.path).name for record in dataset.records),
        scaler=scaler,
        average=build_trained_average(cfg, model.encoder),
        unsharded=unsharded,
        failures=cfg.OUTPUT_DIR,
    )


def build_checkpointing(
    cfg: CfgNode, student: DenseEncoder, device: torch.device, autocast: torch.dtype | None, *, images: int
) -> GradientCheckpointing:
    """DISTILL.GRADIENT_CHECKPOINTING; for "auto" by the memory that gradients, optimizer and average leave.

    Args:
        student: Student on the device, with its trained parameters selected.
        images: Number of images in one forward pass of one process.
    """
    key = "DISTILL.GRADIENT_CHECKPOINTING"
    chosen = choose(GradientCheckpointing, str(cfg.DISTILL.GRADIENT_CHECKPOINTING), key)
    free = free_bytes(device)
    if chosen is not GradientCheckpointing.AUTO or free is None:
        return GradientCheckpointing.NONE if chosen is GradientCheckpointing.AUTO else chosen
    copies = 3 + (cfg.SOLVER.EMA.DECAY > 0)  # gradient, two moments, average
    if choose(Sharding, cfg.SOLVER.SHARDING, "SOLVER.SHARDING").acts:
        copies /= comm.get_world_size()
    free -= copies * sum(p.nbytes for p in student.parameters() if p.requires_grad)
    kept = kept_bytes(student, images * (cfg.INPUT.SIZE // student.patch_size) ** 2, autocast)
    chosen = checkpointing_that_fits(kept, free)
    logger.info(
        f"{key}: {chosen.value}, as a forward would keep {kept / 2**30:.1f} GiB without it and {free / 2**30:.1f} GiB "
        f"are free."
    )
    return chosen


def build_rate(cfg: CfgNode) -> float:
    """The peak learning rate after SOLVER.LR_SCALING."""
    rule = choose(RateScaling, cfg.SOLVER.LR_SCALING, "SOLVER.LR_SCALING")
    return scaled_rate(
        cfg.SOLVER.BASE_LR,
        batch=cfg.SOLVER.IMS_PER_BATCH,
        reference=cfg.SOLVER.REFERENCE_BATCH,
        rule=rule,
        key="SOLVER.REFERENCE_BATCH",
    )


def build_teacher(cfg: CfgNode, model: DenseModel) -> ImageTower:
    """The frozen teacher: a copy of the student's tower before training.

    The teacher of a student that starts from a DenseRC checkpoint is the CLIP
    that MODEL.ENCODER.NAME and .WEIGHTS name.
    """
    encoder = cfg.MODEL.ENCODER
    if not encoder.CHECKPOINT:
        return deepcopy(model.encoder.tower)
    if encoder.RANDOM_INIT:
        raise ConfigurationError(
            "MODEL.ENCODER.CHECKPOINT starts the student, so the teacher comes from MODEL.ENCODER.NAME and .WEIGHTS; "
            "RANDOM_INIT would make it a random one."
        )
    resize = choose(PositionResize, encoder.POSITION_RESIZE, "MODEL.ENCODER.POSITION_RESIZE")
    return build_clip(encoder.NAME, encoder.WEIGHTS, position_resize=resize).image


def build_foundation(cfg: CfgNode) -> FoundationModel | None:
    """The model that L_coherence follows; None where that loss is switched off."""
    settings = cfg.DISTILL.FOUNDATION
    if cfg.DISTILL.COHERENCE.WEIGHT <= 0:
        return None
    return build_foundation_model(settings.NAME, settings.WEIGHTS, random_init=not settings.WEIGHTS)


def build_regions(cfg: CfgNode, records: list[ImageRecord]) -> tuple[RegionSource, list[ImageRecord]]:
    """Proposals of the files in DISTILL.REGIONS.PROPOSALS, otherwise grids; and the images that have regions."""
    settings = cfg.DISTILL.REGIONS
    rule = choose(GridRule, settings.GRID_RULE, "DISTILL.REGIONS.GRID_RULE")
    grid = GridRegions(max_split=settings.MAX_SPLIT, rule=rule, max_regions=settings.MAX_REGIONS)
    if not settings.PROPOSALS:
        return grid, records
    wanted = choose(WithoutProposals, settings.WITHOUT_PROPOSALS, "DISTILL.REGIONS.WITHOUT_PROPOSALS")
    limits = ProposalLimits(top_k=settings.TOP_K)
    tables = {file: read_proposals(file, limits) for file in settings.PROPOSALS}
    regions = ProposalRegions(records, tables, max_regions=settings.MAX_REGIONS, fallback=grid)
    without = [record for record in records if not regions.covers(record)]
    if without:
        fate = "are left out" if wanted is WithoutProposals.DROP else "take grids"
        examples = [record.path for record in without[:5]]
        logger.warning(f"{len(without)} of {len(records)} images have no proposals and {fate}; the first: {examples}")
        if wanted is WithoutProposals.DROP:
            records = [record for record in records if regions.covers(record)]
    return regions, records


def build_dataset(
    cfg: CfgNode, teacher: ImageTower, foundation: FoundationModel | None, *, seed: int
) -> DistillationDataset:
    """Build the training images with the views of teacher, student and foundation model."""
    settings = cfg.DISTILL
    # Also checks the student's size without a foundation model.
    patch = foundation.patch_size if foundation is not None else teacher.patch_size
    size = foundation_input_size(cfg.INPUT.SIZE, teacher.patch_size, patch)
    resampling = choose(BicubicKernel, settings.RESAMPLING, "DISTILL.RESAMPLING")
    crops = CropTransform(
        size=settings.CROP_SIZE or teacher.native_size,
        resize=choose(CropResize, settings.CROP_RESIZE, "DISTILL.CROP_RESIZE"),
        scale=settings.CROP_SCALE,
        resampling=resampling,
    )
    regions, records = build_regions(cfg, collect_images(cfg.DATASETS.TRAIN, settings.SOURCES))
    return DistillationDataset(
        records=records,
        regions=regions,
        crops=crops,
        student_size=cfg.INPUT.SIZE,
        foundation_size=size if foundation is not None else None,
        seed=seed,
        resampling=resampling,
        views=choose(ViewPlace, settings.VIEWS, "DISTILL.VIEWS"),
    )
