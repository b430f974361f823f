"""Members of an ensemble are the runs that they would have been alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm import config
from mm.errors import UserError
from mm.objectives.contrastive.forms import AllPairs
from mm.optim import make_optimizer
from mm.step import make_step
from mm.tasks import weighted
from mm.tasks.ensemble import Each, Ensemble, EnsembleTask, ensembled
from tests.tasks.test_towers import batch_of, task


def test_each_member_steps_as_it_would_alone():
    alone, rows = task(AllPairs()), batch_of(12)
    both, key = EnsembleTask(alone, 3), jax.random.key(7)
    params, _ = jax.jit(both.init)(jax.random.key(0))
    optim = config.Optim(lr=0.1, warmup=0, clip_norm=0.0)
    tx = make_optimizer(optim, 10)
    state = lambda p: {
        "params": p,
        "buffers": {},
        "opt": tx.init(p),
        "ema": {},
        "step": jnp.int32(1),
    }
    new, report = jax.jit(make_step(both, tx, optim, 5))(state(params), rows)
    key = jax.random.fold_in(jax.random.key(5), 1)

    @jax.jit
    def own_step(params, part, key):
        loss = lambda p: weighted(alone.loss(p, {}, part, key)[0], alone.weights)
        value, grads = jax.value_and_grad(loss)(params)
        return value, tx.update(grads, tx.init(params), params)[0]

    losses = []
    for i, own_key in enumerate(jax.random.split(key, 3)):
        own = jax.tree.map(lambda x, i=i: x[i], params)
        part = jax.tree.map(lambda x, i=i: x[4 * i : 4 * i + 4], rows)
        value, updates = own_step(own, part, own_key)
        losses.append(value)
        leaves = map(jax.tree.leaves, (new["params"], own, updates))
        for got, old, move in zip(*leaves, strict=True):
            np.testing.assert_allclose(got[i], old + move, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(2 * report["contrast/main"], np.mean(losses), rtol=1e-5)
    names = jax.tree.leaves(params)
    assert all(not np.array_equal(x[0], x[1]) for x in names if x.ndim > 2), "seeds of their own"


@dataclasses.dataclass
class First:
    name: str = "first"
    when: str = "end"

    def run(self, run):
        yield "value", float(run.params["w"]) + len(run.task)


def test_every_member_is_asked():
    from mm.tasks import Run

    run = Run(task=EnsembleTask.__new__(EnsembleTask), params={"w": np.arange(2.0)}, buffers={}, data=None, folder=None, seed=0)  # fmt: skip
    run.task.members, run.task.task = 2, "ab"
    asked = Each(evaluator=First())
    assert (asked.name, asked.when) == ("first", "end")
    assert dict(asked.run(run)) == {"seed0": {"value": 2.0}, "seed1": {"value": 3.0}}


def test_an_experiment_keeps_its_batch_per_member():
    exp = config.Experiment(name="x", task="t", data=config.Data(source=None, batch_size=8), evals=(First(),))  # fmt: skip
    made = ensembled(exp, 5)
    assert (made.data.batch_size, made.optim.clip_norm, made.task.members) == (40, 0.0, 5)
    assert exp.data.batch_size == 8 and isinstance(made.evals[0], Each)
    with pytest.raises(UserError, match="members=0"):
        Ensemble(task=None, members=0).validate()
