"""Config keys that every open-vocabulary model shares."""

from detectron2.config import CfgNode


def add_openvocab_config(cfg: CfgNode) -> None:
    """Add INPUT.FIXED_VIEWS, MODEL.VOCABULARY, and keys of SOLVER and TEST."""
    # 0: every visit of an image draws scale, crop and flip anew. K: it has K views, drawn once by SEED, that take
    # turns; the encoder then sees one image at a time, so that its maps of a view are the same bits at every visit.
    cfg.INPUT.FIXED_VIEWS = 0

    # Images in one forward pass of a process at test. Sizes are padded to the largest of a batch.
    cfg.TEST.IMS_PER_PROCESS = 1
    # With --eval-only: an evaluation that was interrupted goes on after the images whose predictions are on disk. It
    # is refused where other weights, another vocabulary or other settings made them.
    cfg.TEST.RESUME_PREDICTIONS = False
    # What decides OUTPUT_DIR/model_best.pth, at every evaluation: a metric of the first set in DATASETS.TEST, as
    # "ov_coco/AP50_novel"; "auto": the first that exists of the architecture's
    # `best_metrics`; "": no best checkpoint. Larger is better, NaN never wins.
    cfg.TEST.BEST = "auto"

    cfg.SOLVER.BETAS = [0.9, 0.999]
    # Largest norm of the gradient of all parameters together; 0: no limit. (Detectron2's own
    # SOLVER.CLIP_GRADIENTS limits each parameter apart and is not read.)
    cfg.SOLVER.CLIP_NORM = 1.0
    # Forward passes whose gradients are added up for one step; SOLVER.IMS_PER_BATCH, the total over all processes, is
    # divided among them.
    cfg.SOLVER.ACCUMULATE = 1
    # Autocast of the trained parts with SOLVER.AMP.ENABLED: "fp16" (CUDA alone, with gradient scaling) or "bf16".
    cfg.SOLVER.AMP.PRECISION = "fp16"
    # The learning rate: BASE_LR for "none", BASE_LR * b for "linear", BASE_LR * sqrt(b) for "sqrt", where
    # b = IMS_PER_BATCH / REFERENCE_BATCH. Nothing else changes: MAX_ITER, STEPS and WARMUP_ITERS stay steps.
    cfg.SOLVER.LR_SCALING = "none"
    # Images a step that BASE_LR is meant for.
    cfg.SOLVER.REFERENCE_BATCH = 64
    cfg.SOLVER.EMA = CfgNode()
    # Decay of a moving average of what is trained (running statistics included), updated after each step: 0 = none.
    cfg.SOLVER.EMA.DECAY = 0.0
    # Where there is an average: "average" or "trained" is evaluated and is the "model" of every checkpoint. What
    # training goes on from stands beside it.
    cfg.SOLVER.EMA.EXPORT = "average"

    cfg.MODEL.VOCABULARY = CfgNode()
    cfg.MODEL.VOCABULARY.TEMPLATES = "vild"  # "vild" or "plain"
    cfg.MODEL.VOCABULARY.EMBEDDINGS = ""  # a file of text embeddings to take the names from, instead of embedding them
    cfg.MODEL.VOCABULARY.CACHE_DIR = ""  # empty: OUTPUT_DIR/text_embeddings
