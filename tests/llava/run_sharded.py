"""One process of a training whose weights are shared by FSDP2 on the CPU.

accelerate has FSDP for accelerators only and silently takes DDP on a CPU. PyTorch's own FSDP2 works there, so this
script lets accelerate believe in an accelerator whose tensors are on the CPU. A file "interrupt" in OUTPUT_DIR ends the
training in its sixth step.
"""

import sys
from pathlib import Path

from accelerate import state
from accelerate.utils import DistributedType
from detectron2.engine import default_argument_parser

from denserc.launch import launch_parsed
from denserc.llava.trainer import LlavaTrainer
from denserc.tools.train import train

initialize = state.PartialState.__init__
step = LlavaTrainer.training_step


def initialize_as_accelerator(self, *arguments, **options) -> None:
    initialize(self, *arguments, **options)
    if self.distributed_type is DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_XPU


def step_or_interrupt(self, *arguments):
    if self.state.global_step == 5 and (Path(self.args.output_dir) / "interrupt").exists():
        raise RuntimeError("interrupted as asked")
    return step(self, *arguments)


if __name__ == "__main__":
    LlavaTrainer.training_step = step_or_interrupt
    state.PartialState.__init__ = initialize_as_accelerator
    launch_parsed(train, default_argument_parser().parse_args(sys.argv[1:]))
