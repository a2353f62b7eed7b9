"""What remains of a step that went wrong: its batches and losses in a file."""

from collections.abc import Sequence
from pathlib import Path

from .files import write_atomically


def save_failed_step(
    folder: str | Path,
    *,
    step: int,
    rank: int,
    world_size: int,
    seed: int,
    images_drawn: int,
    batches: Sequence[dict | list],
    sizes: Sequence[int],
    losses: Sequence[dict[str, float]],
) -> Path:
    """Writes nan_batch_step<N>_rank<R>.pt, which torch.load(..., weights_only=True) reads.

    Its entries are the arguments, but for "sizes", and "draws": the number of each image's draw, by which the
    training set finds the same image again.

    Args:
        folder: where to.
        step: number of the step in progress, from 1.
        rank, world_size: of this process.
        seed: of the data.
        images_drawn: images used before this step, over all processes.
        batches: this process's batches of the step, on the CPU, as plain containers and tensors.
        sizes: images of each.
        losses: their losses, by name.
    """
    first, draws = images_drawn + rank, []
    for size in sizes:
        draws.append([first + world_size * position for position in range(size)])
        first += world_size * size
    content = {
        "step": step,
        "rank": rank,
        "world_size": world_size,
        "seed": seed,
        "images_drawn": images_drawn,
        "batches": list(batches),
        "losses": list(losses),
        "draws": draws,
    }
    return write_atomically(Path(folder) / f"nan_batch_step{step}_rank{rank}.pt", content)
