"""An imported model of 4M's goes on: it grows by a modality, contrast and adapters, and nothing that it was changes before training."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath import Path
from flax import traverse_util

from configs import finetune_4m
from mm import config, initial, optim, sharding
from mm import state as states
from mm.data.batches import TokenTable
from mm.data.opened import open_data
from mm.data.random_tokens import Tokens
from mm.data.tokens_4m import Tokens4M, write_table
from mm.errors import UserError
from mm.objectives.masking_4m import all_to_all
from mm.step import jitted
from mm.tasks.joint import Contrast, Joint
from mm.weights import imported
from tests.weights.test_m4 import random_file, tiny

SPEECH = {"speech": Tokens(vocabulary=32, length=4)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An imported tiny model."""
    folder = Path(tmp_path_factory.mktemp("old"))
    settings, space = tiny("gelu", tables="two")
    random_file(folder / "model.safetensors", settings, space)
    imported.write(folder / "model.safetensors", folder / "run")
    return folder / "run"


def grown(run, tmp_path, frozen="", adapters=0):
    """(experiment, task, fresh state with the old weights, optimizer) of a model that knows speech and contrast too."""
    from mm import workdir

    old = workdir.experiment(run)
    rng = np.random.default_rng(0)
    tables = {}
    for name, ids in (("speech", rng.integers(0, 32, (16, 4))), ("caption", np.full((16, 256), 3))):
        length = np.full(16, 4 if name == "speech" else 2, np.int32)
        ids[:, 0] = 5 + np.arange(16)
        write_table(
            Path(tmp_path) / f"{name}.safetensors", TokenTable(ids.astype(np.int32), length)
        )
        tables[name] = str(tmp_path / f"{name}.safetensors")
    kept = {f.name: getattr(old.data.source, f.name) for f in dataclasses.fields(Tokens4M)}
    source = Tokens4M(
        **kept | {"added": SPEECH, "tables": dict.fromkeys(("train", "validation"), tables)}
    )
    exp = config.Experiment(
        name="more",
        task=Joint(
            model=dataclasses.replace(old.task.model, embed_dim=8),
            masking=all_to_all(source.space, visible=8, targets=8),
            contrast=Contrast(weight=0.1, modalities=2, of=("speech", "caption"), fused=0.0),
            adapters=adapters,
        ),
        data=config.Data(source=source, batch_size=8, threads=0),
        optim=config.Optim(lr=1e-2, warmup=0, frozen=frozen),
        init=str(run), grow=True, steps=3,
    )  # fmt: skip
    config.validate(exp)
    data = open_data(exp.data, Path(tmp_path) / "cache")
    task, mesh = exp.task.build(data), sharding.make_mesh(exp.mesh, 8)
    tx = optim.make_optimizer(exp.optim, exp.steps)
    state = initial.given(states.init(task, tx, 0, False, mesh), exp, task)
    return exp, task, state, tx, data, mesh


@pytest.mark.parametrize("adapters", [0, 2])
def test_before_training_every_old_output_is_the_same_to_the_bit(run, tmp_path, adapters):
    import mm

    old = mm.load(str(run))
    _, task, state, *_ = grown(run, tmp_path, adapters=adapters)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 40, (4, 16)).astype(np.int32)
    pixels = rng.normal(size=(4, 16, 768)).astype(np.float32)
    given = {"rgb@224": (pixels, np.full(4, 16)), "tok_depth@224": (ids, np.full(4, 16))}

    def outputs(task, params):
        names = task._ordered(given)
        columns = [given[n] for n in names]

        @jax.jit
        def run(params, ids, length):
            predict = task._predictor(params, names, ids, length, "tok_dinov2_global", 1.0)
            return predict(jnp.zeros((4, 16), jnp.int32), jnp.zeros((4, 16), bool))

        logits = run(
            params, [jnp.asarray(c[0]) for c in columns], [jnp.asarray(c[1]) for c in columns]
        )
        return np.asarray(logits), task.features(params, given, 1, chunk=4)

    for a, b in zip(outputs(old.task, old.params), outputs(task, state["params"]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "speech" in task.space.names and "speech" not in old.task.space.names


@pytest.mark.parametrize("way", ["", "frozen", "lora"])
def test_what_is_frozen_stays_and_the_rest_learns(run, tmp_path, way):
    frozen = finetune_4m.WAYS[way]
    exp, task, state, tx, data, mesh = grown(run, tmp_path, frozen, 2 if way == "lora" else 0)
    before = traverse_util.flatten_dict(jax.device_get(state["params"]), sep="/")
    shapes = sharding.abstract(
        jax.eval_shape(lambda: state), jax.tree.map(lambda x: x.sharding, state)
    )
    step = jitted(task, tx, exp.optim, 0, shapes)
    for batch in data.batches("train", seed=0, start=0, steps=3, batch_size=8):
        state, report = step(state, sharding.put_batch(batch, mesh))
        assert np.isfinite(float(report["loss"])) and not report["skipped"]
    after = traverse_util.flatten_dict(jax.device_get(state["params"]), sep="/")
    same = {path for path in before if np.array_equal(before[path], after[path])}
    if not frozen:
        assert "encoder/attn/qkv/kernel" not in same and "token" not in same
        return
    meant = {path for path in before if re.search(frozen, path)}
    assert meant <= same and "encoder/attn/qkv/kernel" in meant
    learned = {"token", "target", "modality", "unimodal/kernel"}
    learned |= (
        {"adapters/encoder/mlp/up/kernel/b", "adapters/context/kernel/b"}
        if way == "lora"
        else set()
    )
    assert not same & learned


def test_patterns_that_make_no_sense(run, tmp_path):
    for pattern, said in (("(", "no regular expression"), ("nowhere", "the path of no parameter"), ("", None), (".", "nothing to be trained")):  # fmt: skip
        if said:
            with pytest.raises(UserError, match=said):
                grown(run, tmp_path, frozen=pattern)


def test_another_space_needs_to_grow(run, tmp_path):
    exp, task, state, *_ = grown(run, tmp_path)
    exp.grow = False
    with pytest.raises(UserError, match=r"another token space.*--config\.grow"):
        initial.given(state, exp, task)


def test_the_config_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="use RUN, RUN:lora or RUN:frozen"):
        finetune_4m.get_config(f"{tmp_path}:half")
    with pytest.raises(UserError):
        finetune_4m.get_config(str(tmp_path))
