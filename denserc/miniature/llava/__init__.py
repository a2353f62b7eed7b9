"""LLaVA's recipe on the miniature world: questions about scenes, a small language model, packed sequences."""
