"""Class names: published lists, matching, prompts, text embeddings."""
