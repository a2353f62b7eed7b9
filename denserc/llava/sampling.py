"""Order of the training examples: random, or grouped by modality and length as in LLaVA's stage 2."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from .conversations import Conversation


class ConversationSampler(Sampler[int]):
    """Positions of all examples, in an order that follows from seed and epoch only.

    Args:
        size: Number of examples.
        seed: Seed of the run.
        lengths: Signed lengths (see `modality_lengths`) to group by; None: random order.
        batch: Examples per forward pass and process.
        batches: Forward passes of one step, over all processes and accumulated ones.
    """

    def __init__(self, size: int, *, seed: int, lengths: Sequence[int] | None = None, batch: int = 1, batches: int = 1):
        self.size = size
        self.seed = seed
        self.lengths = lengths
        self.batch = batch
        self.batches = batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        if self.lengths is None:
            yield from torch.randperm(self.size, generator=generator).tolist()
        else:
            yield from grouped_by_modality(self.lengths, self.batch, self.batches, generator)


def modality_lengths(conversations: Sequence[Conversation]) -> list[int]:
    """Words of each conversation, negative for those of text only."""
    return [one.words if one.image is not None else -one.words for one in conversations]


def grouped_by_modality(lengths: Sequence[int], batch: int, batches: int, generator: torch.Generator) -> list[int]:
    """Positions in steps of one modality each, of similar length within a forward pass.

    A step has `batch * batches` examples, ordered so that pass after pass can be cut off. Steps of both modalities come
    in random order. What does not fill a step of its modality makes up the last ones.

    Args:
        lengths: Positive with a picture, negative without; none is 0.
        batch: Examples per forward pass.
        batches: Forward passes per step.
    """
    whole, rest = [], []
    for modality in (
        [position for position, length in enumerate(lengths) if length > 0],
        [position for position, length in enumerate(lengths) if length < 0],
    ):
        steps = _grouped_by_length(modality, lengths, batch, batches, generator)
        # As in LLaVA, the last step of each modality comes after all others, even where it is full.
        whole += steps[:-1]
        rest += steps[-1] if steps else []
    order = torch.randperm(len(whole), generator=generator).tolist()
    return [position for step in order for position in whole[step]] + rest


def _grouped_by_length(
    positions: list[int], lengths: Sequence[int], batch: int, batches: int, generator: torch.Generator
) -> list[list[int]]:
    """Steps of randomly drawn positions, each divided among its forward passes by length."""
    drawn = [positions[index] for index in torch.randperm(len(positions), generator=generator).tolist()]
    size = batch * batches
    steps = [sorted(drawn[i : i + size], key=lambda one: -abs(lengths[one])) for i in range(0, len(drawn), size)]
    return [[one for share in _even_shares(step, lengths, batches) for one in share] for step in steps]


def _even_shares(positions: list[int], lengths: Sequence[int], shares: int) -> list[list[int]]:
    """Shares of equal number and about equal total length, of positions sorted from long to short."""
    if len(positions) % shares:
        return [positions[start::shares] for start in range(shares)]
    most = len(positions) // shares
    divided: list[list[int]] = [[] for _ in range(shares)]
    totals = [0] * shares
    for position in positions:
        open_shares = [share for share in range(shares) if len(divided[share]) < most]
        shortest = min(open_shares, key=totals.__getitem__)
        divided[shortest].append(position)
        totals[shortest] += abs(lengths[position])
    return divided
