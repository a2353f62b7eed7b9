"""Small valid files of every kind that users hand in; the fuzzer damages copies of them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

BASE, NOVEL = ["cat", "red cup"], ["striped ball"]
SIZE = (48, 64)  # (h, w)


def images() -> list[dict]:
    h, w = SIZE
    return [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i in (1, 2)]


def categories() -> list[dict]:
    return [{"id": i, "name": name, "supercategory": "thing"} for i, name in enumerate([*BASE, *NOVEL], 1)]


def coco() -> dict:
    """COCO instances: polygons, an uncompressed and a compressed mask, a crowd."""
    h, w = SIZE
    full = {"size": [h, w], "counts": [h * w // 2, 100, h * w - h * w // 2 - 100]}
    entries = [
        {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]},
        {"image_id": 1, "category_id": 2, "bbox": [30.5, 10, 12, 16], "segmentation": full},
        {"image_id": 2, "category_id": 3, "bbox": [2, 2, 30, 30], "segmentation": [[2, 2, 32, 2, 32, 32]]},
        {"image_id": 2, "category_id": 1, "bbox": [10, 10, 40, 30], "segmentation": full, "iscrowd": 1},
    ]
    annotations = [{"id": i, "area": e["bbox"][2] * e["bbox"][3], "iscrowd": 0} | e for i, e in enumerate(entries, 1)]
    return {"info": {}, "images": images(), "annotations": annotations, "categories": categories()}


def lvis() -> dict:
    content = coco()
    for image in content["images"]:
        image |= {
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [1],
            "coco_url": f"http://x/val2017/{image['id']}.png",
        }
    for category, frequency in zip(content["categories"], "fcr", strict=True):
        category |= {"frequency": frequency, "image_count": 3, "synset": "x.n.01"}
    content["annotations"] = [a for a in content["annotations"] if not a["iscrowd"]]
    return content


def results() -> list[dict]:
    return [
        {"image_id": 1, "category_id": 1, "bbox": [4.0, 4.0, 20.0, 20.0], "score": 0.9},
        {"image_id": 1, "category_id": 2, "bbox": [30.0, 10.0, 12.0, 16.0], "score": 0.5},
        {"image_id": 2, "category_id": 3, "bbox": [1.0, 1.0, 30.0, 30.0], "score": 0.25},
    ]


def results_with_masks() -> list[dict]:
    h, w = SIZE
    found = results()
    for entry in found:
        entry["segmentation"] = {
            "size": [h, w],
            "counts": _rle(h, w),
        }
    return found


def _rle(h: int, w: int) -> str:
    from pycocotools import mask

    pixels = np.zeros((h, w), dtype=np.uint8, order="F")
    pixels[4:24, 4:24] = 1
    return mask.encode(pixels)["counts"].decode()


def prediction_log() -> list[dict]:
    return [
        {"origin": "x"},
        {
            "image_id": 1,
            "category_id": [1, 2],
            "bbox": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
            "score": [0.5, 0.25],
        },
        {"image_id": 2, "category_id": [], "bbox": [], "score": []},
    ]


def panoptic() -> dict:
    segments = [
        {"id": 1, "category_id": 1, "bbox": [0, 0, 32, 48], "area": 1536, "iscrowd": 0},
        {"id": 2, "category_id": 2, "bbox": [32, 0, 32, 48], "area": 1536, "iscrowd": 0},
    ]
    found = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "grass", "isthing": 0}]
    return {
        "images": images()[:1],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
        "categories": found,
    }


def conversations() -> list[dict]:
    turns = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "a cat"}]
    return [
        {"id": "1", "image": "1.png", "conversations": turns},
        {"id": "2", "conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hello"}]},
    ]


def questions() -> list[dict]:
    return [{"question_id": i, "image": f"{i}.png", "text": "Is there a cat?", "category": "random"} for i in (1, 2)]


def answers() -> list[dict]:
    return [
        {"question_id": i, "prompt": "Is there a cat?", "text": t, "answer_id": "x", "model_id": "m", "metadata": {}}
        for i, t in ((1, "Yes"), (2, "no."))
    ]


def pope() -> list[dict]:
    return [
        {"question_id": i, "image": f"{i}.png", "text": "Is there a cat?", "label": t}
        for i, t in ((1, "yes"), (2, "no"))
    ]


def gqa() -> dict:
    return {
        str(i): {
            "imageId": "x",
            "question": "Is there a cat?",
            "answer": a,
            "isBalanced": True,
            "types": {"structural": "query", "detailed": "x", "semantic": "obj"},
        }
        for i, a in ((1, "yes"), (2, "no"))
    }


def textvqa() -> dict:
    return {
        "data": [
            {"image_id": f"i{i}", "question": "Is there a cat?", "answers": ["yes"] * 10, "question_id": i}
            for i in (1, 2)
        ]
    }


def description() -> dict:
    split = {"annotations": "truth.json", "images": "images"}
    return {"name": "fuzzed", "base": BASE, "novel": NOVEL, "train": split, "val": dict(split), "evaluator": "ov_coco"}


def semantic_description() -> dict:
    split = {"images": "images", "labels": "labels"}
    return {
        "name": "fuzzed",
        "classes": [*BASE, *NOVEL],
        "novel": NOVEL,
        "ignore": 255,
        "train": split,
        "val": dict(split),
    }


def config() -> dict:
    """Keys of many kinds."""
    return {
        "MODEL": {
            "DEVICE": "cpu",
            "ENCODER": {"NAME": "DenseRC-Miniature"},
            "PIXEL_MEAN": [1.0, 2.0, 3.0],
            "RPN": {"NMS_THRESH": 0.7, "BATCH_SIZE_PER_IMAGE": 64},
            "ROI_HEADS": {"SCORE_THRESH_TEST": 0.05},
        },
        "SOLVER": {
            "BASE_LR": 0.001,
            "MAX_ITER": 100,
            "IMS_PER_BATCH": 8,
            "STEPS": [50],
            "GAMMA": 0.1,
            "WEIGHT_DECAY": 0.0,
        },
        "DISTILL": {"COHERENCE": {"WEIGHT": 0.1}, "CROP_SIZE": 64},
        "INPUT": {"SIZE": 128},
        "DATALOADER": {"NUM_WORKERS": 0, "MAX_UNREADABLE": 0.01},
        "DATASETS": {"TRAIN": ["x"], "TEST": []},
        "TEST": {"DETECTIONS_PER_IMAGE": 100},
        "SEED": 0,
        "OUTPUT_DIR": "output/x",
    }


VOC_XML = b"""<annotation><filename>000001.jpg</filename><size><width>64</width><height>48</height><depth>3</depth>
</size><object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>24</xmax><ymax>24</ymax></bndbox></object>
</annotation>"""


def write(folder: Path) -> None:
    """Write everything that stays valid: pictures, panoptic PNGs, label files, the truth."""
    generator = np.random.default_rng(0)
    for name in ("images", "panoptic", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    h, w = SIZE
    for i in (1, 2):
        Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
        labels = np.zeros((h, w), dtype=np.uint8)
        labels[:, w // 2 :] = 1
        Image.fromarray(labels).save(folder / "labels" / f"{i}.png")
        ids = np.zeros((h, w, 3), dtype=np.uint8)
        ids[..., 0] = labels + 1
        Image.fromarray(ids).save(folder / "panoptic" / f"{i}.png")
    (folder / "truth.json").write_text(json.dumps(coco()))
    (folder / "lvis.json").write_text(json.dumps(lvis()))
    (folder / "results.json").write_text(json.dumps(results()))
    (folder / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions()))
    (folder / "answers.jsonl").write_text("".join(json.dumps(q) + "\n" for q in answers()))
    instruction = "Is there a cat?\nAnswer the question using a single word or phrase."
    lines = [answer | {"prompt": instruction, "question_id": f"i{answer['question_id']}"} for answer in answers()]
    (folder / "textvqa_answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "pope").mkdir(exist_ok=True)
    (folder / "pope" / "coco_pope_random.json").write_text("".join(json.dumps(q) + "\n" for q in pope()))
