"""Scenes as entries of the real annotation formats: COCO instances, panoptic, captions, and LVIS v1.

Category ids have gaps and follow neither the class list nor the alphabet, and each file lists its categories
in an order of its own, as the real files do: who matches classes by position gets them wrong here too.
"""

from collections.abc import Collection

import numpy as np

from .crops import View, caption_crop
from .outlines import mask_to_polygons
from .world import BASE_NAMES, CLASS_NAMES, NOVEL_NAMES, STUFF, SYNONYMS, Domain, rename

CAPTIONS_AN_IMAGE = 3
ALL_NAMES = CLASS_NAMES + STUFF
_COMMON = BASE_NAMES[0::2]  # every other base class is common, the rest frequent; novel ones are rare


def _scattered_ids(names: tuple[str, ...], key: int, first: int) -> dict[str, int]:
    """An id for each name: ascending with gaps from `first`, in an order shuffled by `key`."""
    rng = np.random.default_rng([65, key])
    ids = first + np.cumsum(rng.integers(1, 4, len(names)))
    return {names[i]: int(identifier) for i, identifier in zip(rng.permutation(len(names)), ids, strict=True)}


_COCO_IDS = _scattered_ids(CLASS_NAMES, 0, 0)
_TRANSFER_IDS = _scattered_ids(CLASS_NAMES, 1, 0)
_STUFF_IDS = _scattered_ids(STUFF, 2, 200)
_LVIS_IDS = {name: i for i, name in enumerate(sorted(CLASS_NAMES), start=1)}  # LVIS's own run 1..C by the alphabet


def category_id(name: str, domain: Domain) -> int:
    """The id, in the COCO-format files of a domain, of a thing or stuff named in words of the main domain."""
    if name in _STUFF_IDS:
        return _STUFF_IDS[name]
    return (_COCO_IDS if domain is Domain.MAIN else _TRANSFER_IDS)[name]


def lvis_weights() -> np.ndarray:
    """(65,) probabilities of the classes in LVIS training scenes: rare, common and frequent ones."""
    weights = np.array([0.12 if n in NOVEL_NAMES else 0.7 if n in _COMMON else 2.2 for n in CLASS_NAMES])
    return weights / weights.sum()


def coco_categories(domain: Domain, *, file_order: int) -> list[dict]:
    """The 65 thing categories, named by the domain, shuffled by `file_order`."""
    order = np.random.default_rng([66, file_order]).permutation(len(CLASS_NAMES))
    return [
        {
            "supercategory": rename(CLASS_NAMES[i].split()[-1], domain),
            "id": category_id(CLASS_NAMES[i], domain),
            "name": rename(CLASS_NAMES[i], domain),
        }
        for i in order
    ]


def panoptic_categories(domain: Domain, names: Collection[str] = ALL_NAMES) -> list[dict]:
    """Things and stuff by ascending id, each with `isthing` and a color, as in COCO panoptic.

    Args:
        names: Classes to list, in words of the main domain.
    """
    rng = np.random.default_rng(67)
    things = [{**category, "isthing": 1} for category in coco_categories(domain, file_order=0)]
    stuff = [{"supercategory": "ground", "id": _STUFF_IDS[n], "name": rename(n, domain), "isthing": 0} for n in STUFF]
    ordered = sorted(things + stuff, key=lambda category: category["id"])
    colored = [{**category, "color": rng.integers(0, 256, 3).tolist()} for category in ordered]
    listed = {category_id(name, domain) for name in names}
    return [category for category in colored if category["id"] in listed]


def image_entry(image_id: int, view: View, folder: str) -> dict:
    """An image; `coco_url` ends in folder and file as COCO's do, from which LVIS derives the path of an image."""
    height, width = view.scene.segments.shape
    file_name = f"{image_id:012d}.jpg"
    return {
        "id": image_id,
        "file_name": file_name,
        "height": height,
        "width": width,
        "license": 1,
        "coco_url": f"http://images.example.org/{folder}/{file_name}",
    }


def _geometry(view: View, index: int) -> dict:
    """Polygons, box (x, y, w, h) and area of things[index]'s visible part."""
    x1, y1, x2, y2 = (int(v) for v in view.boxes[index])
    return {
        "segmentation": mask_to_polygons(view.scene.thing_mask(index)),
        "area": int(view.areas[len(view.scene.stuff) + index]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
    }


def instance_entries(image_id: int, view: View, first_id: int) -> list[dict]:
    """COCO annotations of a scene's things, numbered from first_id."""
    domain = view.scene.domain
    return [
        {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": category_id(thing.name, domain),
            "iscrowd": 0,
            **_geometry(view, i),
        }
        for i, thing in enumerate(view.scene.things)
    ]


def caption_entries(image_id: int, view: View, first_id: int, rng: np.random.Generator) -> list[dict]:
    """Captions of a whole scene in COCO's format."""
    height, width = view.scene.segments.shape
    return [
        {"id": first_id + k, "image_id": image_id, "caption": caption_crop(view, (0, 0, width, height), rng)}
        for k in range(CAPTIONS_AN_IMAGE)
    ]


def panoptic_entry(
    image_id: int, view: View, rng: np.random.Generator, names: Collection[str] = ALL_NAMES
) -> tuple[dict, np.ndarray]:
    """Panoptic annotation of a scene.

    Args:
        rng: Source of the segment ids.
        names: Classes to annotate, in words of the main domain; pixels of others have the id 0.

    Returns:
        The entry of the JSON file, and the PNG (H, W, 3) uint8 RGB with segment id = R + 256 G + 65536 B.
    """
    scene = view.scene
    present = [i for i, name in enumerate(scene.names) if view.areas[i] > 0 and name in names]
    ids = np.zeros(len(scene.names), np.int64)
    ids[present] = 1 + rng.choice((1 << 24) - 1, len(present), replace=False)  # without a list of all ids
    segments = []
    for i in present:
        rows, columns = np.nonzero(scene.segments == i)
        x, y = int(columns.min()), int(rows.min())
        segments.append(
            {
                "id": int(ids[i]),
                "category_id": category_id(scene.names[i], scene.domain),
                "area": int(view.areas[i]),
                "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
                "iscrowd": 0,
            }
        )
    picture = ids[scene.segments]  # (H, W)
    png = np.stack([picture & 255, picture >> 8 & 255, picture >> 16], -1).astype(np.uint8)
    return {"image_id": image_id, "file_name": f"{image_id:012d}.png", "segments_info": segments}, png


def lvis_image_entry(image_id: int, view: View, folder: str, rng: np.random.Generator) -> dict:
    """An LVIS v1 image: without a file name, but with the classes checked to be absent or not annotated in full."""
    present = sorted({_LVIS_IDS[thing.name] for thing in view.scene.things})
    absent = np.setdiff1d(np.arange(1, len(CLASS_NAMES) + 1), present)
    partial = [int(rng.choice(present))] if present and rng.random() < 0.15 else []
    entry = image_entry(image_id, view, folder)
    del entry["file_name"]
    return {
        **entry,
        "neg_category_ids": sorted(rng.choice(absent, 10, replace=False).tolist()),
        "not_exhaustive_category_ids": partial,
    }


def lvis_annotation_entries(image: dict, view: View, first_id: int) -> list[dict]:
    """LVIS annotations; of a class that is not annotated in full only the farthest instance is kept."""
    entries = []
    kept_partial = set()
    for i, thing in enumerate(view.scene.things):
        category = _LVIS_IDS[thing.name]
        if category in image["not_exhaustive_category_ids"]:
            if category in kept_partial:
                continue
            kept_partial.add(category)
        entries.append(
            {"id": first_id + len(entries), "image_id": image["id"], "category_id": category, **_geometry(view, i)}
        )
    return entries


def lvis_categories(annotations: list[dict]) -> list[dict]:
    """The 65 LVIS v1 categories with the counts of these annotations; the novel classes are the rare ones."""
    categories = []
    for name, identifier in sorted(_LVIS_IDS.items(), key=lambda pair: pair[1]):
        images = [a["image_id"] for a in annotations if a["category_id"] == identifier]
        joined = name.replace(" ", "_")
        texture, colour, shape = name.split()
        categories.append(
            {
                "id": identifier,
                "name": joined,
                "synset": f"{joined}.n.01",
                "synonyms": [joined, "_".join(SYNONYMS[word] for word in (texture, colour, shape))],
                "def": f"a {shape} that is {colour} and {texture}",
                "frequency": "r" if name in NOVEL_NAMES else "c" if name in _COMMON else "f",
                "image_count": len(set(images)),
                "instance_count": len(images),
            }
        )
    return categories
