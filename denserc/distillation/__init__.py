"""Distillation: a frozen CLIP teaches a dense encoder region by region, a foundation model token by token."""
