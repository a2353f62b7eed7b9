"""The paper's ablations, measured (`denserc lab ablate`).

Rows of one seed receive the same draws, so the frozen models are run once for all of them. Finished runs are kept on
disk by their settings and shared between tables.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode

from ..analysis.ablation_tables import OURS, TABLES, Ablation, Variant
from ..config import override
from ..distillation.engine import run
from ..distillation.target_cache import TargetMemory
from ..evaluation import evaluate_dense_model
from ..miniature.demo.run import say
from ..structures import cached_result
from ..structures.files import write_json, write_text
from ..visualization import Column, ResultTable, RunStatistics, print_table

Runs = Mapping[str, Sequence[Mapping[str, float]]]  # row -> one dict of metrics a seed


def measure(
    base: CfgNode, variant: Variant, seed: int, output: Path, memory: TargetMemory | None = None
) -> dict[str, float]:
    """Region classification after one training of a row; a finished one is taken from disk."""
    cfg = base.clone()
    cfg.defrost()
    override(cfg, variant.settings, variant.title)
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

    return cached_result(folder / "result.json", settings, compute)["regions"]


def tabulate(ablation: Ablation, runs: Runs) -> ResultTable:
    """Ours with their spread, then the paper's."""
    ours = [Column(key, title=title) for key, title in OURS.items()]
    theirs = [Column(f"paper {name}", title=f"{name} (paper)") for name in ablation.measures]
    rows = {
        variant.title: {key: RunStatistics.of(run[key] for run in runs[variant.title]) for key in OURS}
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
            difference = RunStatistics.of(b[ours] - w[ours] for b, w in paired)
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
        write_json(output / f"ablation_{name}.json", content, indent=2)
        listing = "\n".join(f"- {remark}" for remark in remarks)
        write_text(output / f"ablation_{name}.md", f"{table.to_markdown()}\n\n{listing}\n")
        tables[name] = table
    return tables
