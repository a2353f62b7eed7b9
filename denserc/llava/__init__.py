"""LLaVA-1.5 over a DenseRC encoder: data, templates, training. Importing this package imports no transformers."""
