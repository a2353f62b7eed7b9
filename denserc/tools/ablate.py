"""The paper's ablations, measured: `python -m denserc.tools.ablate --table 11|12|13|construction|gates`.

Every row is distilled once a seed from the same base config, by default the miniature's, whose data are
written first where they are missing, and measured by region classification (top-1 mean accuracy: boxes, thing masks,
stuff masks). The table shows mean and deviation over the seeds beside the paper's figures, and below it which pairs
of rows are ordered otherwise than there. Finished runs are kept on disk and shared between tables; rows of one
seed see the same draws, so the frozen models are asked once for all of them.

    python -m denserc.tools.ablate --table 11 --seeds 0 1 2
    python -m denserc.tools.ablate --config-file configs/distill/denserc_vitb16.yaml --table construction \
        MODEL.ENCODER.WEIGHTS EVA02_CLIP_B_psz16_s8B.pt DISTILL.FOUNDATION.WEIGHTS timm
"""

import argparse
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode

from ..analysis.ablation_tables import OURS, TABLES, Ablation, Variant
from ..config import get_denserc_config
from ..data.datasets.builtin import register_all
from ..distillation.engine import run
from ..distillation.target_cache import TargetMemory
from ..evaluation import evaluate_dense_model
from ..launch import data_root
from ..miniature.demo.run import quiet_log, say
from ..miniature.demo.stages import Places, prepare_world
from ..structures import kept
from ..visualization import Column, ResultTable, Spread, print_table, write_results

REPOSITORY = Path(__file__).parents[2]
MINIATURE_CONFIG = REPOSITORY / "configs" / "miniature" / "distill_denserc.yaml"

Runs = Mapping[str, Sequence[Mapping[str, float]]]  # row -> one dict of metrics a seed


def measure(
    base: CfgNode, variant: Variant, seed: int, output: Path, memory: TargetMemory | None = None
) -> dict[str, float]:
    """Region classification after one training of a row; a finished one is taken from disk."""
    cfg = base.clone()
    cfg.defrost()
    cfg.merge_from_list(list(variant.settings))
    cfg.SEED = seed
    cfg.OUTPUT_DIR = ""
    settings = f"{variant.trained} {cfg.dump()}"
    folder = output / "runs" / hashlib.sha256(settings.encode()).hexdigest()[:16]
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()

    def compute() -> dict:
        results = run(
            cfg, resume=variant.trained, eval_only=not variant.trained, evaluator_factory=evaluate_dense_model,
            memory=memory,
        )  # fmt: skip
        return {"row": variant.title, "seed": seed, "regions": results["region_classification"]}

    return kept(folder / "result.json", settings, compute)["regions"]


def tabulate(ablation: Ablation, runs: Runs) -> ResultTable:
    """Ours with their spread, then the paper's."""
    ours = [Column(key, title=title) for key, title in OURS.items()]
    theirs = [Column(f"paper {name}", title=f"{name} (paper)") for name in ablation.measures]
    rows = {
        variant.title: {key: Spread.of(run[key] for run in runs[variant.title]) for key in OURS}
        | {f"paper {name}": value for name, value in variant.paper.items()}
        for variant in ablation.variants
    }
    return ResultTable([*ours, *theirs], rows, corner=ablation.title)


def disagreements(ablation: Ablation, runs: Runs) -> list[str]:
    """One sentence a pair of rows that stands the other way round than in the paper, with the paired difference.

    Rows of one seed share their draws, so the difference is taken seed by seed.
    """
    found, pairs, agreeing = [], 0, 0
    for paper, ours in ablation.measures.items():
        for one, two in itertools.combinations(ablation.variants, 2):
            if ours is None or one.paper[paper] == two.paper[paper]:
                continue
            worse, better = sorted((one, two), key=lambda v: v.paper[paper])
            pairs += 1
            paired = zip(runs[better.title], runs[worse.title], strict=True)
            difference = Spread.of(b[ours] - w[ours] for b, w in paired)
            if difference.mean > 0:
                agreeing += 1
                continue
            found.append(
                f"{paper}: the paper has {better.title!r} {better.paper[paper] - worse.paper[paper]:.1f} above "
                f"{worse.title!r}; here {OURS[ours]} differs by {difference.mean:.1f} ± {difference.deviation:.1f}."
            )
    if not pairs:
        return []
    return [f"{agreeing} of {pairs} pairs of rows are ordered as in the paper.", *found]


def ablate(base: CfgNode, names: Sequence[str], seeds: Sequence[int], output: Path) -> dict[str, ResultTable]:
    """Measures and prints the named tables; writes ablation_<name>.json and .md for each."""
    runs: dict[str, dict[str, list]] = {name: {v.title: [] for v in TABLES[name].variants} for name in names}
    for seed in seeds:
        memory = TargetMemory()  # the draws of another seed are others
        for name in names:
            for variant in TABLES[name].variants:
                say(f"seed {seed}, {TABLES[name].title}: {variant.title}")
                runs[name][variant.title].append(measure(base, variant, seed, output, memory))
    tables = {}
    for name in names:
        ablation = TABLES[name]
        table, remarks = tabulate(ablation, runs[name]), disagreements(ablation, runs[name])
        print_table(table, title=f"{ablation.title}; {len(seeds)} seeds, mean ± deviation")
        print(*remarks, sep="\n")
        content = {"table": table, "runs": runs[name], "remarks": remarks, "seeds": list(seeds)}
        write_results(output / f"ablation_{name}.json", content)
        listing = "\n".join(f"- {remark}" for remark in remarks)
        (output / f"ablation_{name}.md").write_text(f"{table.to_markdown()}\n\n{listing}\n", encoding="utf-8")
        tables[name] = table
    return tables


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", choices=list(TABLES), required=True, help="which tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--config-file", type=Path, help="the base config; the miniature's by default")
    parser.add_argument("--output", type=Path, default=Path("output/ablations"), help="folder of runs and tables")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config keys and values for every row")
    args = parser.parse_args(arguments)
    quiet_log(args.output)
    base = get_denserc_config()
    base.merge_from_file(str(args.config_file or MINIATURE_CONFIG))
    base.merge_from_list(args.opts)
    register_all(data_root())
    if args.config_file is None:
        prepare_world(Places(args.output, REPOSITORY / "configs"))
    ablate(base, args.table, args.seeds, args.output)


if __name__ == "__main__":
    main()
