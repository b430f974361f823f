"""What the forms of contrast cost over eight modalities, of the joint step: the step with a form over one with next to none."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from mm import config
from mm.data.random_tokens import RandomTokens, Tokens
from mm.objectives.contrastive import forms
from mm.perf.joint import beside, compare, stepper

NUMBER = 8
FORMS = {
    "all pairs": forms.AllPairs(),
    "symile": forms.Symile(),
    "gram": forms.Gram(),
    "mv_infonce": forms.MultiView(),
    "1-to-k": forms.OneToK(),
}
NEXT_TO_NONE = forms.OfEach(term=lambda z, there: jnp.mean(z))


def measure(exp: config.Experiment, pairs: int, cache: Any) -> dict[str, Any]:
    """The experiment's model on eight modalities of 16 random tokens, all of them embedded in every step."""
    kind = Tokens(vocabulary=256, height=4, width=4)
    space = RandomTokens(kinds={f"m{i}": kind for i in range(NUMBER)}).space
    contrast = dataclasses.replace(exp.task.contrast, modalities=NUMBER, fused=0.0)
    found = {}
    run = lambda form: stepper(
        dataclasses.replace(exp.task, contrast=dataclasses.replace(contrast, form=form), samplers={}, shares={}),
        exp.optim, space, exp.data.batch_size,
    )  # fmt: skip
    without = run(NEXT_TO_NONE)
    for name, form in FORMS.items():
        found[name] = compare(run(form), without, pairs)
    return found


def lines(found: dict[str, Any]) -> Iterator[str]:
    """For people."""
    for name, figures in found.items():
        yield beside(name, "without a form", figures)
