"""The miniature world: a small, deterministic stand-in for COCO and LVIS, and a CLIP trained on it."""
