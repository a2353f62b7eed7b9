"""Entry point of lmms-eval (group `lmms_eval.models`): its `llava_hf` then loads folders with our vision tower."""


def manifests() -> list:
    """No model of our own: importing `denserc.mllm`, which this module is in, has registered the vision tower."""
    return []
