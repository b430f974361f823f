"""Videos: the first frame is a picture, what comes later changes nothing before, weights take any length."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm.models.convolutions import SpaceTimeConv, Up
from mm.tokenizers import autoencoder
from mm.tokenizers.quantizers import FSQ
from mm.tokenizers.video import VideoAutoencoder
from tests.tokenizers.random_weights import random_weights

SMALL = VideoAutoencoder(
    frames=5, height=8, width=8, widths=(8, 8), steps=(2, 2), groups=2, latent=3
)
CODES = FSQ(levels=(5, 5, 5))


def encoder(settings):
    """Jitted: (params, raw) -> (latents [B, t, h * w, d], ids [B, t, h * w])."""
    structure, _ = autoencoder.split(settings)

    @jax.jit
    def run(params, raw):
        network = nnx.merge(structure, params)
        z = network.encode(network.prepare(raw))
        z = z.reshape(len(z), settings.grid.t, -1, settings.latent)
        return z, CODES.quantize({}, z).ids

    return run


@pytest.fixture(scope="module")
def params():
    return random_weights(SMALL)


@pytest.fixture(scope="module")
def encode():
    return encoder(SMALL)


def videos(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 5, 8, 8, 3), np.uint8)


def test_codes_up_to_a_time_do_not_change_with_later_frames(params, encode):
    raw = videos()
    z, _ = encode(params, raw)
    assert z.shape == (2, 2, 4, 3)
    later = np.concatenate([raw[:, :1], videos(1)[:, 1:]], 1)
    other, _ = encode(params, later)
    np.testing.assert_array_equal(z[:, 0], other[:, 0])
    assert np.abs(z[:, 1] - other[:, 1]).max() > 0
    # each of the four frames of a stretch counts in its code
    for frame in range(1, 5):
        changed = raw.copy()
        changed[:, frame] = 255 - changed[:, frame]
        assert np.abs(encode(params, changed)[0][:, 1] - z[:, 1]).max() > 0, frame


def test_a_picture_is_a_video_of_one_frame_and_has_its_first_codes(params, encode):
    raw = videos()
    one = dataclasses.replace(SMALL, frames=1)
    _, shapes = autoencoder.split(one)
    assert jax.tree.map(lambda a: a.shape, shapes) == jax.tree.map(jnp.shape, params)
    z, ids = encode(params, raw)
    alone, same = encoder(one)(params, raw[:, :1])
    assert alone.shape == (2, 1, 4, 3)
    np.testing.assert_allclose(alone[:, 0], z[:, 0], atol=1e-5)
    np.testing.assert_array_equal(same[:, 0], ids[:, 0])


def test_what_stands_still_has_the_same_codes_at_all_times(params, encode):
    z, _ = encode(params, np.repeat(videos()[:, :1], 5, axis=1))
    np.testing.assert_allclose(z[:, 1], z[:, 0], atol=1e-5)


def test_frames_up_to_a_time_do_not_change_with_later_codes(params):
    structure, _ = autoencoder.split(SMALL)
    decode = jax.jit(lambda p, z: nnx.merge(structure, p).decode(z))
    z = jax.random.normal(jax.random.key(0), (2, 8, 3))
    other = z.at[:, 4:].set(1.0)
    one, two = decode(params, z), decode(params, other)
    assert one.shape == (2, 5, 8, 8, 3)
    np.testing.assert_array_equal(one[:, 0], two[:, 0])
    assert (np.abs(one[:, 1:] - two[:, 1:]).max((0, 2, 3, 4)) > 0).all()


def test_a_convolution_over_frames_is_one_over_three_axes():
    conv = SpaceTimeConv(2, 3, rngs=nnx.Rngs(0), span=3, steps=2, window=4, stride=2)
    x = jax.random.normal(jax.random.key(0), (1, 5, 6, 4, 2))
    kernel = conv.conv.kernel[...].reshape(4, 4, 3, 2, 3).transpose(2, 0, 1, 3, 4)
    padded = jnp.concatenate([x[:, :1], x[:, :1], x], 1)
    padded = jnp.pad(padded, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = jax.lax.conv_general_dilated(
        padded, kernel, (2, 2, 2), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )
    np.testing.assert_allclose(conv(x), wanted, atol=1e-5)
    assert wanted.shape == (1, 3, 3, 2, 3)


def test_going_up_gives_each_place_its_own_frames_and_pixels():
    up = Up(2, 1, rngs=nnx.Rngs(0), span=1, steps=2, stride=2)
    x = jnp.zeros((1, 3, 4, 4, 2)).at[0, 1, 2, 1].set(1.0)
    frames = np.abs(up(x))[0, ..., 0]
    assert frames.shape == (5, 8, 8)
    touched = np.argwhere(frames > 0)
    assert touched.min(0).tolist() == [1, 2, 0] and touched.max(0).tolist() == [2, 7, 5]


def test_frames_are_looked_at_side_by_side():
    assert SMALL.picture(videos()[0]).shape == (8, 40, 3)
    volume = dataclasses.replace(SMALL, rows="values", channels=1)
    seen = volume.picture(np.arange(5 * 64, dtype=np.float32).reshape(5, 8, 8))
    assert seen.shape == (8, 40) and seen.dtype == np.uint8 and (seen.min(), seen.max()) == (0, 255)
    raw = videos()
    off = np.where(raw > 127, raw - 51, raw + 51).astype(np.uint8)
    off[:, 0] = raw[:, 0]
    figures = SMALL.measures(raw, off)
    assert figures["psnr_frame_db"] == pytest.approx((100 + 4 * 20 * np.log10(5)) / 5, rel=1e-4)
