"""The paper's ablations, measured (`denserc lab ablate`).

Rows of one seed receive the same draws, so the frozen models are run once for all of them. Finished runs are kept on
disk by their settings and shared between tables; each downstream measure of a run is kept beside it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode

from ..analysis.ablation_report import disagreements, tabulate
from ..analysis.ablation_tables import REGIONS, TABLES, Variant
from ..config import override
from ..construction import build_dense_model, save_checkpoint
from ..distillation.engine import run
from ..distillation.export import PRODUCT_NAME
from ..distillation.target_cache import TargetMemory
from ..evaluation import evaluate_dense_model
from ..miniature.demo.run import say
from ..structures import cached_result
from ..structures.files import write_json, write_text
from ..visualization import ResultTable, print_table
from .downstream import check_configs, measure_downstream


def measure(
    base: CfgNode,
    variant: Variant,
    seed: int,
    output: Path,
    memory: TargetMemory | None = None,
    downstream: Mapping[str, CfgNode] | None = None,
) -> dict[str, float]:
    """Distill one row with one seed and measure it; finished runs and measurements are read from disk.

    Args:
        base: Configuration of the distillation, changed by the row's settings.
        variant: Row.
        seed: Seed of the distillation and of the trainings over it.
        output: Folder of all runs.
        memory: Features of the frozen models, shared by the rows of one seed.
        downstream: Key of `downstream.TASKS` -> its configuration; None or {}: region classification only.

    Returns:
        {measure: score in percent}; see `analysis.ablation_report` for the keys.
    """
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

    regions = cached_result(folder / "result.json", settings, compute)["regions"]
    scores = {key: regions[key] for key in REGIONS}
    checkpoint = folder / PRODUCT_NAME
    if downstream and not variant.trained and not checkpoint.is_file():
        save_checkpoint(checkpoint, build_dense_model(cfg))
    for name, task_cfg in (downstream or {}).items():
        scores |= measure_downstream(name, task_cfg, checkpoint, seed, folder)
    return scores


def ablate(
    base: CfgNode,
    names: Sequence[str],
    seeds: Sequence[int],
    output: Path,
    downstream: Mapping[str, CfgNode] | None = None,
) -> dict[str, ResultTable]:
    """Measure and print the named tables; writes ablation_<name>.json and .md for each.

    Args:
        base: Configuration of the distillation.
        names: Keys of TABLES.
        seeds: Seeds; every row is measured once per seed.
        output: Folder of the tables, and of the runs in `runs`.
        downstream: Key of `downstream.TASKS` -> its configuration; each adds columns to every table.

    Raises:
        ConfigurationError: A downstream configuration that cannot be run; raised before any distillation.
    """
    check_configs(downstream or {})
    runs: dict[str, dict[str, list]] = {name: {v.title: [] for v in TABLES[name].variants} for name in names}
    for seed in seeds:
        memory = TargetMemory()  # the draws of another seed are others
        for name in names:
            for variant in TABLES[name].variants:
                say(f"seed {seed}, {TABLES[name].title}: {variant.title}")
                runs[name][variant.title].append(measure(base, variant, seed, output, memory, downstream))
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
