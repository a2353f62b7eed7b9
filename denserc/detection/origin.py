"""What detections depend on, as one short text: so that those of one detector are never completed by another's."""

import hashlib

from detectron2.config import CfgNode

from .meta_arch import FViT


def predictions_origin(cfg: CfgNode, detector: FViT) -> str:
    """A digest (sha256, 16 hex digits) of all weights, the vocabulary in use and the settings that detections show.

    Where the weights were read from and the device do not matter.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(detector.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.numpy().tobytes())
    classes = detector.roi_heads.classes
    digest.update(classes.require().detach().cpu().numpy().tobytes())
    digest.update(repr((detector.vocabulary.names, sorted(detector.vocabulary.novel))).encode())
    settings = cfg.clone()
    settings.defrost()
    settings.MODEL.WEIGHTS = settings.MODEL.DEVICE = settings.MODEL.ENCODER.CHECKPOINT = ""
    shown = (settings.MODEL.dump(), settings.INPUT.dump(), cfg.TEST.DETECTIONS_PER_IMAGE, cfg.TEST.FLIP)
    digest.update(repr((*shown, cfg.TEST.INPUT_SIZE)).encode())
    return digest.hexdigest()[:16]
