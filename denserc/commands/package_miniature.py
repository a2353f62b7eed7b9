"""`denserc lab package-miniature`: the model that is installed with the package."""

from pathlib import Path

from .parsing import CommandParser

DESCRIPTION = """\
Make the packaged model anew: propose regions by a first detector, distill the miniature CLIP on them, train a detector
over it, write both to one file in half precision, and evaluate that file. The configs are miniature/distill_denserc and
packaged_proposals, then packaged_distill and packaged_fvit. A second call resumes. Writes miniature.safetensors and its
figures, miniature.json."""

EXAMPLES = """
denserc lab package-miniature --output output/miniature/packaged
denserc lab package-miniature --output output/miniature/packaged --world output/demo/world
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("lab package-miniature", DESCRIPTION, EXAMPLES)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--world", type=Path, metavar="DIR", help="miniature data sets (default: written to DIR/world)")
    parser.add_argument("--configs", type=Path, help="folder of configs (default: the packaged ones)")
    parser.add_argument("--seed", type=int, default=0, help="seed of distillation and detector training (default: 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    import torch

    from ..miniature.demo.run import quiet_log
    from ..miniature.package import package_miniature
    from ..model_zoo import configs_folder

    torch.set_num_threads(args.threads)
    quiet_log(args.output)
    found = package_miniature(args.output, args.configs or configs_folder(), world=args.world, seed=args.seed)
    detection, transfer = found["figures"]["detection"], found["figures"]["transfer"]
    print(", ".join(f"{name} {value:.1f}" for name, value in detection.items() if "AP50" in name))
    print(f"transfer: AP {transfer['AP_all']:.1f}; {found['bytes'] / 1e6:.2f} MB; written to {args.output}")
