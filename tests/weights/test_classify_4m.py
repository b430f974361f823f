"""An imported model of 4M's as a classifier: every patch is seen, the label alone is asked for, and it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath import Path
from flax import traverse_util

from configs import classify_4m
from mm import config, initial, optim, sharding
from mm import state as states
from mm.data.opened import open_data
from mm.errors import UserError
from mm.step import jitted
from mm.weights import imported, m4
from tests.weights.test_m4 import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An imported tiny model whose states are of the size that training begins with."""
    folder = Path(tmp_path_factory.mktemp("old"))
    settings, space = tiny("swiglu_nobias", tables="three", width=32)
    rng = np.random.default_rng(0)

    def draw(name, x):
        if name.endswith("scale"):
            return np.ones(x.shape)
        few = name.rsplit("/", 1)[-1] != "kernel"
        return rng.normal(size=x.shape) * (0.02 if few else x.shape[-2] ** -0.5)

    flat = {k: jnp.asarray(draw(k, x), jnp.float32) for k, x in m4.shapes(settings, space).items()}
    path = folder / "model.safetensors"
    m4.write(path, flat, settings, space, m4.config_of(settings, space, 64, 16))
    imported.write(path, folder / "run")
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["", "head"])
def test_it_learns_what_pictures_show(run, way):
    exp = classify_4m.get_config(f"{run}:{way}" if way else str(run))
    exp.data.source.pictures = {"train": 32, "validation": 8, "test": 8}
    exp.data.threads, exp.steps, exp.optim.lr, exp.optim.warmup = 0, 30, 3e-3, 0
    config.validate(exp)
    data = open_data(exp.data, run.parent / "cache")
    task, mesh = exp.task.build(data), sharding.make_mesh(exp.mesh, 16)
    batch = next(iter(data.batches("train", seed=0, start=0, steps=1, batch_size=16)))
    space = task.space
    visible, asked, _ = exp.task.masking.views(jax.random.key(0), space, batch)
    of = space.per_place()["modality"]
    where = {n: i for i, n in enumerate(space.names)}
    assert visible.mask.sum() == 16 * 16 and asked.mask.sum() == 16  # 64 pixels a side: 16 patches
    assert (of[np.asarray(visible.place)][np.asarray(visible.mask)] == where["rgb@224"]).all()
    assert (of[np.asarray(asked.place)][np.asarray(asked.mask)] == where["label"]).all()

    tx = optim.make_optimizer(exp.optim, exp.steps)
    state = initial.given(states.init(task, tx, 0, False, mesh), exp, task)
    before = traverse_util.flatten_dict(jax.device_get(state["params"]), sep="/")
    shapes = sharding.abstract(
        jax.eval_shape(lambda: state), jax.tree.map(lambda x: x.sharding, state)
    )
    step, losses = jitted(task, tx, exp.optim, 0, shapes), []
    batches = data.batches("train", seed=0, start=0, steps=exp.steps, batch_size=16)
    for batch in batches:
        state, report = step(state, sharding.put_batch(batch, mesh))
        losses.append(float(report["loss"]))
    after = traverse_util.flatten_dict(jax.device_get(state["params"]), sep="/")
    moved = {k.split("/")[0] for k in before if not np.array_equal(before[k], after[k])}
    assert ("encoder" in moved) == (way == "") and "head" in "".join(moved)
    # The loss is the mean over four modalities, three of which are never asked for.
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - (0.1 if way == "" else 0.01), losses


def test_another_way_and_no_model_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match="use RUN or RUN:head"):
        classify_4m.get_config(f"{run}:tail")
    with pytest.raises(UserError):
        classify_4m.get_config(str(tmp_path))
