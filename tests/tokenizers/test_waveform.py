"""A causal waveform network: chunks give what the whole gives, and no future changes a code; files of sound."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

from mm.errors import UserError
from mm.models.time_convolutions import Past, TimeConv, TimeUp
from mm.tokenizers import autoencoder
from mm.tokenizers.waveform import WaveformAutoencoder
from tests.tokenizers.random_weights import random_weights

SMALL = WaveformAutoencoder(
    length=96, strides=(2, 4), width=4, widest=8, dilations=(1, 3), latent=3, windows=(16, 32)
)


@pytest.fixture(scope="module")
def network():
    """(structure, params) of `SMALL`."""
    structure, _ = autoencoder.split(SMALL)
    return structure, random_weights(SMALL)


def waves(count: int = 2, seed: int = 0) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (count, 96, 1), minval=-1)


def test_chunks_give_what_the_whole_gives(network):
    structure, params = network
    x = waves()

    @jax.jit
    def whole(params, x):
        made = nnx.merge(structure, params)
        z = made.encode(x)
        return z, made.decode(z)

    @jax.jit
    def step(params, states, chunk):
        made = nnx.merge(structure, params)
        heard, z = made.encode_step(states[0], chunk)
        said, wave = made.decode_step(states[1], z)
        return (heard, said), z, wave

    z, wave = whole(params, x)
    for sizes in ((8,) * 12, (48, 48), (16, 80)):
        states = nnx.merge(structure, params).start(2)
        parts, at = [], 0
        for size in sizes:
            states, *part = step(params, states, x[:, at : at + size])
            assert part[0].shape == (2, size // 8, 3) and part[1].shape == (2, size, 1)
            parts.append(part)
            at += size
        for found, wanted in zip(zip(*parts, strict=True), (z, wave), strict=True):
            np.testing.assert_allclose(np.concatenate(found, 1), wanted, atol=1e-5)
    without = step(params, nnx.merge(structure, params).start(2), x[:, 48:])[2]
    assert np.abs(without - wave[:, 48:]).max() > 1e-3  # what was heard before counts


def test_no_future_changes_what_was_coded_or_decoded(network):
    structure, params = network
    x = waves()
    other = x.at[:, 40:].set(waves(seed=1)[:, 40:])
    encode = jax.jit(lambda p, x: nnx.merge(structure, p).encode(x))
    decode = jax.jit(lambda p, z: nnx.merge(structure, p).decode(z))
    one, two = encode(params, x), encode(params, other)
    np.testing.assert_array_equal(one[:, :5], two[:, :5])
    assert (np.abs(one[:, 5:] - two[:, 5:]).max((0, 2)) > 0).all()
    mixed = one.at[:, 5:].set(two[:, 5:])
    one, two = decode(params, one), decode(params, mixed)
    np.testing.assert_array_equal(one[:, :40], two[:, :40])
    assert np.abs(one[:, 40:48] - two[:, 40:48]).max() > 0


def test_a_network_that_is_not_causal_looks_ahead_and_takes_no_chunks():
    both_sides = dataclasses.replace(SMALL, causal=False)
    structure, _ = autoencoder.split(both_sides)
    params = random_weights(both_sides)
    encode = jax.jit(lambda p, x: nnx.merge(structure, p).encode(x))
    x = waves()
    other = x.at[:, 40:].set(0)
    assert np.abs(encode(params, x) - encode(params, other))[:, 4].max() > 0
    with pytest.raises(UserError, match="only a causal network"):
        nnx.merge(structure, params).start(1)


def test_strided_and_dilated_windows_end_where_their_stretch_ends():
    """Against a sum written out, with zeros before the first sample."""
    conv = TimeConv(2, 3, rngs=nnx.Rngs(0), window=4, stride=2, dilation=3)
    kernel, x = np.asarray(conv.conv.kernel[...]), np.random.default_rng(0).normal(size=(1, 8, 2))
    found = conv(jnp.asarray(x, jnp.float32), Past())
    for i in range(4):
        wanted = sum(
            x[0, at] @ kernel[k]
            for k in range(4)
            if (at := 2 * i + 1 - 3 * (3 - k))
            >= 0  # the last tap lies on the stretch's last sample
        )
        np.testing.assert_allclose(found[0, i], wanted, atol=1e-5)


def test_going_up_is_a_transposed_convolution_trimmed_on_the_right():
    up = TimeUp(2, 3, 4, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 5, 2))
    taps = np.asarray(up.conv.conv.kernel[...]).reshape(2, 2, 4, 3)  # (before, own), in, place, out
    wanted = np.zeros((24, 3))
    for i in range(5):  # each input adds its eight outputs: its own stretch, and the one behind it
        wanted[4 * i : 4 * i + 4] += np.einsum("c,cpo->po", x[0, i], taps[1])
        wanted[4 * i + 4 : 4 * i + 8] += np.einsum("c,cpo->po", x[0, i], taps[0])
    np.testing.assert_allclose(up(x, Past())[0], wanted[:20], atol=1e-5)


def test_weights_take_rows_of_any_length(network):
    longer = dataclasses.replace(SMALL, length=160)
    _, shapes = autoencoder.split(longer)
    assert jax.tree.map(lambda a: a.shape, shapes) == jax.tree.map(jnp.shape, network[1])
    assert longer.grid.t == 20


def test_silence_has_finite_gradients(network):
    structure, params = network

    def loss(out):
        terms = nnx.merge(structure, params).terms(out, jnp.zeros((2, 96, 1)))
        return sum(total for total, _ in terms.values()), terms

    gradient, terms = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros((2, 96, 1)))
    assert np.isfinite(gradient).all()
    assert float(terms["si_sdr"][1]) == 0 and float(terms["log_spectral_distance"][1]) == 0


def test_users_sounds_are_framed_and_written(tmp_path):
    tone = np.float32(0.5 * np.sin(np.arange(4000) / 3))
    soundfile.write(tmp_path / "a.wav", tone, 8000)
    made = WaveformAutoencoder(length=1600)
    row = made.read_file(tmp_path / "a.wav")
    assert row.shape == (1600,) and np.abs(row).max() == pytest.approx(0.9, abs=1e-3)
    path = made.write_file(row, tmp_path / "b")
    assert path.name == "b.wav"
    np.testing.assert_allclose(soundfile.read(path)[0], row, atol=1e-4)
    two = dataclasses.replace(made, channels=2)
    both = np.stack([row, -row], 1)
    np.save(tmp_path / "c.npy", both)
    np.testing.assert_array_equal(two.read_file(tmp_path / "c.npy"), both)
    assert soundfile.read(two.write_file(both, tmp_path / "d"))[0].shape == (1600, 2)
