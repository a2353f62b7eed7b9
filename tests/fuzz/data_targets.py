"""Annotations, results, descriptions, configs and other text files."""

import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

from . import world
from .damage import as_json, as_lines, damaged_bytes, damaged_json, damaged_lines, damaged_trees
from .targets import require, target, written


def _register(folder: Path, file: Path, evaluator: str = "ov_coco", training: bool = False) -> str:
    from denserc.data.datasets.registration import register_open_vocab_dataset

    name = "fuzzed_val"
    register_open_vocab_dataset(
        name, file, folder / "images", base=world.BASE, novel=world.NOVEL, evaluator_type=evaluator, training=training
    )
    return name


def _load(folder: Path, file: Path, training: bool) -> None:
    from detectron2.data import DatasetCatalog

    for record in DatasetCatalog.get(_register(folder, file, training=training)):
        require(isinstance(record["image_id"], int), f"image id {record['image_id']!r}")
        require(record["height"] > 0 and record["width"] > 0, "an image without size")
        for one in record["annotations"]:
            numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in one["bbox"])
            require(numbers and len(one["bbox"]) == 4, f"box {one['bbox']!r}")


@target("annotations", as_json(world.coco()), damaged_json(world.coco()))
def _annotations(folder: Path, content: bytes) -> None:
    _load(folder, written(folder, "damaged.json", content), training=False)


@target("training_annotations", as_json(world.coco()), damaged_json(world.coco()))
def _training_annotations(folder: Path, content: bytes) -> None:
    _load(folder, written(folder, "damaged.json", content), training=True)


@target("lvis_annotations", as_json(world.lvis()), damaged_json(world.lvis()))
def _lvis(folder: Path, content: bytes) -> None:
    _load(folder, written(folder, "damaged.json", content), training=False)


def _scores(folder: Path, file: Path, predictions: Path, evaluator: str = "ov_coco") -> None:
    from denserc.tools.evaluate import evaluate

    results = evaluate(_register(folder, file, evaluator), predictions=predictions)
    for task in results.values():
        for metric, value in task.items():
            require(math.isnan(value) or 0 <= value <= 100, f"{metric} {value}")


@target("truth", as_json(world.coco()), damaged_json(world.coco()))
def _truth(folder: Path, content: bytes) -> None:
    _scores(folder, written(folder, "damaged.json", content), folder / "results.json")


@target("truth_with_masks", as_json(world.coco()), damaged_json(world.coco()))
def _truth_with_masks(folder: Path, content: bytes) -> None:
    predictions = written(folder, "masks.json", json.dumps(world.results_with_masks()).encode())
    _scores(folder, written(folder, "damaged.json", content), predictions)


@target("lvis_truth", as_json(world.lvis()), damaged_json(world.lvis()))
def _lvis_truth(folder: Path, content: bytes) -> None:
    _scores(folder, written(folder, "damaged.json", content), folder / "results.json", "ov_lvis")


@target("predictions", as_json(world.results()), damaged_json(world.results()))
def _predictions(folder: Path, content: bytes) -> None:
    _scores(folder, folder / "truth.json", written(folder, "damaged.json", content))


@target("predictions_with_masks", as_json(world.results_with_masks()), damaged_json(world.results_with_masks()))
def _predictions_with_masks(folder: Path, content: bytes) -> None:
    _scores(folder, folder / "truth.json", written(folder, "damaged.json", content))


@target("proposals", as_json(world.results()), damaged_json(world.results()))
def _proposals(folder: Path, content: bytes) -> None:
    from denserc.data.proposals import read_proposals
    from denserc.tools.evaluate import evaluate

    path = written(folder, "damaged.json", content)
    table = read_proposals(path)
    require(bool(np.isfinite(table.boxes).all() and np.isfinite(table.scores).all()), "proposals that are not finite")
    evaluate(_register(folder, folder / "truth.json"), proposals=path)


@target("prediction_log", as_lines(world.prediction_log()), damaged_lines(world.prediction_log()))
def _prediction_log(folder: Path, content: bytes) -> None:
    from denserc.evaluation.detection.prediction_log import Collector, PredictionLog, read_log

    path = written(folder, "damaged.jsonl", content)
    log = PredictionLog(path, "x")
    try:
        log.resume()
    finally:
        log.close()
    collector = Collector()
    read_log(path, collector)
    found = collector.predictions().detections
    require(bool(np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()), "detections that are not finite")


@target("doctor", as_json(world.coco()), damaged_json(world.coco()))
def _doctor(folder: Path, content: bytes) -> None:
    from rich.console import Console

    from denserc.tools.doctor import diagnose, print_diagnosis

    names = [_register(folder, written(folder, "damaged.json", content))]
    print_diagnosis(diagnose(names, sample=2), Console(file=io.StringIO()))


@target("doctor_lvis", as_json(world.lvis()), damaged_json(world.lvis()))
def _doctor_lvis(folder: Path, content: bytes) -> None:
    from rich.console import Console

    from denserc.tools.doctor import diagnose, print_diagnosis

    names = [_register(folder, written(folder, "damaged.json", content), "ov_lvis")]
    print_diagnosis(diagnose(names, sample=2), Console(file=io.StringIO()))


@target("dataset_new", as_json(world.coco()), damaged_json(world.coco()))
def _dataset_new(folder: Path, content: bytes) -> None:
    from denserc.tools.new_data_set import new_data_set

    with tempfile.TemporaryDirectory(dir=folder) as output:
        new_data_set("fuzzed", written(folder, "damaged.json", content), folder / "images", output, val_share=0.5)


@target("panoptic", as_json(world.panoptic()), damaged_json(world.panoptic()))
def _panoptic(folder: Path, content: bytes) -> None:
    from denserc.data.datasets.panoptic import PanopticRegions

    regions = PanopticRegions(written(folder, "damaged.json", content), folder / "panoptic", folder / "images")
    for index in range(len(regions)):
        for segment in regions[index]["segments"]:
            require(all(math.isfinite(x) for x in segment["bbox"]), f"box {segment['bbox']}")


@target("splits", as_json(world.lvis()), damaged_json(world.lvis()))
def _splits(folder: Path, content: bytes) -> None:
    from denserc.data.datasets.splits import write_lvis_norare

    write_lvis_norare(folder / "split.json", written(folder, "damaged.json", content))


@target(
    "voc",
    world.VOC_XML,
    damaged_bytes(world.VOC_XML)
    | st.tuples(
        st.sampled_from([b"64", b"48", b"24", b"0", b"cat", b"4"]),
        st.sampled_from([b"", b"abc", b"-3", b"Infinity", b"nan", b"1e400", b"9" * 400, b"1.5", b"&lt;", b"dog"]),
    ).map(lambda pair: world.VOC_XML.replace(b">" + pair[0] + b"<", b">" + pair[1] + b"<", 1)),
)
def _voc(folder: Path, content: bytes) -> None:
    from denserc.data.datasets.transfer import write_voc

    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / "VOC2007" / name).mkdir(parents=True, exist_ok=True)
    written(folder / "VOC2007" / "ImageSets" / "Main", "test.txt", b"000001\n")
    written(folder / "VOC2007" / "Annotations", "000001.xml", content)
    written(folder / "VOC2007" / "JPEGImages", "000001.jpg", b"")
    write_voc(folder / "voc.json", folder / "VOC2007", "test", ["cat"])
    for one in json.loads((folder / "voc.json").read_text())["annotations"]:
        require(all(math.isfinite(x) for x in one["bbox"]) and min(one["bbox"][2:]) > 0, f"box {one['bbox']}")


def _yaml(tree: dict) -> st.SearchStrategy:
    def dumped(content: Any) -> bytes:
        try:
            return yaml.safe_dump(content, allow_unicode=False).encode("utf-8", "surrogatepass")
        except yaml.YAMLError:
            return b"!!python/object:os.system {}\n"

    return damaged_trees(tree).map(dumped) | damaged_bytes(yaml.safe_dump(tree).encode())


@target(
    "description",
    yaml.safe_dump(world.description()).encode(),
    _yaml(world.description()) | _yaml(world.semantic_description()),
)
def _description(folder: Path, content: bytes) -> None:
    from detectron2.data import DatasetCatalog

    from denserc.data.datasets.registration import register_from_yaml

    for name in register_from_yaml(written(folder, "damaged.yaml", content)):
        DatasetCatalog.get(name)


@target("config", yaml.safe_dump(world.config()).encode(), _yaml(world.config()))
def _config(folder: Path, content: bytes) -> None:
    from denserc.config import read_config

    cfg = read_config(written(folder, "damaged.yaml", content), [])
    for value in (cfg.SOLVER.BASE_LR, cfg.DISTILL.COHERENCE.WEIGHT, cfg.MODEL.RPN.NMS_THRESH, cfg.SOLVER.GAMMA):
        require(math.isfinite(value) and value >= 0, f"a number {value}")
    require(cfg.SOLVER.IMS_PER_BATCH > 0 and cfg.INPUT.SIZE > 0, "no batch or no size")


@target(
    "config_overrides",
    ["SEED", "1"],
    st.tuples(
        st.sampled_from(
            [
                "SOLVER.BASE_LR",
                "SOLVER.MAX_ITER",
                "DISTILL.COHERENCE.WEIGHT",
                "INPUT.SIZE",
                "SEED",
                "DATASETS.TEST",
                "MODEL.RPN",
                "MODEL",
                "X.Y",
                "",
                "SOLVER.STEPS",
                "MODEL.PIXEL_MEAN",
                "TEST.DETECTIONS_PER_IMAGE",
                "OUTPUT_DIR",
            ]
        ),
        st.sampled_from(
            [
                "",
                "nan",
                "inf",
                "-1",
                "1e400",
                "[",
                "()",
                "None",
                "x",
                "1.5",
                "[1, 2",
                "{'a': 1}",
                "\0",
                "__import__('os')",
                "9" * 400,
            ]
        ),
    ).map(list),
)
def _config_overrides(folder: Path, content: list) -> None:
    from denserc.config import read_config

    read_config(None, content)


@target(
    "class_list",
    (b"cat\ndog\n", ".txt"),
    damaged_bytes(b"cat\nred cup\nstriped ball\n").map(lambda b: (b, ".txt"))
    | damaged_json(["cat", "red cup", "striped ball"]).map(lambda b: (b, ".json")),
)
def _class_list(folder: Path, content: tuple[bytes, str]) -> None:
    from denserc.data.vocabulary.published import read_class_list

    names = read_class_list(written(folder, f"damaged{content[1]}", content[0]))
    require(all(isinstance(name, str) and name.strip() and name[0] != "\ufeff" for name in names), f"names {names!r}")


@target("conversations", as_json(world.conversations()), damaged_json(world.conversations()))
def _conversations(folder: Path, content: bytes) -> None:
    from denserc.llava.conversations import read_conversations

    read_conversations([written(folder, "damaged.json", content)], folder / "images")


@target("answers", as_lines(world.answers()), damaged_lines(world.answers()))
def _answers(folder: Path, content: bytes) -> None:
    from denserc.evaluation.mllm.pope import evaluate_pope

    evaluate_pope(written(folder, "damaged.jsonl", content), [folder / "pope"], folder / "questions.jsonl")


@target("pope", as_lines(world.pope()), damaged_lines(world.pope()))
def _pope(folder: Path, content: bytes) -> None:
    from denserc.evaluation.mllm.pope import evaluate_pope

    written(folder, "damaged_pope_random.json", content)
    evaluate_pope(folder / "answers.jsonl", [folder / "damaged_pope_random.json"], None)


@target("gqa", as_json(world.gqa()), damaged_json(world.gqa()))
def _gqa(folder: Path, content: bytes) -> None:
    from denserc.evaluation.mllm.gqa import evaluate_gqa

    evaluate_gqa(folder / "answers.jsonl", written(folder, "damaged.json", content))


@target("textvqa", as_json(world.textvqa()), damaged_json(world.textvqa()))
def _textvqa(folder: Path, content: bytes) -> None:
    from denserc.evaluation.mllm.textvqa import evaluate_textvqa

    evaluate_textvqa(folder / "textvqa_answers.jsonl", written(folder, "damaged.json", content))
