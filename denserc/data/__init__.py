"""Data: vocabularies, prompts, text embeddings, splits, registration in Detectron2."""
