"""Runs a paper: its arms, each with all seeds at once, and what came out."""

import time
from collections.abc import Mapping
from typing import Any

from etils.epath import Path

from mm import config, sweep, workdir
from mm.errors import UserError
from mm.papers import Found, Paper, Verdict, table
from mm.tasks.ensemble import ensembled
from mm.train import machine


def run(name: str, folder: Path) -> dict[str, Any]:
    """Trains what is not finished below `folder`/`name`; returns what is kept, also in `table.RESULTS`.

    Raises:
      UserError: no such paper; a run was stopped.
    """
    module = table.opened(name)
    paper: Paper = module.PAPER
    arms: Mapping[str, Any] = module.arms()
    began = time.monotonic()
    exps = {
        n: ensembled(a, paper.seeds) for n, a in arms.items() if isinstance(a, config.Experiment)
    }
    if exps:
        sweep.run(
            exps,
            folder / name,
            {n: config.Origin(f"{table.CONFIGS}/{name}.py:{n}", {}) for n in exps},
        )
    results = {n: workdir.results(folder / name / n) for n in exps}
    if not all(results.values()):
        raise UserError(
            f"{folder / name}: stopped before all runs were finished; the same command continues"
        )
    found: Found = {
        arm: _seeds(results[arm], paper.seeds)
        if arm in exps
        else [measure(s) for s in range(paper.seeds)]
        for arm, measure in arms.items()
    }
    trained = sum(
        r["train"]["seconds"] + r["train"]["evaluation_seconds"] for r in results.values()
    )
    verdict: Verdict = module.verdict(found)
    kept = {
        "verdict": verdict.word,
        "clauses": dict(verdict.clauses),
        "figures": dict(verdict.figures),
        "seeds": paper.seeds,
        "seconds": round(max(time.monotonic() - began, trained), 1),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
    }
    workdir.write_json(table.RESULTS / f"{name}.json", kept)
    return kept


def _seeds(results: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """{evaluator: {"seed0": figures}} -> per seed {evaluator: figures}."""
    asked = [
        e for e, by_seed in results.items() if isinstance(by_seed, dict) and "seed0" in by_seed
    ]
    return [{e: results[e][f"seed{i}"] for e in asked} for i in range(count)]
