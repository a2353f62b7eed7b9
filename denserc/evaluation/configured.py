"""Region classification as a distillation config describes it."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..data.prompts import template_set
from ..data.text_embeddings import embed_names
from .region_classification import evaluate_regions


def evaluate_dense_model(cfg: CfgNode, model) -> dict[str, dict[str, float]]:
    """The region classification of a dense model on each of DATASETS.TEST.

    Args:
        cfg: Detectron2's keys and DISTILL.
        model: with `encoder` (a DenseEncoder) and `text` (its text tower).

    Returns:
        {"region_classification": metrics}; with several sets, "<set>/region_classification" for each.
    """
    settings, results = cfg.DISTILL, {}
    tower = model.encoder.tower
    for name in cfg.DATASETS.TEST:
        entries = DatasetCatalog.get(name)
        scores = evaluate_regions(
            model.encoder,
            embed_names(model.text, entries.classes, template_set(settings.EVALUATION.TEMPLATES)),
            entries,
            names=entries.classes,
            input_size=settings.STUDENT_SIZE,
            normalise=settings.SEMANTICS.POOLED_MAP == "normalized",
            crop_encoder=tower.encode_image if settings.EVALUATION.CROPS else None,
            crop_size=settings.CROP_SIZE or tower.native_size,
            batch_size=settings.EVALUATION.BATCH_SIZE,
            device=next(tower.parameters()).device,
            progress=settings.PROGRESS_BAR,
            fingerprint=model.text.fingerprint(),
        )
        for task, metrics in scores.items():
            results[task if len(cfg.DATASETS.TEST) == 1 else f"{name}/{task}"] = metrics
    return results
