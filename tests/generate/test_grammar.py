"""Sampling under a grammar: the tables are the automaton, and whatever the logits are, what comes out parses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.errors import UserError
from mm.generate import grammar as g
from mm.generate.sampling import Sampler, sample_sequence
from mm.tokenizers.structured.automaton import END
from tests.tokenizers.forms import FORMS, walk

SPARE = 7  # ids of other things, before and between
few = settings(max_examples=4, deadline=None)


@functools.cache
def vocabulary(name: str) -> tuple[dict[str, int], int, int]:
    """Ids of a form's words in a drawn order, how many ids there are, and that of the end."""
    words = FORMS[name].grammar.words
    drawn = np.random.default_rng(0).permutation(len(words) + SPARE)
    return dict(zip(words, drawn.tolist(), strict=False)), len(drawn), int(drawn[-1])


@functools.cache
def tables(name: str) -> g.Tables:
    return FORMS[name].grammar.tables(*vocabulary(name))


def sentence(name: str, row: np.ndarray) -> str | None:
    """The words up to the end; None where it does not end."""
    ids, _, eos = vocabulary(name)
    words = {i: w for w, i in ids.items()}
    row = row.tolist()
    return " ".join(words.get(i, "?") for i in row[: row.index(eos)]) if eos in row else None


@pytest.mark.parametrize("name", FORMS)
@few
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(0, 12))
def test_the_tables_are_the_automaton(name, seed, length):
    grammar, (ids, size, eos) = FORMS[name].grammar, vocabulary(name)
    states, state = [grammar.start], g.start(tables(name), 1)
    for word in walk(grammar, np.random.default_rng(seed), length):
        states.append(grammar.step(states[-1], word))
        state = g.step(tables(name), state, jnp.array([ids[word]]))
        assert int(state[0, 0]) == states[-1].place
    open_ = grammar.allowed(states[-1])
    expected = {eos if w == END else ids[w] for w in open_}
    found = np.flatnonzero(np.asarray(g.allowed(tables(name), state, 10**6))[0])
    assert set(found.tolist()) == expected
    for i in np.random.default_rng(seed).integers(size, size=5).tolist():
        after = g.step(tables(name), state, jnp.array([i]))
        assert (int(after[0, 0]) != g.LOST) == (i in expected)


ROWS = 12


def sampled(name: str, size: int, grammar: g.Tables | None) -> list[str | None]:
    """Sentences from logits that are drawn anew for each step, far from even."""
    _, count, _ = vocabulary(name)
    key = jax.random.key(size)

    def predict(ids: jax.Array, known: jax.Array) -> jax.Array:
        drawn = 8 * jax.random.normal(jax.random.fold_in(key, known.sum()), (ROWS, 1, count))
        return jnp.broadcast_to(drawn, (ROWS, size, count))

    blank = jnp.zeros((ROWS, size), jnp.int32)
    run = jax.jit(lambda k: sample_sequence(predict, blank, blank > 0, k, Sampler(), grammar))
    return [sentence(name, row) for row in np.asarray(run(key))]


@pytest.mark.parametrize("name", FORMS)
def test_all_that_is_sampled_parses(name):
    found = sampled(name, int(tables(name).shortest[0]) + 8, tables(name))
    assert None not in found, "it did not end in time"
    for text in found:
        assert FORMS[name].write(FORMS[name].read(text)) == text
    assert len(set(found)) > ROWS / 4


@pytest.mark.parametrize("name", ["tree", "boxes"])
def test_with_no_place_to_spare_the_shortest_is_written(name):
    least = int(tables(name).shortest[0])
    assert {len(text.split()) for text in sampled(name, least, tables(name))} == {least - 1}


def test_without_a_grammar_hardly_anything_parses():
    """What the tests above would say of a grammar that forbids nothing."""
    parsed = 0
    for text in sampled("tree", 12, None):
        try:
            parsed += bool(FORMS["tree"].read("?" if text is None else text))
        except UserError:
            continue
    assert parsed < ROWS / 4


def test_what_is_given_is_kept_and_goes_on_legally():
    ids, count, eos = vocabulary("boxes")
    given_ = [ids[w] for w in ["v0=60", "v1=8"]]
    blank = jnp.zeros((32, 9), jnp.int32).at[:, :2].set(jnp.array(given_))
    known = jnp.zeros((32, 9), bool).at[:, :2].set(True)
    logits = lambda i, k: jax.random.normal(jax.random.fold_in(jax.random.key(3), k.sum()), (32, 9, count))  # fmt: skip
    rows = np.asarray(sample_sequence(logits, blank, known, jax.random.key(0), Sampler(), tables("boxes")))  # fmt: skip
    for row in rows:
        (first, *_) = FORMS["boxes"].read(sentence("boxes", row) or "?")
        assert first["box"][:2] == [60, 8] and first["box"][2] >= 60 and first["box"][3] >= 8


def test_what_is_given_against_the_grammar_leaves_all_open():
    ids, count, _ = vocabulary("boxes")
    state = g.step(tables("boxes"), g.start(tables("boxes"), 2), jnp.array([ids["v0=3"], ids["v3=1"]]))  # fmt: skip
    assert state[:, 0].tolist() == [1, g.LOST]
    open_ = np.asarray(g.allowed(tables("boxes"), state, 50))
    assert open_[0].sum() == 10 and open_[1].all()
    assert (g.step(tables("boxes"), state, jnp.array([ids["v1=0"]] * 2))[:, 0].tolist()) == [2, g.LOST]  # fmt: skip


def test_masked_logits_keep_what_is_open():
    logits = jax.random.normal(jax.random.key(0), (1, vocabulary("tree")[1]))
    state = g.start(tables("tree"), 1)
    masked = g.masked(tables("tree"), state, logits, 20)
    only = vocabulary("tree")[0]["("]
    assert int(masked.argmax()) == only and masked[0, only] == logits[0, only]
    assert np.isfinite(np.asarray(masked)).all() and (np.asarray(masked) > -1e3).sum() == 1
