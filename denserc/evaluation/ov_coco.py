"""Open-vocabulary COCO, and any set with a COCO JSON: AP of novel, base and all classes."""

from pathlib import Path

from detectron2.data import MetadataCatalog

from ..structures import Vocabulary
from .average_precision import Backend
from .detection import DetectionEvaluator, category_ids_of, read_annotations
from .protocol import Protocol

TASK = "ov_coco"
CLOSED_TASK = "coco"


def split_protocol(vocabulary: Vocabulary, *, max_dets: int = 100) -> Protocol:
    """Generalised setting: all classes compete, "all" is the mean over all of them, not over the two groups.

    A vocabulary without novel classes (transfer to COCO, Objects365, VOC or one's own set) has the group "all" alone,
    and another task's name, "coco", since nothing open-vocabulary is told apart in it.
    """
    novel = vocabulary.novel_mask().numpy()
    everything = novel | ~novel
    if not novel.any():
        return Protocol(
            task=CLOSED_TASK,
            title="COCO AP (101 recall points), no class named novel",
            max_dets=max_dets,
            groups={"all": everything},
        )
    return Protocol(
        task=TASK,
        title="open-vocabulary COCO AP, generalised (base and novel classes compete)",
        max_dets=max_dets,
        groups={"novel": novel, "base": ~novel, "all": everything},
    )


class OvCocoEvaluator(DetectionEvaluator):
    """AP, AP50, AP75, APs, APm, APl of novel / base / all classes: {"ov_coco": {"AP50_novel": ...}}.

    A set that names no novel class: {"coco": {"AP_all": ..., "AP50_all": ...}}. VOC's AP50 as the open-vocabulary
    papers report it is this AP50_all: COCO's matching and its 101 recall points, not the 11 of the VOC development kit.
    Masks, when the detector gives them, are reported under "ov_coco_masks" ("coco_masks") in the same terms.

    Args:
        dataset_name: a registered set; its metadata gives thing_classes, novel_classes, json_file and the id map.
        output_dir: for coco_instances_results.json, <task>_classes.csv and <task>_results.json.
        max_dets: detections per image and class that count (COCO: 100).
        backend: what matches.
        distributed: gather from all ranks.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path | None = None,
        *,
        max_dets: int = 100,
        backend: Backend = Backend.COLUMNS,
        distributed: bool = True,
    ):
        metadata = MetadataCatalog.get(dataset_name)
        vocabulary = Vocabulary(metadata.thing_classes, metadata.get("novel_classes", ()))
        super().__init__(
            ground_truth=read_annotations(dataset_name),
            names=vocabulary.names,
            category_ids=category_ids_of(dataset_name),
            protocols=[split_protocol(vocabulary, max_dets=max_dets)],
            output_dir=output_dir,
            backend=backend,
            distributed=distributed,
        )
