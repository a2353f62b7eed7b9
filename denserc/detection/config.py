"""Config keys of the detector. Where one of Detectron2's own keys means the same, it is used and not repeated here.

Detectron2's keys that are read: all that configs/Base-FViT.yaml sets, DATASETS.TRAIN and .TEST, SOLVER.MAX_ITER,
.STEPS, .GAMMA, .CHECKPOINT_PERIOD and .AMP.ENABLED, TEST.EVAL_PERIOD, OUTPUT_DIR. The number of classes is the
vocabulary's, the size of images INPUT.SIZE: MODEL.ROI_HEADS.NUM_CLASSES and INPUT.MIN_SIZE_* have no meaning here.
"""

from detectron2.config import CfgNode


def add_detection_config(cfg: CfgNode) -> None:
    """Add INPUT.SIZE and more, SOLVER keys and MODEL.FVIT; defaults are the original's for OV-COCO with ViT-B/16."""
    # Side of the network's square input: images are scaled so that the longer side has this length.
    cfg.INPUT.SIZE = 640
    # Range of the random scale in training, relative to INPUT.SIZE; then a crop of INPUT.SIZE at most.
    cfg.INPUT.SCALE_JITTER = [0.1, 2.0]
    # "opencv_bilinear" (the original, no antialiasing) or "pillow_bilinear" (Detectron2).
    cfg.INPUT.RESAMPLING = "opencv_bilinear"

    # Side of the square input at test; 0: INPUT.SIZE.
    cfg.TEST.INPUT_SIZE = 0
    # Look at every image and its mirror image: the regions of both are scored in both, and scores, boxes and masks
    # averaged before suppression. About twice the time.
    cfg.TEST.FLIP = False
    # Which LVIS AP: "standard" (300 detections an image), "fixed" (10,000 a class), or both.
    cfg.TEST.LVIS_PROTOCOLS = ["standard"]
    # Report the recall of the RPN's proposals too (AR@100, AR@300, AR@1000 by groups of classes).
    cfg.TEST.PROPOSAL_RECALL = False
    # With --eval-only: write the RPN's proposals of the one set in DATASETS.TEST to this file instead of evaluating, in
    # COCO's results format (gzipped if it ends in .gz), the best PER_IMAGE of each image.
    cfg.TEST.PROPOSALS = CfgNode()
    cfg.TEST.PROPOSALS.FILE = ""
    cfg.TEST.PROPOSALS.PER_IMAGE = 1000

    cfg.MODEL.FVIT = CfgNode()
    fvit = cfg.MODEL.FVIT
    # Blocks whose residual stream becomes the maps at strides patch / 4, patch / 2, patch, 2 x patch.
    fvit.BLOCKS = [3, 5, 7, 11]
    # Arithmetic of the frozen encoder, at test too: "fp32", "bf16", or "fp16" (CUDA alone). Its weights stay float32,
    # and the trained parts are given float32 maps.
    fvit.BACKBONE_PRECISION = "fp32"
    fvit.UPSAMPLER_NORM = "SyncBN"  # with one process plain BN, here and in the other NORM keys
    # "square" (the original) or "divisible" (no more padding than the patch size asks for).
    fvit.PADDING = "square"
    # "two_sided" (the original) or "above" (Detectron2).
    fvit.SIZE_CLAMP = "two_sided"
    # Boxes of a side below twice this go to the finest map; 56 in the original, whatever the strides.
    fvit.FINEST_SCALE = 56.0
    # Width of the fully connected layers; 0: that of the image-text space.
    fvit.FC_WIDTH = 0
    # Which detections suppress each other: those of a class ("per_class", the original) or all ("class_agnostic").
    fvit.NMS = "per_class"
    # A box is a detection of its best class alone; the original makes one of every class above the score threshold.
    fvit.ONE_LABEL_PER_BOX = False
    # Leave out detections without area, as Detectron2; the original keeps them.
    fvit.DROP_EMPTY = False

    # The frozen encoder's maps of training views, kept on disk: for small data sets, with INPUT.FIXED_VIEWS.
    fvit.CACHE = CfgNode()
    fvit.CACHE.DIR = ""  # empty: no cache. It may be shared by runs; another encoder or image is never mistaken
    fvit.CACHE.LIMIT_GB = 50.0  # when it is full, further maps are computed each time
    fvit.CACHE.PRECISION = "fp32"  # or "fp16": half the space, maps rounded to 11 bits

    fvit.RPN = CfgNode()
    fvit.RPN.NORM = ""  # OV-LVIS: "SyncBN"
    fvit.RPN.ANCHOR_SCALE = 8.0  # side of the square anchor in strides
    fvit.RPN.LOW_QUALITY = "overwrite"  # "none", "overwrite" (the original) or "keep_best" (Detectron2)
    fvit.RPN.LOW_QUALITY_IOU = 0.3
    fvit.RPN.NORMALISER = "sampled"  # "sampled" (the original) or "fixed" (Detectron2)

    fvit.ROI = CfgNode()
    fvit.ROI.LOW_QUALITY = "none"  # OV-LVIS: "overwrite"
    fvit.ROI.LOW_QUALITY_IOU = 0.5

    fvit.CLASSIFIER = CfgNode()
    fvit.CLASSIFIER.TEMPERATURE = 50.0  # what cosines are multiplied by; initial value if learned
    fvit.CLASSIFIER.LEARN_TEMPERATURE = True
    # At test, in place of what was learned; 0: what was learned. The published transfer uses 50.
    fvit.CLASSIFIER.TEST_TEMPERATURE = 0.0
    fvit.CLASSIFIER.BACKGROUND_WEIGHT = 0.6  # OV-LVIS: 0.9
    fvit.CLASSIFIER.LOSS_NORMALISER = "samples"  # "samples" (the original) or "weights" (PyTorch)

    fvit.FUSION = CfgNode()
    fvit.FUSION.TEMPERATURE = 75.0  # of the frozen encoder's cosines; the published transfer uses 120
    fvit.FUSION.BASE = 0.1  # the encoder's share for base classes and background
    fvit.FUSION.NOVEL = 0.8  # for novel classes
    fvit.FUSION.UNSPLIT = 0.2  # for all, where a data set names no novel class (transfer)
