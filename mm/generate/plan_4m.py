"""What 4M's sampler is told: one step for each modality that is made, with its schedules; and 4M's own settings as data.

A plan is a sequence of `Step`s; what one makes, the next ones read. `preset` writes the plan that 4M's demo would.

Source: Mizrahi et al. 2023 (4M-7); Bachmann et al. 2024 (4M-21); schedules of MaskGIT, Chang et al. 2022.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mm import space as spaces
from mm.errors import UserError, nearest
from mm.space import TokenSpace

SCHEMES = ("maskgit", "roar", "autoregressive")
SCHEDULES = ("linear", "cosine")
COLDEST = 1e-9
"""The lowest temperature of a schedule; a constant one may be 0."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """How one modality is made.

    Attributes:
      scheme: `maskgit` (all unknown tokens are asked for, the surest are kept), `roar` (tokens in random order, each asked
        for once) or `autoregressive` (a text's spans, from left to right).
      steps, schedule: passes, and how many tokens each of them adds: `linear` or `cosine`; not of a text.
      temperature, cooling: of the softmax; 0 = the likeliest token. It stays (`constant`), or follows the share of tokens
        that are made: `linear` or `onex:MIN:POWER`.
      top_k: the likeliest ids that may be drawn: a number, or below 1 a share of the vocabulary. top_p: the likeliest ids
        that have this probability together. Both after the temperature; 0 = all.
      guidance: s in l = l_u + s (l_c - l_u), or one for each of `guided`: l = l_u + sum of w_i (l_ci - l_u); 1 = none.
      guided: conditions that the pass without, l_u, does not see; l_ci sees the i-th of them only.
      tokens: most tokens of a text's spans; 0 = as many as the modality has.
    """

    target: str
    scheme: str = "roar"
    steps: int = 1
    schedule: str = "linear"
    temperature: float = 1.0
    cooling: str = "constant"
    top_k: float = 0.0
    top_p: float = 0.0
    guidance: float | tuple[float, ...] = 1.0
    guided: tuple[str, ...] = ()
    tokens: int = 0


Plan = Sequence[Step]


def cosine_schedule(steps: int, tokens: int) -> np.ndarray:
    """How many tokens each step adds, int64[steps]: round(T (r_i - r_(i+1))) with r_i = (1 + cos(pi i / steps)) / 2, the last the rest.

    Where so much is rounded up that less than nothing would be left for the last, it adds none and those before it fewer.
    """
    left = [(1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps)]
    known = np.cumsum([0, *(round(tokens * (a - b)) for a, b in itertools.pairwise(left))])
    return np.diff(np.append(np.minimum(known, tokens), tokens))


def linear_schedule(steps: int, tokens: int) -> np.ndarray:
    """As equal numbers as can be, the larger ones first: int64[min(steps, tokens)]."""
    counts = np.diff(np.linspace(0, tokens, steps + 1, dtype=int))
    return np.sort(counts[counts > 0])[::-1]


def continue_schedule(counts: np.ndarray, known: int) -> np.ndarray:
    """What is left of a schedule when `known` tokens are there: the steps that add more, the first of them its rest."""
    total = np.cumsum(counts)
    return np.diff(np.append(known, total[total > known]))


def counts_of(step: Step, tokens: int) -> np.ndarray:
    """A step's schedule over all of a modality's tokens."""
    return {"linear": linear_schedule, "cosine": cosine_schedule}[step.schedule](step.steps, tokens)


def temperatures(temperature: float, cooling: str, counts: np.ndarray) -> np.ndarray:
    """The temperature of each pass, float64[len(counts)]. With c_i the share of tokens that are there after pass i:

    `linear`: t (1 - c_(i-1)), so t at first. `onex:MIN:POWER`: y_i (1 - c_i) (t - MIN) + MIN, so MIN at last, with y = x^-POWER
    for x evenly from 1 to 100, one for each token (not pass), scaled to [0, 1]. None is below 1e-9.

    Raises:
      UserError: see `parsed`.
    """
    kind, low, power = parsed(cooling)
    if kind == "constant":
        return np.full(len(counts), float(temperature))
    total = int(counts.sum())
    left = (total - np.cumsum(counts)) / total
    if kind == "linear":
        return np.maximum(temperature * np.append(1.0, left[:-1]), COLDEST)
    y = np.linspace(1, 100, total) ** -power
    y = (y - y.min()) / max(np.ptp(y), COLDEST)
    y = np.pad(y, (0, max(len(counts) - total, 0)))[: len(counts)]
    return np.maximum(y * left * (temperature - low) + low, COLDEST)


def parsed(cooling: str) -> tuple[str, float, float]:
    """(kind, lowest temperature, power). Raises UserError: nothing of the kind."""
    kind, *numbers = cooling.split(":")
    try:
        low, power = map(float, numbers) if kind == "onex" else (0.0, 0.0)
    except ValueError:
        kind = ""
        low = power = 0.0
    if kind not in ("constant", "linear", "onex") or (kind != "onex" and numbers):
        raise UserError(
            f"cooling={cooling!r}: use constant, linear or onex:MIN:POWER, as onex:0.5:0.5"
        )
    return kind, low, power


def grow_guidance(plan: Plan) -> tuple[Step, ...]:
    """The plan in which every step's guided conditions are its own and whatever was made before it (4M's own leaves out texts).

    Raises:
      UserError: a step with a weight for each condition.
    """
    grown: list[Step] = []
    for step in plan:
        if isinstance(step.guidance, tuple):
            raise UserError(
                f"{step.target}: guidance with a weight for each condition cannot grow; give one number"
            )
        made = [s.target for s in grown if s.target != step.target]
        grown.append(dataclasses.replace(step, guided=tuple(dict.fromkeys((*step.guided, *made)))))
    return tuple(grown)


def check(space: TokenSpace, inputs: Iterable[str], plan: Plan) -> None:
    """Raises UserError where a plan cannot be run on such a model with such inputs."""
    known = list(inputs)
    for name in known:
        if name not in space.names or not space[name].seen:
            seen = [m.name for m in space.modalities if m.seen]
            raise UserError(f"{name!r} is no input of the model{nearest(name, seen)}")
    for i, step in enumerate(plan):
        for wrong in _wrong(space, known, step):
            raise UserError(f"plan, step {i + 1} ({step.target}): {wrong}")
        known += [step.target] * space[step.target].seen


def _wrong(space: TokenSpace, known: Sequence[str], step: Step) -> Iterable[str]:
    """What is wrong with a step when these modalities are known."""
    if step.target not in space.names or not space[step.target].predicted:
        predicted = [m.name for m in space.modalities if m.predicted]
        yield f"it is no target of the model{nearest(step.target, predicted)}"
        return
    m = space[step.target]
    text = isinstance(m.layout, spaces.Sequence)
    if step.scheme not in SCHEMES or (step.scheme == "autoregressive") != text:
        yield f"scheme={step.scheme!r}; use {'autoregressive' if text else 'maskgit or roar'}"
    if step.schedule not in SCHEDULES:
        yield f"schedule={step.schedule!r}; use {' or '.join(SCHEDULES)}"
    if parsed(step.cooling)[0] != "constant" and text:
        yield f"cooling={step.cooling!r}; a text's temperature is constant"
    if step.steps < 1 or not 0 <= step.tokens <= m.size:
        yield f"steps={step.steps}, tokens={step.tokens}; at least 1 step, 0 .. {m.size} tokens"
    if not m.seen and (step.steps > 1 or text or not any(n != m.name for n in known)):
        yield "it is no input of the model; make it in one step, from something else"
    if step.temperature < 0 or step.top_k < 0 or not 0 <= step.top_p <= 1:
        yield (
            f"temperature={step.temperature:g}, top_k={step.top_k:g}, top_p={step.top_p:g}; none is negative, top_p at most 1"
        )
    for name in step.guided:
        if name not in known or name == step.target:
            yield f"guided by {name!r}, which is neither given nor made before; leave it out"
    weights = step.guidance if isinstance(step.guidance, tuple) else ()
    if weights and len(weights) != len(step.guided):
        yield f"{len(weights)} weights of guidance for {len(step.guided)} guided conditions; give one each"


ORDER = (
    "tok_clip", "tok_dinov2", "tok_dinov2_global", "tok_imagebind", "tok_imagebind_global", "tok_depth", "tok_normal",
    "tok_semseg", "tok_canny_edge", "tok_sam_edge", "tok_rgb", "caption", "det", "human_poses", "sam_instance",
    "color_palette", "metadata",
)  # fmt: skip
"""In which modalities are made by default, of any resolution."""


def _text(temperature: float) -> dict[str, Any]:
    return {"scheme": "autoregressive", "temperature": temperature}


TEXTS: dict[str, dict[str, Any]] = {
    "caption": _text(0.3), "det": _text(0.3), "human_poses": _text(0.1), "sam_instance": _text(0.01),
    "color_palette": _text(0.1), "metadata": _text(0.1),
}  # fmt: skip
IMAGES = tuple(n for n in ORDER if n not in TEXTS)
FEATURES = tuple(n for n in IMAGES if "dinov2" in n or "imagebind" in n)
ONCE = {"scheme": "roar", "steps": 1, "temperature": 0.01, "guidance": 2.0}
COOLING = {"scheme": "roar", "temperature": 3.0, "cooling": "onex:0.5:0.5", "guidance": 2.0}
FINE = {"scheme": "maskgit", "steps": 8, "schedule": "cosine", "temperature": 1.0, "guidance": 2.0}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "rgb_to_any": dict.fromkeys(IMAGES, ONCE) | TEXTS,
    "any_to_rgb": dict.fromkeys(IMAGES, COOLING | {"steps": 8})
    | dict.fromkeys(FEATURES, ONCE | {"steps": 8})
    | {"tok_rgb": COOLING | {"steps": 25}}
    | {"tok_clip": COOLING | {"steps": 50, "temperature": 5.0, "guidance": 3.0}}
    | TEXTS,
    "super_resolution": dict.fromkeys(IMAGES, FINE),
}
"""Task -> modality (of any resolution) -> settings of its `Step`."""


def preset(space: TokenSpace, inputs: Sequence[str], targets: Iterable[str]) -> tuple[Step, ...]:
    """4M's plan for these targets: in `ORDER`, the coarse pictures first, guided by all inputs (texts are not guided).

    What is to have 448 pixels follows `super_resolution`; else where pixels or tokens of a picture are given `rgb_to_any`
    does, `any_to_rgb` otherwise.

    Raises:
      UserError: a target that 4M has no settings for; see also `check`.
    """
    from_rgb = any(_base(n) in ("rgb", "tok_rgb") for n in inputs)
    plan = []
    for name in sorted(targets, key=_place):
        task = "super_resolution" if _fine(name) else "rgb_to_any" if from_rgb else "any_to_rgb"
        settings = PRESETS[task].get(_base(name))
        if settings is None:
            raise UserError(
                f"no preset makes {name!r}; write its Step{nearest(_base(name), PRESETS[task])}"
            )
        guided = tuple(n for n in inputs if n != name) if "guidance" in settings else ()
        plan.append(Step(target=name, guided=guided, **settings))
    check(space, inputs, plan)
    return tuple(plan)


def _base(name: str) -> str:
    """Without the resolution."""
    return name.partition("@")[0]


def _fine(name: str) -> bool:
    return name.endswith("@448")


def _place(name: str) -> tuple[bool, int]:
    base = _base(name)
    return _fine(name), ORDER.index(base) if base in ORDER else len(ORDER)
