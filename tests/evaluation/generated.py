"""Random detection sets with difficult cases: crowds, ignored objects, empty images, absent classes."""

import numpy as np
from pycocotools import mask as mask_api

CATEGORY_IDS = (7, 3, 11, 90, 42, 5)  # on purpose neither sorted nor dense; 5 never appears
SIDE = 160


def rle(mask: np.ndarray) -> dict:
    """(H, W) bool -> a result's compressed mask."""
    code = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def box_mask(box) -> np.ndarray:
    x, y, w, h = (int(round(v)) for v in box)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[max(y, 0) : y + max(h, 1), max(x, 0) : x + max(w, 1)] = True
    return mask


def ground_truth(seed: int, images: int = 12, federated: bool = False) -> dict:
    rng = np.random.default_rng(seed)
    annotations = []
    for image in range(1, images + 1):
        for _ in range(0 if image % 5 == 0 else rng.integers(1, 9)):
            w, h = rng.uniform(3, 110, 2)
            box = [float(rng.uniform(0, SIDE - w)), float(rng.uniform(0, SIDE - h)), float(w), float(h)]
            box = [float(int(v)) for v in box]
            crowd = int(not federated and rng.random() < 0.15)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(rng.choice(CATEGORY_IDS[:-1])),
                "bbox": box,
                "area": box[2] * box[3],
                "segmentation": rle(box_mask(box)),
            }
            if not federated:
                annotation |= {"iscrowd": crowd, "ignore": int(rng.random() < 0.1)}
            annotations.append(annotation)
    result = {
        "images": [{"id": i, "height": SIDE, "width": SIDE, "file_name": f"{i}.png"} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": c, "name": f"class {c}", "frequency": "rcf"[i % 3]} for i, c in enumerate(CATEGORY_IDS)],
    }
    for image in result["images"] if federated else ():
        image["neg_category_ids"] = [int(c) for c in rng.choice(CATEGORY_IDS, 2, replace=False)]
        image["not_exhaustive_category_ids"] = [int(c) for c in rng.choice(CATEGORY_IDS, 1)]
    return result


def detections(truth: dict, seed: int, masks: bool = False) -> list[dict]:
    """Shaken copies of the truth, wrong classes, duplicates and inventions, with tied scores."""
    rng = np.random.default_rng(seed + 1000)
    found = []

    def put(image, category, box):
        box = [float(v) for v in box]
        box[2:] = [max(v, 1.0) for v in box[2:]]
        found.append(
            {"image_id": image, "category_id": int(category), "bbox": box, "score": round(float(rng.random()), 2)}
        )
        if masks:
            found[-1]["segmentation"] = rle(box_mask(box))

    for annotation in truth["annotations"]:
        for _ in range(rng.integers(0, 3)):
            box = np.array(annotation["bbox"]) + rng.normal(0, 0.08, 4) * np.array(annotation["bbox"][2:] * 2)
            put(
                annotation["image_id"],
                annotation["category_id"] if rng.random() < 0.8 else rng.choice(CATEGORY_IDS),
                box,
            )
    for image in truth["images"]:
        for _ in range(rng.integers(0, 4)):
            put(image["id"], rng.choice(CATEGORY_IDS), rng.uniform(5, 70, 4))
    return found


def perfect(truth: dict, masks: bool = False) -> list[dict]:
    keys = ("image_id", "category_id", "bbox") + (("segmentation",) if masks else ())
    return [{k: a[k] for k in keys} | {"score": 0.9} for a in truth["annotations"] if not a.get("iscrowd")]
