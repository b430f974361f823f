"""The autoencoder task on tiny bars: it learns, what it exports is what it trained, replaced codes are rare ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mm import tokenizers
from mm.errors import UserError
from mm.tasks.tokenizer import Autoencode, replaced
from mm.tokenizers.image import ImageAutoencoder
from mm.tokenizers.quantizers import FSQ, VectorQuantizer


def bars(count: int, seed: int) -> np.ndarray:
    """Bright rows and columns: uint8[count, 8, 8]."""
    rng = np.random.default_rng(seed)
    out = np.zeros((count, 8, 8), np.uint8)
    for image, row, column in zip(
        out, rng.integers(0, 8, count), rng.integers(0, 8, count), strict=True
    ):
        image[row], image[:, column] = 255, 200
    return out


class Bars:
    """Opened data, as far as a task looks at it."""

    def raw(self, split: str) -> dict[str, np.ndarray]:
        return {"bars": bars(600, seed=1)}


def settings(**changed) -> Autoencode:
    network = ImageAutoencoder(height=8, width=8, patch=4, margin=1, latent=6, hidden=32, dense=64)
    defaults = {
        "column": "bars",
        "network": network,
        "quantizer": VectorQuantizer(codes=32, width=6),
    }
    return Autoencode(**defaults | changed)


@pytest.fixture(scope="module")
def trained():
    """(task, params, buffers, first reconstruction, last reconstruction) after 150 steps."""
    task = settings(replace=0.05, card={"licence": "free"}).build(Bars())
    params, buffers = jax.jit(task.init)(jax.random.key(0))
    tx = optax.adam(3e-3)
    opt = tx.init(params)

    @jax.jit
    def step(params, buffers, opt, batch, key):
        def loss(params):
            terms, new = task.loss(params, buffers, batch, key)
            return sum(w * terms[t][0] / terms[t][1] for t, w in task.weights.items()), (terms, new)

        grads, (terms, buffers_) = jax.grad(loss, has_aux=True)(params)
        updates, opt_ = tx.update(grads, opt)
        return (
            optax.apply_updates(params, updates),
            buffers_,
            opt_,
            terms["reconstruction"][0] / terms["reconstruction"][1],
        )

    values = []
    for i in range(150):
        batch = {"bars": bars(64, seed=100 + i), "group": np.zeros(64, np.int32)}
        params, buffers, opt, value = step(params, buffers, opt, batch, jax.random.key(i))
        values.append(float(value))
    return task, params, buffers, values[0], values[-1]


def test_init_is_traceable_and_plain():
    task = settings().build(Bars())
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    init = jax.jit(task.init)
    arrays = init(jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, arrays)
    assert type(arrays[0]) is dict and arrays[1]["codebook"].shape == (32, 6)
    other = init(jax.random.key(1))[0]
    assert not np.array_equal(arrays[0]["pixels_out"]["kernel"], other["pixels_out"]["kernel"])


@pytest.fixture(scope="module")
def fresh():
    """(settings' weights, loss of a fresh state, jitted): (rows, key) -> (terms, buffers)."""
    task = settings(replace=0.3).build(Bars())
    params, buffers = jax.jit(task.init)(jax.random.key(0))
    return (
        task.weights,
        buffers,
        jax.jit(lambda rows, key: task.loss(params, buffers, {"bars": rows}, key)),
    )


def test_loss_is_pure_and_reads_only_its_column(fresh):
    weights, buffers, loss = fresh
    one, new = loss(bars(16, 0), jax.random.key(5))
    two, _ = loss(bars(16, 0), jax.random.key(5))
    other, _ = loss(bars(16, 0), jax.random.key(6))
    values = [{t: float(s) for t, (s, _) in terms.items()} for terms in (one, two, other)]
    assert values[0] == values[1] != values[2]  # other codes are replaced
    assert set(weights) <= set(one)
    assert {"usage", "perplexity", "mse"} <= set(one)
    assert jax.tree.structure(new) == jax.tree.structure(buffers)


def test_terms_are_sums_over_the_batch(fresh):
    """Of a batch twice over, what needs no decoder doubles: means of shards then weigh as they should."""
    _, _, loss = fresh
    once, _ = loss(bars(16, 0), jax.random.key(0))
    twice, _ = loss(np.tile(bars(16, 0), (2, 1, 1)), jax.random.key(0))
    assert float(twice["commitment"][0]) == pytest.approx(
        2 * float(once["commitment"][0]), rel=1e-5
    )
    assert float(twice["usage"][0]) == float(once["usage"][0])
    for name in ("reconstruction", "commitment", "mse"):
        assert float(twice[name][1]) == 2 * float(once[name][1])


def test_it_learns(trained):
    _, _, _, first, last = trained
    assert last < 0.25 * first


def test_what_is_exported_is_what_was_trained(trained, tmp_path):
    task, params, buffers, _, _ = trained
    path = task.export(params, buffers, tmp_path)
    assert path == tmp_path / "bars.safetensors"
    tokenizer = tokenizers.load(str(path), "bars")
    assert tokenizer.card["licence"] == "free" and tokenizer.card["validation"]["usage"] > 0.5
    assert tokenizer.modality.vocabulary.size == 32 and tokenizer.modality.layout.size == 4
    rows = bars(50, seed=9)
    ids, length = tokenizer.encode(rows)
    decoded = tokenizer.decode(ids, length).astype(float)
    assert ids.shape == (50, 4) and ids.dtype == np.int32 and (length == 4).all()
    assert np.square(decoded - rows).mean() < 0.5 * np.square(rows - rows.mean(0)).mean()
    direct, _ = jax.jit(task.loss)(params, buffers, {"bars": rows}, jax.random.key(0))
    stored = np.square(decoded / 255 - rows / 255.0).mean()
    assert stored < 1.2 * float(
        direct["mse"][0] / direct["mse"][1]
    )  # whose codes were partly replaced


def test_fsq_serves_as_well(tmp_path):
    task = settings(
        quantizer=FSQ(levels=(5, 4, 3)), network=tiny(3), weights={"reconstruction": 1.0}
    ).build(Bars())
    params, buffers = jax.jit(task.init)(jax.random.key(0))
    terms, after = jax.jit(task.loss)(params, buffers, {"bars": bars(16, 0)}, jax.random.key(0))
    assert after == {} and float(terms["usage"][1]) == 60
    tokenizer = tokenizers.load(str(task.export(params, buffers, tmp_path)), "bars")
    assert tokenizer.modality.vocabulary.size == 60 and tokenizer.decode(
        tokenizer.encode(bars(3, 0))[0]
    ).shape == (3, 8, 8)


def tiny(latent: int) -> ImageAutoencoder:
    return ImageAutoencoder(
        height=8, width=8, patch=4, margin=1, latent=latent, hidden=16, dense=16
    )


def test_replaced_codes():
    vectors, others = (
        jnp.zeros((400, 10, 2)),
        jnp.broadcast_to(jnp.arange(1.0, 401)[:, None, None], (400, 10, 2)),
    )
    run = jax.jit(replaced, static_argnums=2)
    out = np.asarray(run(vectors, others, 0.1, jax.random.key(0)))[..., 0]
    assert (out > 0).mean() == pytest.approx(0.1, abs=0.02)
    assert (out > 0).any(1).mean() < 0.55  # half of the rows stay clean
    assert not (out == np.arange(1, 401)[:, None]).any()  # never its own
    assert np.array_equal(replaced(vectors, others, 0.0, jax.random.key(0)), vectors)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"replace": 1.5}, "config.task.replace=1.5"),
        ({"network": tiny(5)}, "latent=5"),
        ({"network": ImageAutoencoder(patch=5), "quantizer": VectorQuantizer()}, "patch=5"),
    ],
)
def test_bad_settings_are_named(changed, said):
    with pytest.raises(UserError, match=said):
        settings(**changed).validate()
