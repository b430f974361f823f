"""The joint step: what must not leak, what each half does, and the token-level calls of a trained model."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mm.errors import UserError
from mm.generate.sampling import Sampler
from mm.models.encoder_decoder import Model
from mm.objectives import masking
from mm.objectives.masking import Masking, Warmup
from mm.space import Batch, TokenSpace
from mm.tasks import weighted
from mm.tasks.joint import Contrast, Joint, JointTask
from tests.conftest import random_batch

SMALL = Joint(
    model=Model(width=32, heads=2, encoder_layers=2, decoder_layers=2, embed_dim=16, scan=False),
    masking=Masking(visible=12, targets=8),
    contrast=Contrast(weight=0.3, share=0.6),
)


def fit(task: JointTask, batches, steps: int, lr: float = 3e-3):
    """Trains for a few steps; the last metrics."""
    params, buffers = task.init(jax.random.key(0))
    tx = optax.adam(lr)

    @jax.jit
    def step(params, opt, batch, key):
        def loss(params):
            terms, _ = task.loss(params, buffers, batch, key)
            return weighted(terms, task.weights), terms

        (_, terms), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = tx.update(grads, opt)
        return (
            optax.apply_updates(params, updates),
            opt,
            {k: s / jnp.maximum(c, 1) for k, (s, c) in terms.items()},
        )

    opt = tx.init(params)
    for i in range(steps):
        params, opt, metrics = step(params, opt, batches(i), jax.random.key(i))
    return params, {k: float(v) for k, v in metrics.items()}


def paired(space, rows, seed):
    """Examples whose modalities all say the same class: every token is class + small noise."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, rows)
    batch = random_batch(space, rows, seed)
    ids = {
        m.name: (1 + group[:, None] + 0 * batch.ids[m.name]).astype(np.int32)
        for m in space.modalities
    }
    ids["words"][:, -1] = 0
    length = {m.name: np.full(rows, m.size, np.int32) for m in space.modalities}
    return Batch(ids, length, batch.present, group.astype(np.int32))


@pytest.fixture(scope="module")
def trained(space):
    task = JointTask(SMALL, space)
    return task, *fit(task, lambda i: paired(space, 32, i), 150)


def test_both_halves_learn(trained):
    _, _, metrics = trained
    assert all(metrics[f"accuracy/{n}"] > 0.8 for n in ("picture", "sound", "words")), metrics
    assert metrics["contrast/unimodal"] < 2.6, "log 32 = 3.5 at chance, log 8 = 2.1 at best"


def test_generate_any_to_any(space, trained):
    task, params, _ = trained
    test = paired(space, 40, 10_000)
    for source in space.names:
        for target in space.names:
            if source == target:
                continue
            inputs = {source: (test.ids[source], test.length[source])}
            ids, length = task.generate(
                params,
                inputs,
                target,
                key=jax.random.key(0),
                sampler=Sampler(steps=4, temperature=0.5),
            )
            right = (ids[:, 0] == test.ids[target][:, 0]).mean()
            assert ids.shape == (40, space[target].size) and right > 0.8, (source, target, right)
            if target == "words":
                assert (length == 4).mean() > 0.8, "the eos is learned"


def test_guided_generation_is_right_too(space, trained):
    task, params, _ = trained
    test = paired(space, 40, 10_000)
    how = Sampler(steps=4, temperature=1.0, guidance=2.0)
    inputs = {"picture": (test.ids["picture"], test.length["picture"])}
    ids, _ = task.generate(params, inputs, "sound", key=jax.random.key(0), sampler=how)
    assert (ids[:, 0] == test.ids["sound"][:, 0]).mean() > 0.8


def test_prompts_are_kept(space, trained):
    task, params, _ = trained
    test = paired(space, 8, 1)
    prompt = np.array([0, 9, 0, 0], np.int32), np.array([False, True, False, False])
    ids, _ = task.generate(
        params,
        {"picture": (test.ids["picture"], test.length["picture"])},
        "words",
        key=jax.random.key(0),
        sampler=Sampler(),
        prompt=prompt,
    )
    assert (ids[:, 1] == 9).all()


def test_scores_prefer_what_belongs_and_sum_to_one(space, trained):
    task, params, _ = trained
    test = paired(space, 20, 2)
    inputs = {"sound": (test.ids["sound"], test.length["sound"])}
    right = task.score(
        params,
        inputs,
        "picture",
        (test.ids["picture"], test.length["picture"]),
        key=jax.random.key(0),
    )
    other = np.where(test.ids["picture"] == 1, 2, 1).astype(np.int32)
    wrong = task.score(
        params, inputs, "picture", (other, test.length["picture"]), key=jax.random.key(0)
    )
    assert (right > wrong).mean() > 0.9
    # A text of one word and the eos: over all first words, p(word) sums to one.
    one = {"sound": (test.ids["sound"][:1], test.length["sound"][:1])}
    texts = np.zeros((13, 4), np.int32)
    texts[:, 0] = np.arange(13)
    many = {"sound": tuple(np.repeat(a, 13, axis=0) for a in one["sound"])}
    log_p = task.score(params, many, "words", (texts, np.ones(13, np.int32)), key=jax.random.key(0))
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, atol=1e-4)


def test_embeddings_retrieve_the_class(space, trained):
    task, params, _ = trained
    test = paired(space, 60, 3)
    z = {n: task.embed(params, {n: (test.ids[n], test.length[n])}) for n in space.names}
    fused = task.embed(params, {n: (test.ids[n], test.length[n]) for n in ("picture", "sound")})
    for query in (z["picture"], z["sound"], fused):
        nearest = (query @ z["words"].T).argmax(1)
        assert (test.group[nearest] == test.group).mean() > 0.9


def test_chunks_and_batch_size_change_nothing(space, trained):
    task, params, _ = trained
    test = paired(space, 10, 4)
    inputs = {n: (test.ids[n], test.length[n]) for n in ("picture", "words")}
    np.testing.assert_allclose(
        task.embed(params, inputs, chunk=4), task.embed(params, inputs, chunk=256), atol=1e-5
    )
    assert task.features(params, inputs, 1).shape == (10, 32)


def test_embeddings_begin_as_the_codebook(space):
    """Distances between codes are those of the tokenizer's own space; other vocabularies stay random."""
    rng = np.random.default_rng(0)
    size, start = space.vocabulary("picture").size, space.offset("picture")
    vectors = rng.normal(size=(size, 3)).astype(np.float32)
    settings = dataclasses.replace(
        SMALL, model=dataclasses.replace(SMALL.model, width=256, codebook_init=1.0)
    )
    tables = {}
    for given in ({}, {"picture": vectors, "words": None}):
        params, _ = JointTask(settings, space, given).init(jax.random.key(0))
        tables[len(given)] = np.asarray(params["token"])
    rows = slice(start, start + size)
    gaps = lambda x: np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(size, 1)]
    assert np.corrcoef(gaps(tables[2][rows]), gaps(vectors))[0, 1] > 0.95
    assert abs(np.corrcoef(gaps(tables[0][rows]), gaps(vectors))[0, 1]) < 0.5
    np.testing.assert_allclose(tables[2][rows].std(), tables[0][rows].std(), rtol=0.05)
    others = np.r_[0:start, start + size : space.size]
    assert np.array_equal(tables[0][others], tables[2][others])


def constant(batch: Batch) -> Batch:
    """The same batch with every id replaced by one constant: no content is left to match."""
    return dataclasses.replace(
        batch,
        ids={n: np.ones_like(i) for n, i in batch.ids.items()},
        group=np.arange(len(batch.group), dtype=np.int32),
    )


def contrast_of(space, views, steps=120):
    """In-batch loss and accuracy after training nothing but contrast between two views of constant ids."""
    task = JointTask(dataclasses.replace(SMALL, masked=0.0), space)
    params, _ = task.init(jax.random.key(0))
    tx = optax.adam(3e-3)
    rows = 32

    @jax.jit
    def step(params, opt, batch, key):
        def loss(params):
            model = task.model(params)
            (a, ma), (b, mb) = views(key, batch)
            za, zb = model.embed_unimodal(a, ma), model.embed_unimodal(b, mb)
            logits = 20.0 * za @ zb.T
            right = (logits.argmax(1) == jnp.arange(rows)).mean()
            return -jnp.diag(jax.nn.log_softmax(logits)).mean(), right

        (_, right), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), opt, right

    opt, hits = tx.init(params), []
    for i in range(steps):
        params, opt, right = step(
            params, opt, constant(random_batch(space, rows, i)), jax.random.key(i)
        )
        hits.append(float(right))
    return np.mean(hits[-30:])


def test_constant_ids_keep_contrast_at_chance_and_complements_would_not(space):
    """Masks are fingerprints: our independent subsets leave none, complementary halves give everything away."""

    def independent(key, batch):
        view, drawn, _ = masking.contrast_views(key, space, batch, 3, 0.6)
        rows = [jax.tree.map(lambda x, i=i: x[i::3], view) for i in (0, 1)]
        return [(v, drawn[i : i + 1]) for i, v in enumerate(rows)]

    def complementary(key, batch):
        length = masking.lengths(batch, space)
        first = masking.independent_ranks(key, space, length)[:, :6] < 3
        rest = jnp.zeros((32, space.places - 6), bool)
        ids = masking.line_ids(batch, space)
        halves = (jnp.concatenate([h, rest], 1) for h in (first, ~first))
        # Two projections, as between modalities: the complement is a linear function of the half.
        return [(masking.pack(h, ids, 6), jnp.array([i])) for i, h in enumerate(halves)]

    assert contrast_of(space, independent) < 3 / 32
    assert contrast_of(space, complementary) > 6 / 32


def test_weights_of_zero_leave_their_half_out(space):
    no_contrast = JointTask(dataclasses.replace(SMALL, contrast=Contrast(weight=0.0)), space)
    params, _ = no_contrast.init(jax.random.key(0))
    terms, _ = jax.eval_shape(
        no_contrast.loss, params, {}, random_batch(space, 4, 0), jax.random.key(0)
    )
    assert not any(t.startswith("contrast") for t in (*terms, *no_contrast.weights))
    no_masked = JointTask(dataclasses.replace(SMALL, masked=0.0), space)
    terms, _ = jax.eval_shape(
        no_masked.loss, params, {}, random_batch(space, 4, 0), jax.random.key(0)
    )
    assert {*terms} == {*no_masked.weights} == {"contrast/unimodal", "contrast/fused"}
    assert {*no_masked.flops(4)} == {"encoder", "contrast"}
    with pytest.raises(UserError, match="nothing would be learned"):
        dataclasses.replace(no_contrast.settings, masked=0.0).validate()


def test_contrast_of_one_modality_is_refused(space):
    data = SimpleNamespace(space=TokenSpace(space.modalities[:1]), tokenizers={})
    with pytest.raises(UserError, match=r"weight=0 leaves it out.*at least two modalities, not 1"):
        SMALL.build(data)
    dataclasses.replace(SMALL, contrast=Contrast(weight=0.0)).build(data)


def test_a_warm_up_counts_its_steps_and_learns_contrast_first(space):
    """At first nearly all is visible: nothing is predicted that is less than half hidden; later nearly all is."""
    masking = Masking(visible=15, targets=15, warmup=Warmup(steps=100), unconditional=0.0)
    task = JointTask(dataclasses.replace(SMALL, masking=masking), space)
    params, buffers = task.init(jax.random.key(0))
    loss, batch = jax.jit(task.loss), random_batch(space, 64, 0)
    early, buffers = loss(params, buffers, batch, jax.random.key(1))
    assert int(buffers["step"]) == 1
    late, buffers = loss(params, {"step": jnp.int32(100)}, batch, jax.random.key(1))
    asked = [sum(float(terms[f"masked/{n}"][1]) for n in space.names) for terms in (early, late)]
    assert asked[1] > 2 * asked[0] > 0
    pairs = [float(terms["contrast/unimodal"][1]) for terms in (early, late)]
    assert pairs[0] > 1.4 * pairs[1]


def test_absent_modalities_add_nothing(space):
    task = JointTask(SMALL, space)
    params, _ = task.init(jax.random.key(0))
    batch = random_batch(space, 8, 0)
    batch.present["sound"][:] = False
    changed = dataclasses.replace(batch, ids=batch.ids | {"sound": batch.ids["sound"] * 0})
    loss = jax.jit(task.loss)
    terms, again = (loss(params, {}, b, jax.random.key(0))[0] for b in (batch, changed))
    assert float(terms["masked/sound"][1]) == 0
    value = float(weighted(terms, task.weights))
    assert np.isfinite(value) and value == float(weighted(again, task.weights))
