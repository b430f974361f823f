"""Generation that can only name what there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.generate import grammar


@pytest.mark.parametrize("length", [1, 2, 4])
def test_under_a_trie_its_sequences_are_drawn_all_of_them_and_no_others(length):
    rng = np.random.default_rng(length)
    known = np.unique(rng.integers(0, 5, (12, length)), axis=0)
    trie = grammar.trie(known, 7)

    @jax.jit
    def draw(key):
        state, ids = grammar.start(trie, 2000), []
        for i in range(length):
            logits = jax.random.normal(jax.random.fold_in(key, i), (2000, 7))
            logits = grammar.masked(trie, state, logits, left=length - i)
            ids.append(jnp.argmax(logits, -1))
            state = grammar.step(trie, state, ids[-1])
        return jnp.stack(ids, 1), state

    drawn, state = draw(jax.random.key(0))
    found = np.unique(np.asarray(drawn), axis=0)
    np.testing.assert_array_equal(found, known)
    assert (np.asarray(state[:, 0]) == len(trie.after) - 1).all()
    assert grammar.step(trie, state, jnp.zeros(2000, jnp.int32))[0, 0] == grammar.LOST
