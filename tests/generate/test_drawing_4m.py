"""What 4M's sampler draws from, and how what it wrote is put into a text."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mm.generate.sampling_4m import draw, filtered, merge_spans


@given(st.integers(0, 2**32 - 1), st.floats(0, 12) | st.integers(0, 12), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_filters_keep_the_likeliest(seed, top_k, top_p):
    """Token by token, from the likeliest on; of like ones the lower id."""
    logits = np.random.default_rng(seed).integers(0, 7, (3, 10)).astype(np.float32)
    kept = np.isfinite(np.asarray(filtered(jnp.asarray(logits), top_k, top_p)))
    most = 10 if not top_k else int(top_k) if top_k >= 1 else max(1, int(top_k * 10))
    for row, keep in zip(logits.astype(float), kept, strict=True):
        likeliest = sorted(range(10), key=lambda i: (-row[i], i))[:most]
        p = np.exp(row[likeliest]) / np.exp(row[likeliest]).sum()
        before = np.cumsum(p) - p
        assume(np.abs(before[1:] - top_p).min(initial=1) > 1e-5)  # rounding decides
        want = {
            t for t, b in zip(likeliest, before, strict=True) if not top_p or b < top_p or b == 0
        }
        assert set(np.flatnonzero(keep)) == want


def test_draws_follow_temperature_first_and_filters_then():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    u, one = jax.random.uniform(jax.random.key(0), (1, 40_000)), jnp.ones(())
    many = jnp.broadcast_to(logits, (1, 40_000, 4))
    drawing = jax.jit(draw, static_argnums=(3, 4))
    for temperature, top_p in ((1.0, 0.0), (2.0, 0.0), (2.0, 0.6), (0.5, 0.6)):
        ids, sure = drawing(u, many, one * temperature, 0.0, top_p)
        p = np.array([0.5, 0.3, 0.15, 0.05]) ** (1 / temperature)
        p /= p.sum()
        if top_p:
            p *= np.cumsum(p) - p < top_p
            p /= p.sum()
        assert np.abs(np.bincount(ids[0], minlength=4) / 40_000 - p).max() < 0.01
        assert np.allclose(sure[0], p[ids[0]], atol=1e-6)
    ids, sure = drawing(u, many, one * 0, 0.0, 0.0)
    assert (ids == 0).all() and (sure == 1).all()


@given(st.lists(st.integers(20, 30), max_size=30), st.lists(st.booleans(), min_size=30, max_size=30))  # fmt: skip
def test_split_and_merged_texts_are_the_texts(tokens, hidden):
    """Runs of hidden tokens, each behind a sentinel, and one more at the end."""
    text, spans, mark = [], [], 4
    for i, (token, hide) in enumerate(zip(tokens, hidden, strict=False)):
        if hide and (i == 0 or not hidden[i - 1]):
            mark += 1
            text.append(mark)
            spans.append(mark)
        (spans if hide else text).append(token)
    spans.append(mark + 1)
    assert merge_spans(np.array(text, int), np.array(spans, int), range(4, 20)).tolist() == tokens


def test_spans_that_fit_no_sentinel_are_left_out():
    text, spans = [5, 250, 6, 251, 7], [290, 6, 260, 9, 291, 5, 261, 6, 262]
    merged = merge_spans(np.array(text), np.array(spans))
    assert merged.tolist() == [261, 250, 260, 262, 251]
