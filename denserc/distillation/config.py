"""Config keys of the distillation, below Detectron2's own DATASETS, DATALOADER, SOLVER and TEST.

Detectron2's keys that are read: DATASETS.TRAIN and .TEST, DATALOADER.NUM_WORKERS, SOLVER.IMS_PER_BATCH (images
a step, over all processes and accumulated batches), .BASE_LR, .WEIGHT_DECAY, .MAX_ITER, .WARMUP_ITERS,
.CHECKPOINT_PERIOD and .CLIP_GRADIENTS, TEST.EVAL_PERIOD, MODEL.DEVICE, OUTPUT_DIR, SEED.
"""

from detectron2.config import CfgNode


def add_distillation_config(cfg: CfgNode) -> None:
    """Adds cfg.DISTILL with the paper's settings as defaults."""
    cfg.DISTILL = CfgNode()
    # Image folders to train on, beside the registered data sets of DATASETS.TRAIN.
    cfg.DISTILL.FOLDERS = ()
    # More images: "folder:PATH", "dataset:NAME", "coco_json:FILE@IMAGE_ROOT" (COCO or LVIS), "voc:VOCdevkit/VOC2012",
    # "ade20k:ADEChallengeData2016". Each file is used once, whatever number of sources has it.
    cfg.DISTILL.SOURCES = ()
    # The share of unreadable images above which training stops.
    cfg.DISTILL.MAX_UNREADABLE = 0.01

    # Side of the student's square input. The foundation model's follows from it: the same token grid.
    cfg.DISTILL.STUDENT_SIZE = 1024
    # Side of the teacher's crops; 0 = the size that the encoder was trained with.
    cfg.DISTILL.CROP_SIZE = 0
    # "square" (both sides resized, the paper) or "letterbox" (longest side, zeros around: CLIPSelf, DeCLIP).
    cfg.DISTILL.CROP_RESIZE = "square"
    # Whose bicubic, antialiased resizing: "pillow" (the originals' pixels), or "torchvision_uint8", much faster:
    # 0.4% of the values differ by 1 of 255, 4 of a million by 2 (docs/SPEED.md).
    cfg.DISTILL.RESAMPLING = "pillow"
    # Where views are made: "loader", by its worker processes; or "device", on MODEL.DEVICE from one upload of the image
    # as it was read, to Pillow's pixels. On a GPU that leaves reading alone to the workers (docs/SPEED.md).
    cfg.DISTILL.VIEWS = "loader"
    # A region grows by this factor about its centre before it is cut for the teacher.
    cfg.DISTILL.CROP_SCALE = 1.0

    cfg.DISTILL.TEACHER = CfgNode()
    # The last block's MLP on the way to the teacher's class token; False leaves it out (Table 13).
    # The student's is MODEL.CONSTRUCTION.FINAL_MLP.
    cfg.DISTILL.TEACHER.FINAL_MLP = True
    # The teacher looks at so many crops at once, for a bounded memory; 0 = at all of the batch.
    cfg.DISTILL.TEACHER.CROPS_PER_FORWARD = 0

    cfg.DISTILL.REGIONS = CfgNode()
    # Where the regions come from: "grid", or "proposals" of files.
    cfg.DISTILL.REGIONS.SOURCE = "grid"
    # Grids have 1..MAX_SPLIT rows and columns.
    cfg.DISTILL.REGIONS.MAX_SPLIT = 6
    # "uniform" (rows and columns independent, the paper) or "clipself" (columns within half and twice the rows).
    cfg.DISTILL.REGIONS.GRID_RULE = "uniform"
    # At most this many regions an image, chosen at random; 0 = all.
    cfg.DISTILL.REGIONS.MAX_REGIONS = 20
    # Files of proposals in COCO's results format, plain or .gz: those of projects/FViT's --write-proposals, say.
    cfg.DISTILL.REGIONS.PROPOSALS = ()
    # Proposals of fewer than MIN_SIDE^2 or more than MAX_SIDE^2 pixels are left out (CLIPSelf).
    cfg.DISTILL.REGIONS.MIN_SIDE = 8.0
    cfg.DISTILL.REGIONS.MAX_SIDE = 1024.0
    # Regions are drawn among an image's best TOP_K proposals of a file; 0 = among all.
    cfg.DISTILL.REGIONS.TOP_K = 0
    # Images without proposals take a "grid" or are left out: "drop".
    cfg.DISTILL.REGIONS.WITHOUT_PROPOSALS = "grid"

    cfg.DISTILL.SEMANTICS = CfgNode()
    # Weight of L_semantics; 0 switches it off.
    cfg.DISTILL.SEMANTICS.WEIGHT = 1.0
    # Regions are pooled from the "raw" dense map (DeCLIP) or from the "normalized" one (CLIPSelf).
    cfg.DISTILL.SEMANTICS.POOLED_MAP = "raw"

    cfg.DISTILL.COHERENCE = CfgNode()
    # lambda of L_coherence; 0 switches it off, and no foundation model is built.
    cfg.DISTILL.COHERENCE.WEIGHT = 0.025
    # Reading of Eq. 20: "mse" = ||G_s - G_t||_F^2 / N^2, "norm" = ||G_s - G_t||_F / N^2; "row_norm" = the mean
    # 2-norm of the rows of G_s - G_t, DeCLIP's context loss.
    cfg.DISTILL.COHERENCE.READING = "mse"
    # The student's features that it is about: the "dense" ones, or "context", the q (k, v) that the last block's
    # self-correlating attention uses: DeCLIP.
    cfg.DISTILL.COHERENCE.FEATURES = "dense"
    # Leave the tokens of the padding out of L_coherence (the originals keep them).
    cfg.DISTILL.COHERENCE.MASK_PADDING = False

    cfg.DISTILL.FOUNDATION = CfgNode()
    # The foundation model: dinov2_vits14, dinov2_vitb14, dinov2_vitl14, ..., or colour_texture_p<patch size>.
    cfg.DISTILL.FOUNDATION.NAME = "dinov2_vitb14"
    # A file, or "timm" for timm's own download. Without any it has random weights, which is said loudly.
    cfg.DISTILL.FOUNDATION.WEIGHTS = ""
    cfg.DISTILL.FOUNDATION.RANDOM_INIT = False

    # What learns: "tower" (the student's image tower and gates) or "blocks" (transformer blocks and gates;
    # embeddings, final norm and head stay: CLIPSelf, DeCLIP).
    cfg.DISTILL.TRAINABLE = "tower"
    # Learning rate of the gates' W_H as a multiple of the tower's. The paper names none of its own.
    cfg.DISTILL.GATE_RATE = 1.0
    # AdamW's betas and epsilon.
    cfg.DISTILL.BETAS = (0.9, 0.98)
    cfg.DISTILL.EPS = 1e-6
    # Batches whose gradients are added up for one step; SOLVER.IMS_PER_BATCH is divided among them.
    cfg.DISTILL.ACCUMULATE = 1
    # What several processes share of the optimiser: "none", or "zero1", each keeping AdamW's moments of its part of
    # the weights alone. Steps, resume state and product are the same; a single process has nothing to share.
    cfg.DISTILL.SHARDING = "none"
    # What the student's blocks compute again in the backward pass, to keep less: "none"; "selective" (norms,
    # activations: half the memory, a few percent of the time); "full" (all: a tenth of it, one more forward); "auto",
    # the first that fits into the memory at hand. None of them changes a bit of the result.
    cfg.DISTILL.GRADIENT_CHECKPOINTING = "auto"
    # "fp32"; or "bf16" or "fp16" (CUDA alone, with gradient scaling) for autocast in the three towers. The weights
    # and losses are always float32. A step whose fp16 gradient overflows is skipped, counted and logged.
    cfg.DISTILL.PRECISION = "fp32"
    # The peak learning rate: BASE_LR for "none", BASE_LR * b for "linear", BASE_LR * sqrt(b) for "sqrt", where
    # b = SOLVER.IMS_PER_BATCH / REFERENCE_BATCH. Nothing else changes: MAX_ITER and WARMUP_ITERS stay steps.
    cfg.DISTILL.LR_SCALING = "none"
    # Images a step that BASE_LR is meant for: the paper's 4 GPUs x 4.
    cfg.DISTILL.REFERENCE_BATCH = 16

    cfg.DISTILL.EMA = CfgNode()
    # Decay of a moving average of the student's weights, updated after each step: 0 = none.
    cfg.DISTILL.EMA.DECAY = 0.0
    # Where there is an average: "average" or "student" is evaluated and exported. EXPORT_BLEND comes on top.
    cfg.DISTILL.EMA.EXPORT = "average"

    # Weight of the student in the exported encoder, the rest is the teacher's: 1 = the student alone,
    # 0.7 = CLIPSelf and DeCLIP. The resume state never holds the blend.
    cfg.DISTILL.EXPORT_BLEND = 1.0
    # Resume states that are kept.
    cfg.DISTILL.KEEP_STATES = 1
    # Steps between two lines of log, TensorBoard and metrics.json.
    cfg.DISTILL.LOG_PERIOD = 20
    # Region classification with --eval-only, every TEST.EVAL_PERIOD steps and at the end, on DATASETS.TEST.
    cfg.DISTILL.EVALUATION = CfgNode()
    # Prompt templates of the class names: "vild" or "plain".
    cfg.DISTILL.EVALUATION.TEMPLATES = "vild"
    # Images a forward.
    cfg.DISTILL.EVALUATION.BATCH_SIZE = 1
    # Also classify the teacher-like crops of all boxes: what the class token reaches.
    cfg.DISTILL.EVALUATION.CROPS = False
    # The crop of a thing is its box grown by this factor (1.5 is CLIPSelf's); of stuff, its box.
    cfg.DISTILL.EVALUATION.THING_CROP_SCALE = 1.5
    # Also print the table of classes that is written to OUTPUT_DIR/inference.
    cfg.DISTILL.EVALUATION.CLASS_TABLE = False

    # A progress bar on the terminal.
    cfg.DISTILL.PROGRESS_BAR = True
