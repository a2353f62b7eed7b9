"""How the learning rate follows the batch."""

import logging
import math
from enum import Enum

from ..structures import ConfigurationError

logger = logging.getLogger(__name__)


class RateScaling(Enum):
    """How the learning rate follows the total batch; steps and warm-up stay as they are given."""

    NONE = "none"  # the rate is the configuration's, whatever the batch
    LINEAR = "linear"  # times batch / reference
    SQRT = "sqrt"  # times sqrt(batch / reference), the rule for Adam-like optimisers


def scaled_rate(
    base: float, *, batch: int, reference: int, rule: RateScaling, key: str = "the reference batch"
) -> float:
    """The peak learning rate of a total batch; the log says what came out.

    Args:
        base: the rate at the reference batch.
        batch: images a step, over all processes and accumulated batches.
        reference: images a step that `base` was chosen for.
        rule: see `RateScaling`.
        key: of the reference batch in the configuration, for the message.
    """
    if reference < 1:
        raise ConfigurationError(f"{key} is a number of images, at least 1; got {reference}.")
    ratio = batch / reference
    rate = base * {RateScaling.NONE: 1.0, RateScaling.LINEAR: ratio, RateScaling.SQRT: math.sqrt(ratio)}[rule]
    if rule is not RateScaling.NONE:
        logger.info(
            f"Peak learning rate {rate:.4g}: {base:g} at a batch of {reference}, {rule.value} rule, now {batch}."
        )
    return rate
