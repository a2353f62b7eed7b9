"""The miniature world: a small, deterministic substitute for COCO and LVIS, and a CLIP trained on it."""
