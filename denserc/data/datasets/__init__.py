"""Data sets: registration, annotation files, splits, lists of images."""
