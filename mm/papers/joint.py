"""docs/joint.md: does contrast help or harm generation, and the other way round? Arms of configs/joint_study.py on paired seeds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from etils.epath import Path

from mm import config, parts, workdir
from mm.errors import UserError
from mm.evals.statistics import mean_interval
from mm.report.files import read_curves

RESULTS, PAGE, PLOT = Path("docs/results/joint"), Path("docs/joint.md"), Path("docs/joint.png")
MARGIN = 0.01
"""A joint arm ties one that does a single thing where it is surely no more than this below it."""
FIGURES = {
    "generated": "judged accuracy of what is generated, mean of six directions",
    "coverage": "share of the real rows' variety that is generated, mean over images and speech",
    "retrieved": "R@1 by digit, mean of six directions",
    "probe": "linear probe of the trunk, mean over images and speech",
    "gap": "distance between two modalities' mean embeddings, mean of three pairs",
}
SOLO = {"generated": "masked", "coverage": "masked", "retrieved": "contrast", "probe": "masked"}
"""What an arm's figure is compared with."""
COSTS = (("", "equal steps"), ("-flops", "equal FLOPs"))
WORDS = ("beats", "ties", "open", "loses")
HEAD = """# Contrast and generation in one step: help or harm?

Arms of `configs/joint_study.py` on digits: images, speech and words, {steps:,} steps of 64 examples, three minutes each on one
core. Arms of one seed have the same first weights and the same batches, so differences are taken seed by seed; intervals are
95%, Student's t. Finished seeds: {seeds} of {wanted}. Their figures are of test rows, and nothing was chosen on them.

Declared before the runs: joint training *ties* an arm with one objective where the interval of the difference lies above
-1 point on the primary figure of each side (mean judged accuracy, with coverage beside it; R@1), and *beats* it where it lies above 0.
Else it *loses* (the interval lies below 0) or the seeds leave it *open*.

    for n in trials seed{{0..4}} missing{{0..2}}; do python -m mm.main --config configs/joint_study.py:$n --workdir runs/joint_study/$n; done
    python -m mm.papers joint runs/joint_study      (keeps figures in docs/results/joint/ and writes this page)
"""


def kept(folder: Path) -> dict[str, Any]:
    """The figures of a finished run that the page is made of."""
    found = workdir.results(folder)
    exp = config.from_json(workdir.read_json(folder / "config.json")["experiment"])
    cells, asked = found["any_to_any"], found["retrieval"].values()
    logged, _ = read_curves(folder / "metrics.jsonl")
    curves = ("cosine/contrast-masked", "norm/contrast", "norm/masked")
    return {
        "generated": statistics.fmean(c["accuracy"] for c in cells.values()),
        "coverage": statistics.fmean(
            c["coverage_ratio"] for name, c in cells.items() if not name.endswith("->text")
        ),
        "retrieved": statistics.fmean(d["r1"] for d in asked),
        "probe": statistics.fmean(found["probe"].values()),
        "gap": statistics.fmean(c["gap"] for c in found["card"].values()),
        "each": {name: c["accuracy"] for name, c in cells.items()}
        | {f"find {name}": d["r1"] for name, d in found["retrieval"].items()},
        "lr": exp.optim.lr,
        "weight": exp.task.contrast.weight,
        "steps": found["train"]["steps"],
        "parameters": found["train"]["parameters"],
        "seconds": found["train"]["seconds"],
        "curves": {c: [[step, round(v, 5)] for step, v in logged.get(c, [])] for c in curves},
    }


def keep(runs: Path) -> None:
    """Adds what is finished below `runs`/SWEEP/ARM to docs/results/joint/SWEEP.json (a sweep in parts: SWEEP.0, SWEEP.1).

    Raises:
      UserError: no finished run is there.
    """
    done = sorted(p.parent for p in runs.glob("*/*/results.json"))
    done = [p for p in done if "any_to_any" in workdir.results(p)]
    if not done:
        raise UserError(
            f"{runs}: no finished run of the study below it; see configs/joint_study.py"
        )
    for sweep in sorted({p.parent.name.split(".")[0] for p in done}):
        mine = {p.name: kept(p) for p in done if p.parent.name.split(".")[0] == sweep}
        path = RESULTS / f"{sweep}.json"
        before = workdir.read_json(path) if path.exists() else {}
        workdir.write_json(path, before | mine)


def paired(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a - b over seeds, and its 95% interval by Student's t; infinite for a single one."""
    d = np.asarray(a) - np.asarray(b)
    return float(d.mean()), *mean_interval(d, np.arange(len(d)))


def word(low: float, high: float) -> str:
    """See `HEAD`."""
    return "beats" if low > 0 else "ties" if low > -MARGIN else "loses" if high < 0 else "open"


def choose(trials: Mapping[str, Mapping[str, Any]], arms: Sequence[str]) -> dict[str, float]:
    """Of each arm the value whose trial was best on validation rows: by its own side's figure, or the mean of both."""
    sides = {"masked": ("generated",), "contrast": ("retrieved",)}
    best = {}
    for arm in arms:
        mine = {n.removeprefix(f"{arm}-"): t for n, t in trials.items() if _arm_of(n, arms) == arm}
        if mine:
            of = sides.get(arm, ("generated", "retrieved"))
            best[arm] = float(max(mine, key=lambda n: statistics.fmean(mine[n][s] for s in of)))
    return best


def _arm_of(name: str, arms: Sequence[str]) -> str:
    return max((a for a in arms if name.startswith(f"{a}-")), key=len, default="")


def write() -> None:
    """Writes docs/joint.md and its plot of what was kept."""
    study = parts.load_file("configs/joint_study.py")
    read = {p.stem: workdir.read_json(p) for p in sorted(RESULTS.glob("*.json"))}
    for found in read.values():
        found.pop("format_version", None)
    seeds = {n: found for n, found in read.items() if n.startswith("seed")}
    names = [n for n in (*study.ARMS, *study.LONGER) if any(n in s for s in seeds.values())]
    whole = sum(all(n in found for n in (*study.ARMS, *study.LONGER)) for found in seeds.values())
    lines = [HEAD.format(seeds=whole, wanted=study.SEEDS, steps=study.STEPS)]
    if seeds:
        lines += [*_short(seeds, names), *_means(seeds, names), *_differences(seeds, names)]
        lines += _gradients(seeds, names)
        _plot(seeds, names)
    absent = [found for n, found in read.items() if n.startswith("missing")]
    if absent:
        lines += _missing(absent, *study.BEST)
    if "trials" in read:
        lines += _trials(read["trials"], study.ARMS)
    workdir.write_text(PAGE, "\n".join(lines) + "\n")


def _means(seeds: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    yield "## All arms\n\nMeans over seeds, standard deviation in brackets; per cent but for the gap.\n"
    yield f"| arm | seeds | steps | {' | '.join(FIGURES)} |\n|---|---|---|{'---|' * len(FIGURES)}"
    for name in names:
        found = [s[name] for s in seeds.values() if name in s]
        cells = []
        for figure in FIGURES:
            v = [(1 if figure == "gap" else 100) * f[figure] for f in found]
            cells.append(f"{statistics.fmean(v):.{2 if figure == 'gap' else 1}f} ({np.std(v, ddof=1) if len(v) > 1 else 0:.1f})")  # fmt: skip
        yield f"| {name} | {len(found)} | {found[0]['steps']} | {' | '.join(cells)} |"
    yield "\n" + "; ".join(f"*{n}*: {said}" for n, said in FIGURES.items()) + "."


def _short(seeds: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """The declared words of the primary figures, arm by arm."""
    yield "## In short\n"
    for figure in ("generated", "retrieved"):
        for suffix, said in COSTS:
            found: dict[str, list[str]] = {}
            for name in _of_both(names):
                if of := difference(seeds, name, figure, suffix):
                    found.setdefault(word(*of[1:]), []).append(f"{name} ({100 * of[0]:+.1f})")
            words = [f"{w}: {', '.join(found[w])}" for w in WORDS if w in found]
            yield f"- *{figure}*, against `{SOLO[figure]}{suffix}`, {said}: {'; '.join(words)}."
    yield ""


def _of_both(names: Sequence[str]) -> list[str]:
    """Arms with both objectives."""
    return [n for n in names if n.removesuffix("-flops") not in ("masked", "contrast")]


def difference(
    seeds: Mapping[str, Any], name: str, figure: str, suffix: str
) -> tuple[float, float, float] | None:
    """An arm's figure less that of the arm with one objective, see `paired`; None where no seed has both."""
    solo = SOLO[figure] + suffix
    both = [s for s in seeds.values() if name in s and solo in s]
    if not both:
        return None
    return paired([s[name][figure] for s in both], [s[solo][figure] for s in both])


def _differences(seeds: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Of every arm with both objectives to those with one, of equal steps and of equal cost."""
    for suffix, said in COSTS:
        yield f"\n## Against one objective alone, {said}\n\nPoints, paired by seed, 95% interval.\n"
        yield f"| arm | {' | '.join(SOLO)} |\n|---|{'---|' * len(SOLO)}"
        for name in _of_both(names):
            cells = []
            for figure in SOLO:
                if of := difference(seeds, name, figure, suffix):
                    d, low, high = of
                    cells.append(f"{100 * d:+.1f} ({100 * low:+.1f} .. {100 * high:+.1f}) **{word(low, high)}**")  # fmt: skip
            if len(cells) == len(SOLO):
                yield f"| {name} | {' | '.join(cells)} |"


def _gradients(seeds: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    yield "\n## The two gradients\n\nCosine between the gradients of both halves, and their norms (weighted), mean over seeds.\n"
    yield "| arm | cosine: first fifth | last fifth | norm of contrast / of masked: first | last |\n|---|---|---|---|---|"
    for name in names:
        curves = [s[name]["curves"] for s in seeds.values() if name in s]
        if not all(c["cosine/contrast-masked"] for c in curves):
            continue
        cosine, contrast, masked = (
            np.mean([[v for _, v in c[key]] for c in curves], axis=0) for key in curves[0]
        )
        ratio, part = contrast / masked, max(len(cosine) // 5, 1)
        cells = (cosine[:part].mean(), cosine[-part:].mean(), ratio[:part].mean(), ratio[-part:].mean())  # fmt: skip
        yield f"| {name} | {' | '.join(f'{c:.3f}' for c in cells)} |"
    yield f"\n![differences and cosines]({PLOT.name})"


def _missing(seeds: Sequence[Mapping[str, Any]], arm: str, rate: float) -> Iterator[str]:
    """Figures by how parts of training examples went missing, and their differences to none missing."""
    yield f"\n## Missing modalities\n\nThe arm `{arm}` at rate {rate:g}, {len(seeds)} seeds. Every part of a training example is absent with this mean"
    yield "probability, alike for all (`random`) or growing from the digit 0 to the digit 9 (`group`); one part of each stays. Test rows are whole."
    yield "In brackets: points against none missing, paired by seed, 95% interval.\n"
    shown = ("generated", "coverage", "retrieved", "probe")
    yield f"| missing | {' | '.join(shown)} |\n|---|{'---|' * len(shown)}"
    kinds = ("none", "random", "group")
    for name in sorted({n for s in seeds for n in s}, key=lambda n: (kinds.index(n.split("-")[1]), n)):  # fmt: skip
        cells, both = [], [s for s in seeds if name in s and "missing-none" in s]
        for figure in shown:
            cell = f"{100 * statistics.fmean(s[name][figure] for s in seeds if name in s):.1f}"
            if name != "missing-none" and len(both) > 1:
                d, low, high = paired([s[name][figure] for s in both], [s["missing-none"][figure] for s in both])  # fmt: skip
                cell += f" ({100 * d:+.1f}: {100 * low:+.1f} .. {100 * high:+.1f})"
            cells.append(cell)
        yield f"| {name.removeprefix('missing-').replace('-', ' ')} | {' | '.join(cells)} |"


def _trials(trials: Mapping[str, Any], arms: Sequence[str]) -> Iterator[str]:
    best = choose(trials, arms)
    yield "\n## Trials\n\nFour of each arm, 400 steps, seed 0, validation rows; chosen by the mean of both primary figures (of its own where there is one)."
    yield "The arms `two-stage` and `dream` tried a setting of their own, see the config. (Rates began at 0.0015, which was half as"
    yield "good as 0.006 wherever it was tried, and were moved up by a factor of two; 0.024 came later, as 0.012 was best at the edge.)\n"
    yield "| trial | generated | retrieved | |\n|---|---|---|---|"
    for name, found in sorted(
        trials.items(), key=lambda t: (arms.index(_arm_of(t[0], arms)), t[0])
    ):
        arm = _arm_of(name, arms)
        chosen = best.get(arm) == float(name.removeprefix(f"{arm}-"))
        yield f"| {name} | {100 * found['generated']:.1f} | {100 * found['retrieved']:.1f} | {'chosen' if chosen else ''} |"


def _plot(seeds: Mapping[str, Any], names: Sequence[str]) -> None:
    """Differences with intervals, and cosines over training."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=(1, 1, 1.1))
    shown = [n for n in names if not n.endswith("-flops") and n not in ("masked", "contrast")]
    for ax, of in zip(axes, ("generated", "retrieved"), strict=False):
        for i, name in enumerate(shown):
            found = difference(seeds, name, of, "")
            if not found:
                continue
            d, low, high = (100 * x for x in found)
            half = [[min(d - low, 50)], [min(high - d, 50)]]
            ax.errorbar(d, i, xerr=half, fmt="o", color="tab:blue", capsize=3)
        ax.axvline(0, color="0.6", lw=1)
        ax.axvline(-100 * MARGIN, color="0.6", lw=1, ls=":")
        ax.set_yticks(range(len(shown)), shown)
        ax.invert_yaxis()
        ax.set_xlabel(f"{of}: points against {SOLO[of]} alone")
    for name in shown:
        curves = [s[name]["curves"]["cosine/contrast-masked"] for s in seeds.values() if name in s]
        if curves and curves[0]:
            steps = [step for step, _ in curves[0]]
            axes[2].plot(steps, np.mean([[v for _, v in c] for c in curves], axis=0), label=name)
    axes[2].axhline(0, color="0.6", lw=1)
    axes[2].set_xlabel("step")
    axes[2].set_ylabel("cosine between the two gradients")
    axes[2].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(str(PLOT), dpi=110)
    plt.close(figure)
