"""A run's curves against those of a run that was kept: does the same experiment still learn the same?

A reference is docs/results/<experiment>.json: {name, experiment (without its evaluators), versions,
machine, curves {term: [[step, value]..]}}.
"""

import statistics
from collections.abc import Sequence
from typing import Any

from etils.epath import Path

from mm import config, workdir
from mm.errors import UserError, nearest
from mm.report.files import Curves, RunFiles

FOLDER = Path("docs/results")
WINDOW = 10  # logged steps, a quarter of them at most, that are averaged before curves are compared
SHARE, SIGMAS = (
    0.05,
    4.0,
)  # the band: this share of the reference, and this many deviations of its noise
MOST = 200  # steps of a curve that are kept
APART = ("examples/s", "lr", "skipped", "grad_norm", "cosine/")  # not what was learned


def keep(run: RunFiles, folder: Path = FOLDER) -> Path:
    """Writes a run's curves as the reference of its experiment.

    Raises:
      UserError: the run is not finished.
    """
    if not run.results or run.train.get("steps") != run.settings.get("steps"):
        raise UserError(
            f"{run.folder}: not finished (step {run.step}); a reference needs a whole run"
        )
    known = {name: run.train.get(name) for name in ("versions", "machine")}
    curves = {
        name: points[:: -(-len(points) // MOST)] for name, points in _terms(run.curves).items()
    }
    path = folder / f"{run.name}.json"
    workdir.write_json(
        path, {"name": run.name, "experiment": _settings(run)} | known | {"curves": curves}
    )
    return path


def find(run: RunFiles, where: str) -> Path:
    """The file of the reference: of the run's experiment for "reference", else the one at a path.

    Raises:
      UserError: there is none.
    """
    path = FOLDER / f"{run.name}.json" if where == "reference" else Path(where)
    if path.is_file():
        return path
    kept = [str(p) for p in sorted(path.parent.glob("*.json"))]
    hint = nearest(str(path), kept) if kept else ""
    raise UserError(
        f"{path}: no such reference{hint}; run from the checkout, or make one of a good run with --as-reference"
    )


def against(run: RunFiles, path: Path) -> tuple[list[str], list[str]]:
    """(remarks, drifts), a line each; a drift is a term that leaves its band at a step that both have logged.

    Curves are means over `WINDOW` logged steps. The band is `SHARE` of the reference's value plus
    `SIGMAS` standard deviations of the difference of two such means; the noise is estimated from
    the reference's own second differences, so a run by another seed stays within.

    Raises:
      UserError: the reference is damaged, or no step is in both.
    """
    kept = workdir.read_json(path)
    try:
        known = {n: [(int(s), float(v)) for s, v in p] for n, p in kept["curves"].items()}
        settings = kept["experiment"]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise UserError(
            f"{path}: not a reference ({e}); make one of a good run with --as-reference"
        ) from e
    changed = config.differences(settings, _settings(run))
    remarks = [
        f"config.{n}: {new!r} here, {old!r} in the reference" for n, (old, new) in changed.items()
    ]
    own, drifts, compared = _terms(run.curves), [], []
    for name, points in known.items():
        found = _drift(points, own.get(name, []))
        if found is None:
            remarks.append(f"{name}: no step is logged in both, not compared")
            continue
        compared.append(found[0])
        drifts += [f"{name}: {found[1]}"] if found[1] else []
    if not compared:
        raise UserError(
            f"{run.folder}: has no step in common with {path}; train further, or log as often"
        )
    remarks.append(f"{len(compared)} terms compared with {path} up to step {max(compared):,}")
    return remarks, drifts


def _drift(reference: list[tuple[int, float]], own: list[tuple[int, float]]) -> Any:
    """(last step that was compared, what is wrong or ""); None where no step is in both."""
    here = dict(own)
    both = [(step, value, here[step]) for step, value in reference if step in here]
    if not both:
        return None
    steps, there, values = zip(*both, strict=True)
    width = max(min(WINDOW, len(both) // 4), 1)
    band = SIGMAS * _noise(there) * (2 / width) ** 0.5
    left = []
    for end in range(width, len(both) + 1):
        a, b = (statistics.fmean(v[end - width : end]) for v in (there, values))
        if abs(a - b) > SHARE * abs(a) + band:
            left.append((abs(a - b) / (SHARE * abs(a) + band), steps[end - 1], a, b))
    if not left:
        return steps[-1], ""
    _, step, a, b = max(left)
    said = (
        f"{b:.4g} at step {step:,}, reference {a:.4g} +- {SHARE * abs(a) + band:.2g} "
        f"(left at step {left[0][1]:,}; outside at {len(left)} of {len(both) - width + 1} steps)"
    )
    return steps[-1], said


def _noise(values: Sequence[float]) -> float:
    """Standard deviation of white noise on a curve that is straight over three points.

    Second differences of noise of variance s^2 have variance 6 s^2; their median is robust to bends.
    """
    if len(values) < 3:
        return 0.0
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return statistics.median(bends) / 0.6745 / 6**0.5


def _terms(curves: Curves) -> Curves:
    return {n: p for n, p in curves.items() if not n.startswith(APART)}


def _settings(run: RunFiles) -> dict[str, Any]:
    """What decides the curves: the experiment without its evaluators and its name."""
    apart = ("evals", "name")
    return {n: v for n, v in run.settings.items() if n not in apart}
