"""Masks as polygons along pixel edges, from which pycocotools draws exactly the same mask.

COCO's polygons cannot have holes, so a piece with a hole (a ring) is first cut in two through the hole.
"""

import cv2
import numpy as np

# Directions along pixel edges, y down: right, down, left, up. With the inside on the right hand, turning
# right first where two pixels meet at a corner keeps pixels that only touch diagonally in separate loops.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """(H, W) bool -> polygons [x0, y0, x1, y1, ...] in pixels, one for each piece; none for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))  # what is around it takes time for nothing
    count, pieces = cv2.connectedComponents(
        mask[top : top + height, left : left + width].astype(np.uint8), connectivity=4
    )
    polygons = []
    for value in range(1, count):
        polygons += _trace_piece(pieces == value)
    return [[v + (left, top)[i % 2] for i, v in enumerate(polygon)] for polygon in polygons]


def _trace_piece(piece: np.ndarray) -> list[list[float]]:
    """The polygons of one 4-connected piece, cut until no part has a hole."""
    loops = _loops(piece)
    hole = next((loop for loop in loops if _signed_area(loop) < 0), None)
    if hole is None:
        return [[float(v) for corner in loop for v in corner] for loop in loops]
    middle = (hole[:, 0].min() + hole[:, 0].max()) // 2 + 1
    left, right = piece.copy(), piece.copy()
    left[:, middle:] = False
    right[:, :middle] = False
    return mask_to_polygons(left) + mask_to_polygons(right)


def _signed_area(loop: np.ndarray) -> float:
    """Positive for an outer border, negative for a hole's."""
    x, y = loop[:, 0], loop[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _loops(piece: np.ndarray) -> list[np.ndarray]:
    """Closed borders (P, 2) of corner points (x, y), the inside on the right hand; straight runs merged."""
    padded = np.pad(piece, 1)
    inside = padded[1:-1, 1:-1]
    leaving: dict[tuple[int, int], set[int]] = {}  # corner -> directions of the border edges that start there
    for direction, (neighbour, dx, dy) in enumerate(
        ((padded[:-2, 1:-1], 0, 0), (padded[1:-1, 2:], 1, 0), (padded[2:, 1:-1], 1, 1), (padded[1:-1, :-2], 0, 1))
    ):
        for y, x in np.argwhere(inside & ~neighbour):
            leaving.setdefault((int(x) + dx, int(y) + dy), set()).add(direction)
    loops = []
    for start, directions in leaving.items():
        while directions:
            loops.append(_walk(leaving, start, min(directions)))
    return loops


def _walk(leaving: dict[tuple[int, int], set[int]], start: tuple[int, int], first: int) -> np.ndarray:
    """The corners of one closed border; its edges are taken out of `leaving`."""
    corner, direction, corners = start, first, []
    while True:
        corner = (corner[0] + _STEPS[direction][0], corner[1] + _STEPS[direction][1])
        turned = next(d % 4 for d in (direction + 1, direction, direction - 1) if d % 4 in leaving[corner])
        if turned != direction:
            corners.append(corner)
        leaving[corner].remove(turned)
        if (corner, turned) == (start, first):
            return np.array(corners)
        direction = turned
