"""A memory of codes against NumPy, codes drawn while training, and vectors that come back from their ids."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mm import artefact, tokenizers
from mm.errors import UserError
from mm.space import Vector
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers import autoencoder, quantizers
from mm.tokenizers.memcodes import Bottleneck, Memory, VectorAutoencoder
from mm.tokenizers.quantizers import Categorical

SIDE = Bottleneck(width=16, depth=1, outer=12)
SMALL = VectorAutoencoder(
    features=6, codebooks=3, memory=8, code_width=12, encoder=SIDE, decoder=SIDE
)
QUANTIZER = Categorical(codes=8)
TERMS = {"reconstruction", "smooth_l1", "cosine_distance", "cosine"}


def fresh():
    """Parameters of `SMALL`."""
    return jax.jit(lambda: nnx.to_pure_dict(nnx.state(SMALL.build(nnx.Rngs(0)))))()


def test_a_memory_against_numpy():
    memory = Memory(3, 5, 4, rngs=nnx.Rngs(0))
    structure, state = nnx.split(memory)
    q = np.random.default_rng(0).normal(size=(2, 3, 4))
    codes, to_key, to_value = (
        np.asarray(state[name][...], np.float64) for name in ("codes", "to_key", "to_value")
    )
    found = jax.jit(lambda s, q: nnx.merge(structure, s).logits(q))(
        state, jnp.asarray(q, jnp.float32)
    )
    for b in range(2):
        for head in range(3):
            for v in range(5):
                key = codes[head, v] @ to_key[head]
                assert float(found[b, head, v]) == pytest.approx(q[b, head] @ key / 2, abs=1e-4)
    ids = np.array([[0, 4, 2]])
    values = jax.jit(lambda s, p: nnx.merge(structure, s).values(p))(state, jax.nn.one_hot(ids, 5))
    for head, v in enumerate(ids[0]):
        np.testing.assert_allclose(values[0, head], codes[head, v] @ to_value[head], atol=1e-5)


def test_with_a_key_codes_are_drawn_from_the_softmax_and_without_one_they_are_the_likeliest():
    logits = jnp.asarray([1.0, 0.0, -1.0, 2.0])
    many = jnp.tile(logits, (4000, 1))
    quantize = jax.jit(lambda z, key: Categorical(codes=4).quantize({}, z, key))
    drawn = quantize(many, jax.random.key(0))
    share = np.bincount(drawn.ids, minlength=4) / len(many)
    np.testing.assert_allclose(share, jax.nn.softmax(logits), atol=0.03)  # four standard errors
    np.testing.assert_allclose(drawn.vectors, np.eye(4)[np.asarray(drawn.ids)], atol=1e-6)
    likeliest = quantize(many, None)
    assert (np.asarray(likeliest.ids) == 3).all()
    np.testing.assert_array_equal(quantize(many, jax.random.key(0)).ids, drawn.ids)


def test_the_gradient_of_a_choice_is_that_of_its_softmax():
    z = jax.random.normal(jax.random.key(0), (5, 3, 4))
    weights = jax.random.normal(jax.random.key(1), z.shape)
    for temperature in (1.0, 0.5):
        quantizer = Categorical(codes=4, temperature=temperature)
        hard = jax.jit(
            jax.grad(lambda z, q=quantizer: (q.quantize({}, z).vectors * weights).sum())
        )(z)
        soft = jax.jit(jax.grad(lambda z, t=temperature: (jax.nn.softmax(z / t) * weights).sum()))(
            z
        )
        np.testing.assert_allclose(hard, soft, atol=1e-6)


def test_ids_come_back_from_their_vectors():
    """One-hot vectors are their own logits. Values of codes of one length, seen through one rotation, ask for themselves."""
    ids = np.random.default_rng(0).integers(0, 8, (20, 3))
    again = jax.jit(lambda ids: QUANTIZER.quantize({}, QUANTIZER.lookup({}, ids)).ids)(ids)
    np.testing.assert_array_equal(again, ids)
    memory = Memory(3, 8, 4, rngs=nnx.Rngs(0))
    codes = memory.codes[...]
    memory.codes[...] = codes / jnp.linalg.norm(codes, axis=-1, keepdims=True)
    rotation = jnp.linalg.qr(memory.to_key[...])[0]
    memory.to_key[...] = memory.to_value[...] = rotation
    structure, state = nnx.split(memory)

    @jax.jit
    def round_trip(state, ids):
        memory = nnx.merge(structure, state)
        return QUANTIZER.quantize({}, memory.logits(memory.values(QUANTIZER.lookup({}, ids)))).ids

    np.testing.assert_array_equal(round_trip(state, ids), ids)


def test_training_reaches_codes_keys_and_values_and_vectors_come_back():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(4, 6)).astype(np.float32)
    structure, _ = autoencoder.split(SMALL)
    params = fresh()
    before = params["projection"]["memory"]
    tx = optax.adam(5e-3)

    def loss(params, x, key):
        network = nnx.merge(structure, params)
        total, count = network.terms(network.decode(QUANTIZER.quantize({}, network.encode(x), key).vectors), x)[
            "reconstruction"
        ]  # fmt: skip
        return total / count

    def step(carry, key):
        params, opt = carry
        x = jnp.asarray(kinds)[jax.random.randint(key, (32,), 0, 4)]
        updates, opt = tx.update(jax.grad(loss)(params, x, key), opt, params)
        return (optax.apply_updates(params, updates), opt), None

    train = jax.jit(
        lambda p: jax.lax.scan(step, (p, tx.init(p)), jax.random.split(jax.random.key(0), 250))[0][
            0
        ]
    )
    params = train(params)
    assert all(
        np.abs(params["projection"]["memory"][name] - before[name]).max() > 1e-3 for name in before
    )
    assert jax.jit(lambda p: loss(p, kinds, None))(params) < 0.1 * kinds.var()


def test_other_distances_may_be_weighed():
    network = nnx.eval_shape(lambda: SMALL.build(nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    terms = network.terms(jnp.asarray(-3 * x), jnp.asarray(x))
    found = {name: float(total / count) for name, (total, count) in terms.items()}
    away = np.abs(4 * x)
    assert found == {
        "reconstruction": pytest.approx(np.square(4 * x).mean(), rel=1e-5),
        "smooth_l1": pytest.approx(np.where(away < 1, away**2 / 2, away - 0.5).mean(), rel=1e-5),
        "cosine_distance": pytest.approx(2, rel=1e-5),
        "cosine": pytest.approx(-1, rel=1e-5),
    }


def test_rows_go_to_ids_and_back_through_the_tokenizer(tmp_path):
    params = fresh()
    made = {
        "network": dataclasses.asdict(SMALL),
        "quantizer": quantizers.to_json(QUANTIZER),
    }
    kind = artefact.kind_of(SMALL, autoencoder.KINDS)
    assert kind == "mm.tokenizers.memcodes:VectorAutoencoder"
    path = tmp_path / "a.safetensors"
    artefact.write(path, kind, made, autoencoder.flatten(params, {}, "float32"), {})
    tokenizer = tokenizers.load(str(path), "features")
    assert tokenizer.modality.layout == Vector(n=3) and tokenizer.modality.vocabulary.size == 8
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    ids, length = tokenizer.encode(rows)
    assert ids.shape == (40, 3) and ids.max() < 8 and (length == 3).all()
    back = tokenizer.decode(ids)
    assert back.shape == rows.shape and back.dtype == np.float32
    same = (ids[:, None] == ids).all(-1)
    np.testing.assert_allclose((back[:, None] - back)[same], 0, atol=1e-6)  # equal ids, equal rows
    assert autoencoder.check_network(SMALL) == TERMS


def test_the_task_takes_it():
    task = Autoencode(column="v", network=SMALL, quantizer=QUANTIZER)
    task.validate()
    built = task.build(None)
    params, buffers = jax.eval_shape(built.init, jax.random.key(0))
    rows = {"v": jax.ShapeDtypeStruct((4, 6), np.float32)}
    terms, after = jax.eval_shape(built.loss, params, buffers, rows, jax.random.key(0))
    assert terms.keys() == TERMS | {"usage", "perplexity"} and after == {}
    with pytest.raises(UserError, match=r"network\.latent=8"):
        dataclasses.replace(task, quantizer=Categorical(codes=9)).validate()


def test_settings_that_make_no_sense_are_one_line():
    with pytest.raises(UserError, match="code_width=12: not a multiple of codebooks=5"):
        dataclasses.replace(SMALL, codebooks=5).validate()
