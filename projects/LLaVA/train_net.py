"""Train one stage of LLaVA-1.5 over a DenseRC encoder: Detectron2's command line over `denserc.llava`.

    denserc export llava vicuna-7b-v1.5 denserc.safetensors output/llava_start
    torchrun --nproc_per_node=8 projects/LLaVA/train_net.py --config-file configs/llava15_7b_align.yaml \
        MODEL.WEIGHTS output/llava_start
    accelerate launch --config_file fsdp.yaml projects/LLaVA/train_net.py \
        --config-file configs/llava15_7b_instruct.yaml MODEL.WEIGHTS output/llava15_7b_align/model

Several processes are started by torchrun or accelerate; see docs/LLAVA.md for FSDP and DeepSpeed.
"""

from denserc.launch import launch_script
from denserc.tools.train import train


def main(args) -> dict[str, dict]:
    """One process."""
    return train(args)


if __name__ == "__main__":
    launch_script(main)
