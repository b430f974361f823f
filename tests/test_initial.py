"""`--config.init=RUN`: what is taken over, what starts fresh, and what is refused."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from mm import state as states
from mm import workdir
from mm.main import main
from mm.train import Trainer
from tests import toy_config


def trained(folder, exp, tokenizers=None):
    """A finished run; `tokenizers` is what its checkpoint says it was trained with."""
    workdir.claim(folder, exp)
    trainer = Trainer(exp, folder)
    trainer.tokenizers = tokenizers or {}
    trainer.train()
    shapes = states.abstract(trainer.task, trainer.tx, exp.seed, exp.optim.ema > 0, trainer.mesh)
    state = trainer.checkpoints.restore(trainer.checkpoints.latest(), shapes)
    trainer.checkpoints.close()
    return jax.device_get(state)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before") / "run"
    return folder, trained(folder, toy_config.get_config())


def command(folder, init, *more):
    toy = ["mm", "--config", "tests/toy_config.py", "--workdir", str(folder)]
    return [*toy, f"--config.init={init}", *more]


def test_weights_are_taken_over_and_the_rest_starts_fresh(before, tmp_path):
    folder, old = before
    exp = replace(toy_config.get_config(), init=str(folder), seed=1)
    workdir.claim(tmp_path / "run", exp)
    state = jax.device_get(Trainer(exp, tmp_path / "run").restore())
    assert np.array_equal(state["params"]["layer"]["kernel"], old["params"]["layer"]["kernel"])
    assert state["buffers"]["seen"] == 60 and state["step"] == 0
    fresh = [np.asarray(x) for x in jax.tree.leaves(state["opt"])]
    assert not any(x.any() for x in fresh) and any(np.any(x) for x in jax.tree.leaves(old["opt"]))


def test_an_average_is_taken_where_it_was_evaluated(tmp_path):
    exp = toy_config.get_config()
    exp.optim.ema = 0.9
    old = trained(tmp_path / "before", exp)
    now = replace(exp, init=str(tmp_path / "before"))
    workdir.claim(tmp_path / "run", now)
    state = jax.device_get(Trainer(now, tmp_path / "run").restore())
    average, last = (old[part]["layer"]["kernel"] for part in ("ema", "params"))
    assert not np.array_equal(average, last)
    for part in ("params", "ema"):
        assert np.array_equal(state[part]["layer"]["kernel"], average)


def test_a_run_that_continues_does_not_read_it_again(before, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(before[0], other)
    args = command(tmp_path / "run", other, "--config.evals[0].signal_at=80")
    assert main(args) == 0 and "SIGTERM: saved step 20" in capsys.readouterr().out
    assert workdir.experiment(tmp_path / "run").init == str(other)
    shutil.rmtree(other)
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "continues after step 20" in said and "results:" in said


def test_what_does_not_fit_is_refused_in_one_line(before, tmp_path, capsys):
    folder, empty = tmp_path / "run", tmp_path / "empty"
    workdir.claim(empty, toy_config.get_config())
    tokens = tmp_path / "tokens"
    trained(tokens, toy_config.get_config(), tokenizers={"image": "0123abcd"})
    for init, said in (
        (empty, "has no checkpoint yet"),
        (tmp_path / "nowhere", "no such folder"),
        (tokens, "another token space: the 'image' tokenizer is 0123abcd there and None here"),
    ):
        assert main(command(folder, init)) == 2
        err = capsys.readouterr().err
        assert said in err and f"--config.init={init}" in err and err.count("\n") == 1
        assert not folder.exists() and not (empty / "checkpoints").exists()


def test_shapes_that_differ_are_named_and_the_folder_stays_free(before, tmp_path, capsys):
    args = command(tmp_path / "run", before[0])
    assert main([*args, "--config.task.outputs=3"]) == 2
    err = capsys.readouterr().err
    assert (
        "params/layer/kernel: float32[4, 1] there, float32[4, 3] here" in err
        and err.count("\n") == 1
    )
    assert main([*args, "--config.steps=20"]) == 0, "nothing was begun there"
