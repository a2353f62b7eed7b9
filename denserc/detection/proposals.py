"""Export of a trained RPN's proposals in COCO's results format, the regions of a distillation for detection."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from detectron2.utils import comm
from tqdm import tqdm

from ..data.proposals import result_lines, write_results
from ..structures import ConfigurationError, DataError, write_errors
from .modeling.meta_arch import FViT
from .modeling.postprocess import original_size, proposals_to_original_size

logger = logging.getLogger(__name__)


@torch.no_grad()
def propose(model: FViT, batched_inputs: list[dict]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The RPN's proposals of a batch, without the second stage; the model must be in eval mode.

    Args:
        batched_inputs: Inputs of the model; "height" and "width" are those of the original image.

    Returns:
        For each image (P, 4) boxes, (x1, y1, x2, y2) in pixels of the original image, and (P,) scores in 0..1, best
        first.
    """
    images = model.preprocess(batched_inputs)
    proposals, _ = model.proposal_generator(images, model.backbone(images.tensor))
    found = []
    for one, result in zip(batched_inputs, proposals, strict=True):
        original = proposals_to_original_size(result, original_size(one, result))
        found.append((original.proposal_boxes.tensor.cpu(), original.scores.cpu()))
    return found


def write_proposals(model: FViT, loader: Iterable[list[dict]], file: str | Path, *, per_image: int = 1000) -> int:
    """Write the proposals of all images; each process has another share of them in its loader.

    Every process writes its part beside `file`; the first joins them, so the folder must be one that all see.

    Args:
        loader: Batches of the model's inputs with "image_id"; no image in two of them.
        file: Gzipped if it ends in ".gz"; replaced only when everything is written.
        per_image: Number of best proposals per image.

    Returns:
        The number of proposals; 0 on processes other than the first.

    Raises:
        ConfigurationError: per_image is more than the RPN gives.
        DataError: A process's part is not where the first looks for it.
    """
    file, most = Path(file), model.proposal_generator.post_nms[1]
    if not 0 < per_image <= most:
        raise ConfigurationError(
            f"Proposals per image must be in 1..{most}, MODEL.RPN.POST_NMS_TOPK_TEST; got {per_image}."
        )
    with write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    parts = [file.with_name(f".{file.name}.part{rank}") for rank in range(comm.get_world_size())]
    own, modes = parts[comm.get_rank()], model.training
    model.eval()
    try:
        with write_errors(own), own.open("w", encoding="utf-8") as part:
            bar = tqdm(loader, desc="propose", unit="batch", disable=not comm.is_main_process(), mininterval=0.5)
            for batch in bar:
                for one, (boxes, scores) in zip(batch, propose(model, batch), strict=True):
                    lines = result_lines(one["image_id"], boxes[:per_image].numpy(), scores[:per_image].numpy())
                    part.writelines(f"{line}\n" for line in lines)
        comm.synchronize()
        count = write_results(file, _joined(parts)) if comm.is_main_process() else 0
        comm.synchronize()
    finally:
        model.train(modes)
        own.unlink(missing_ok=True)
    if comm.is_main_process():
        logger.info(f"Wrote {count} proposals to {file}.")
    return count


def _joined(parts: list[Path]) -> Iterator[str]:
    for path in parts:
        try:
            with path.open(encoding="utf-8") as part:
                yield from (line.rstrip("\n") for line in part)
        except FileNotFoundError:
            raise DataError(
                f"{path}, a process's share of the proposals, is not there. All processes must see the folder "
                f"{path.parent}: choose one on a shared disk."
            ) from None
