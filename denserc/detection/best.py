"""The best checkpoint of a training, by one metric of its evaluations."""

import logging
import math
from pathlib import Path

from ..structures import ConfigurationError
from .checkpoint import FViTCheckpointer, read_detector

logger = logging.getLogger(__name__)

NAME = "model_best"
AUTO = ("ov_lvis_masks/AP_rare", "ov_lvis/AP_rare", "ov_coco/AP50_novel", "coco/AP_all")


class BestCheckpoint:
    """Writes model_best.pth whenever an evaluation is better than all before.

    The file has the evaluated weights and says in its entry "best" which metric it reached at which step; a resumed
    training goes on from there.

    Args:
        checkpointer: writes the file.
        metric: "task/metric" of the first test set's results, larger is better; "auto": the first of AUTO found.
        resumed: compare with the file that lies there already.
    """

    def __init__(self, checkpointer: FViTCheckpointer, metric: str, *, resumed: bool):
        self.checkpointer = checkpointer
        self.metric = metric
        self.value = -math.inf
        path = Path(checkpointer.save_dir) / f"{NAME}.pth"
        if resumed and path.is_file():
            best = read_detector(path)["best"]
            if metric in ("auto", best["metric"]):
                self.metric, self.value = best["metric"], best["value"]

    def offer(self, results: dict[str, dict[str, float]], step: int) -> None:
        """Results of the evaluation after `step` steps, by task and metric; empty on other processes than the first.

        Raises:
            ConfigurationError: the named metric is not among them.
        """
        found = {f"{task}/{name}": value for task, scores in results.items() for name, value in scores.items()}
        if not found:
            return
        if self.metric == "auto":
            known = [name for name in AUTO if name in found]
            if not known:
                logger.warning("No best checkpoint: none of %s is among the results; set TEST.BEST.", ", ".join(AUTO))
                return
            self.metric = known[0]
        if self.metric not in found:
            raise ConfigurationError(f"TEST.BEST is {self.metric!r}; the results have {', '.join(sorted(found))}.")
        value = float(found[self.metric])
        if not value > self.value:  # NaN is greater than nothing
            return
        logger.info("%s %.3f after %d steps is the best so far.", self.metric, value, step)
        self.value = value
        self.checkpointer.save_model(NAME, best={"metric": self.metric, "value": value, "step": step})
