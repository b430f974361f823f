"""A judge must learn, say the same when read from its file, and refuse what is not its own."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from data_pipelines import digit_assets, digit_speech
from mm import artefact, config, parts
from mm.errors import UserError
from mm.evals.judge_accuracy import JudgeAccuracy
from mm.models.classifier import ConvNet
from mm.tasks import Run, judge
from mm.tasks.fronts import LogMel, Pixels
from mm.tasks.judge import CHUNK, Classify, labelled

SIDE = 8
RECIPES = Path(__file__).parents[2] / "configs" / "judges"


class Bars:
    """Upright (0) and lying (1) bars as opened data; the order repeats a row and leaves one out."""

    def __init__(self, rows=64):
        self.rows, self.read = rows, []

    def raw(self, split):
        self.read.append(split)
        rng = np.random.default_rng(("train", "validation", "test").index(split))
        image = rng.integers(0, 60, (self.rows, SIDE, SIDE)).astype(np.uint8)
        self.label = np.arange(self.rows, dtype=np.int32) % 2
        for i in range(self.rows):
            at = rng.integers(2, SIDE - 2)
            image[i, *((slice(1, -1), at) if self.label[i] == 0 else (at, slice(1, -1)))] = 255
        return {"picture": image}

    def order(self, split, seed, epoch):
        rows = np.concatenate([np.arange(self.rows)[::-1], [0, -1]])
        group = np.concatenate([np.arange(self.rows, dtype=np.int32)[::-1] % 2, [0, 1]])
        return {"picture": rows, "group": group.astype(np.int32)}


def settings(**changes):
    fields = {
        "column": "picture",
        "classes": 2,
        "front": Pixels(height=SIDE, width=SIDE, shift=1.0, rotate=5.0, shear=0.0, bend=0.0),
        "network": ConvNet(widths=(16,), depths=(1,), stem=3),
        "card": {"licence": "none needed"},
    }
    return Classify(**fields | changes)


@pytest.fixture(scope="module")
def trained():
    """(task, params, accuracies of the steps)."""
    data = Bars()
    task = settings().build(data)
    params, buffers = jax.jit(task.init)(jax.random.key(0))
    tx = optax.adam(0.02)
    rows = data.raw("train")["picture"]
    batch = {"picture": rows, "group": data.label}

    @jax.jit
    def step(params, opt, key):
        def loss(params):
            terms, _ = task.loss(params, buffers, batch, key)
            assert set(task.weights) < set(terms)  # accuracy is logged, not learned
            value = sum(w * terms[t][0] / terms[t][1] for t, w in task.weights.items())
            return value, terms["accuracy"][0] / terms["accuracy"][1]

        grads, accuracy = jax.grad(loss, has_aux=True)(params)
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), opt, accuracy

    opt, accuracies = tx.init(params), []
    for i in range(80):
        params, opt, accuracy = step(params, opt, jax.random.key(i))
        accuracies.append(float(accuracy))
    return task, params, accuracies


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    task, params, _ = trained
    return task.export(params, {}, tmp_path_factory.mktemp("artefact"))


def test_it_learns(trained):
    _, _, accuracies = trained
    assert accuracies[0] < 0.8 < 0.95 < np.mean(accuracies[-5:])


def test_the_loss_is_the_cross_entropy_with_smoothed_labels(trained):
    task, params, _ = trained
    data = Bars()
    rows, key = data.raw("validation")["picture"], jax.random.key(0)

    @jax.jit
    def run(params, rows):
        terms, _ = task.loss(params, {}, {"picture": rows, "group": data.label}, key)
        return terms, nnx.merge(task.structure, params)(task.settings.front.varied(rows, key))

    terms, logits = run(params, rows)
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    smoothed = 0.95 * np.eye(2)[data.label] + 0.05 / 2
    np.testing.assert_allclose(terms["cross_entropy"][0], -(smoothed * log_p).sum(), rtol=1e-4)
    assert terms["cross_entropy"][1] == len(rows)
    assert terms["accuracy"][0] == (logits.argmax(1) == data.label).sum()


def test_the_file_says_what_the_network_said(trained, path):
    task, params, _ = trained
    rows = Bars().raw("test")["picture"]
    loaded = judge.load(path)
    np.testing.assert_array_equal(loaded.predict(rows), task.judge(params).predict(rows))
    assert loaded.classes == 2
    assert loaded.card == {"licence": "none needed", "validation": {"accuracy": 1.0, "rows": 64}}
    assert loaded.fingerprint == artefact.read(path)[0]["fingerprint"]


@pytest.mark.parametrize("n", [0, 1, CHUNK, CHUNK + 1])
def test_predictions_do_not_depend_on_chunks(path, n):
    loaded = judge.load(path)
    rows = np.resize(Bars().raw("test")["picture"], (n, SIDE, SIDE))
    got = loaded.predict(rows)
    assert got.shape == (n,) and got.dtype == np.int32
    np.testing.assert_array_equal(got, np.resize(loaded.predict(Bars().raw("test")["picture"]), n))


def test_sound_settings_survive_the_file(tmp_path):
    front = LogMel(samples=1000, noise_db=(-50.0, -30.0), mels=16)

    class Waves:
        def raw(self, split):
            return {"sound": np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)}

        def order(self, split, seed, epoch):
            return {"sound": np.arange(3), "group": np.arange(3, dtype=np.int32)}

    network = ConvNet(widths=(4,), depths=(0,), pool_width=False)
    task = Classify(column="sound", classes=3, front=front, network=network).build(Waves())
    params, _ = jax.jit(task.init)(jax.random.key(0))
    loaded = judge.load(task.export(params, {}, tmp_path))
    rows = Waves().raw("test")["sound"]
    np.testing.assert_array_equal(loaded.predict(rows), task.judge(params).predict(rows))


def test_rows_of_another_kind_are_refused(path):
    loaded = judge.load(path)
    for rows in (np.zeros((2, SIDE, SIDE + 1), np.uint8), np.zeros((2, SIDE, SIDE), np.float32)):
        with pytest.raises(UserError, match=r"picture: rows are .* the judge takes uint8\[8, 8\]"):
            loaded.predict(rows)


def test_a_front_that_does_not_fit_the_data_is_refused_before_training():
    with pytest.raises(UserError, match=r"config\.task\.front"):
        settings(front=Pixels(height=9, width=8)).build(Bars())
    with pytest.raises(UserError, match="did you mean 'picture'"):
        settings(column="pictures").build(Bars())
    with pytest.raises(UserError, match=r"config\.task\.smoothing=1"):
        settings(smoothing=1.0).validate()
    with pytest.raises(UserError, match=r"config\.task\.network"):
        settings(network=ConvNet(widths=(4, 8), depths=(1,))).validate()


def test_files_that_are_no_judge_are_refused(path, tmp_path):
    other = tmp_path / "other.safetensors"
    artefact.write(other, "image", {}, {"w": np.zeros(2)}, {})
    with pytest.raises(UserError, match="holds a 'image', not a judge"):
        judge.load(other)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(data)
    with pytest.raises(UserError, match="restore"):
        judge.load(damaged)
    damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="restore"):
        judge.load(damaged)


def test_every_labelled_row_is_judged_once():
    data = Bars()
    rows, labels = labelled(data, "picture", "test")
    np.testing.assert_array_equal(rows, data.raw("test")["picture"])
    np.testing.assert_array_equal(labels, data.label)


def test_the_evaluator_counts_on_the_split_it_names(trained, tmp_path):
    task, params, _ = trained
    wrong = jax.tree.map(lambda a: -a, params["head"])
    run = Run(task, params | {"head": wrong}, {}, Bars(), tmp_path, 0)
    reversed_judge = task.judge(run.params)
    for split in ("validation", "test"):
        rows, labels = labelled(run.data, "picture", split)
        right = float((reversed_judge.predict(rows) == labels).mean())
        found = dict(JudgeAccuracy(split=split).run(run))
        assert found == {"accuracy": right, "rows": 64}
        assert right < 0.1
        counts = json.loads((tmp_path / "evals" / "judge" / "confusion.json").read_text())["counts"]
        assert np.array(counts).sum(1).tolist() == np.bincount(labels).tolist()
        assert np.trace(counts) == round(64 * right)


def test_nothing_but_training_rows_shapes_a_judge(trained, path, tmp_path):
    """Validation rows are read for the card alone, and test rows not at all."""
    _, params, _ = trained
    data = Bars(rows=32)  # other rows than the fixture's
    task = settings().build(data)
    assert set(data.read) == {"train"}
    jax.eval_shape(task.init, jax.random.key(0))
    assert set(data.read) == {"train"}
    other = judge.load(task.export(params, {}, tmp_path))
    assert set(data.read) == {"train", "validation"}
    assert other.card["validation"]["rows"] == 32 != judge.load(path).card["validation"]["rows"]
    assert other.fingerprint == judge.load(path).fingerprint


FRONT = """
import dataclasses
from mm.tasks.fronts import Pixels

@dataclasses.dataclass(kw_only=True, slots=True)
class Dark(Pixels):
    level: float = 0.5
    def maps(self, rows): return self.level * Pixels.maps(self, rows)
"""


def test_a_front_may_stand_in_a_recipe(tmp_path):
    (tmp_path / "dark.py").write_text(FRONT)
    front = parts.load_file(tmp_path / "dark.py").Dark(height=SIDE, width=SIDE, level=0.25)
    task = settings(front=front, dtype="float32").build(Bars())
    params, _ = jax.jit(task.init)(jax.random.key(0))
    path = task.export(params, {}, tmp_path)
    assert artefact.read(path)[0]["config"]["front"]["kind"] == f"{tmp_path / 'dark.py'}:Dark"
    rows = Bars().raw("test")["picture"]
    read = judge.load(path)
    assert read._front == front
    np.testing.assert_array_equal(read.predict(rows), task.judge(params).predict(rows))
    (tmp_path / "dark.py").unlink()
    with pytest.raises(UserError, match=r"dark\.py: no such file"):
        judge.load(path)


def recipe(name):
    spec = importlib.util.spec_from_file_location(f"judge_{name}", RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["image", "speech"])
def test_shipped_judges_are_small_and_made_by_their_recipes(name):
    exp = recipe(name).get_config()
    config.validate(exp)
    config.validate(recipe(name).get_config("smoke"))
    path = RECIPES / f"{name}.safetensors"
    meta, arrays = artefact.read(path)
    assert path.stat().st_size <= 1_000_000
    assert sum(a.size for a in arrays.values()) <= 500_000
    made = exp.task.front.kind, json.loads(json.dumps(dataclasses.asdict(exp.task.network)))
    assert made == (meta["config"]["front"]["kind"], meta["config"]["network"])
    assert set(meta["card"]) == {"data", "licence", "steps", "validation"}
    assert meta["card"]["steps"] == exp.steps


def test_the_shipped_image_judge_reads_real_images():
    images = digit_assets.read_images(digit_assets.ASSETS, "test")[::5]
    labels = digit_assets.read_labels(digit_assets.ASSETS)["test_labels"][::5]
    right = judge.load(RECIPES / "image.safetensors").predict(images) == labels
    assert len(right) == 2000 and right.mean() >= 0.985


def test_the_shipped_speech_judge_understands_real_recordings():
    samples = digit_assets.read_samples(digit_assets.ASSETS)
    facts = digit_assets.read_labels(digit_assets.ASSETS)
    number = np.flatnonzero(facts["index"] < digit_assets.TEST_TAKES)
    recordings = [samples[facts["offsets"][i] : facts["offsets"][i + 1]] for i in number]
    rows = digit_speech.Waves(recordings, number, forms=1, seed=0)[np.arange(len(number))]
    right = judge.load(RECIPES / "speech.safetensors").predict(rows) == facts["digit"][number]
    assert len(right) == 300 and right.mean() >= 0.97
