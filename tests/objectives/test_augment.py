"""Rows made a little different: what they are where nothing is drawn, that they stay in their range, and the form that uses them."""

import jax
import jax.numpy as jnp
import numpy as np

from mm.models.towers import Conv, Dense
from mm.objectives.contrastive.augment import forgotten, moved
from mm.objectives.contrastive.forms import AllPairs
from mm.objectives.contrastive.forms_with_needs import Augmented
from mm.objectives.contrastive.views import same_example
from mm.tasks.towers import Towers, TowersTask


def test_pictures_move_by_linear_interpolation():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3)).astype(np.uint8)
    run = jax.jit(moved, static_argnames=("shift", "zoom"))
    key = jax.random.key(0)
    np.testing.assert_array_equal(run(key, pictures, shift=0.0, zoom=0.0), pictures)
    assert run(key, pictures[..., 0]).shape == (4, 6, 8)
    seen = run(key, pictures.astype(np.float32), shift=0.2, zoom=0.0)
    shifts = [
        side * jax.random.uniform(jax.random.split(k)[0], (4, 1), minval=-0.2, maxval=0.2)[:, 0]
        for side, k in zip((6, 8), jax.random.split(key), strict=True)
    ]
    assert np.abs(shifts).max() > 0.5
    for picture, found, *by in zip(pictures.astype(np.float64), seen, *shifts, strict=True):
        np.testing.assert_allclose(found, slow_moved(picture, *map(float, by)), atol=1e-3)


def slow_moved(picture, dy, dx):
    """[H, W, C] looked at dy, dx further, from outside the border."""
    for axis, by in ((0, dy), (1, dx)):
        side = picture.shape[axis]
        at = np.clip(np.arange(side) + by, 0, side - 1)
        low = np.minimum(np.floor(at).astype(int), side - 2)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
        picture = (1 - share) * picture.take(low, axis) + share * picture.take(low + 1, axis)
    return picture


def test_ids_are_forgotten_one_by_one():
    ids = np.arange(1, 2001, dtype=np.int32).reshape(20, 100)
    found = np.asarray(forgotten(jax.random.key(0), ids, 0.1))
    assert ((found == ids) | (found == 0)).all() and 120 < (found == 0).sum() < 280


def test_the_form_embeds_what_was_changed_and_leaves_the_rest():
    """With a change that is the other row's picture, the loss is that of pictures rolled by one."""
    rolled = lambda key, rows: jnp.roll(rows, 1, axis=0)
    form = AllPairs(target=same_example)
    encoders = {"a": Dense(), "b": Dense()}
    tasks = [
        TowersTask(Towers(encoders=encoders, objectives={"m": (1.0, f)}, width=4), {"a": (3,), "b": (3,)})
        for f in (form, Augmented(form=form, by={"a": rolled, "b": None}))
    ]  # fmt: skip
    params, _ = jax.jit(tasks[0].init)(jax.random.key(0))
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    batch = {"a": a, "b": b, "group": np.arange(5), "present": {"a": np.ones(5, bool), "b": np.ones(5, bool)}}  # fmt: skip
    losses = [
        jax.jit(task.loss)(params, {}, rows, jax.random.key(0))[0]["contrast/m"]
        for task, rows in ((tasks[0], batch | {"a": np.roll(a, 1, axis=0)}), (tasks[1], batch))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_convolutions_are_those_of_a_loop():
    """One layer without its norm's effect: scaled to mean 0, variance 1 over channels, as the loop's is."""
    from flax import nnx

    settings = Conv(channels=(5,))
    network = settings.build((6, 4, 2), 3, nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 2)).astype(np.float32)
    kernel = np.asarray(network.layer0.kernel[...]).reshape(3, 3, 2, 5)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((2, 3, 2, 5))
    for b, i, j in np.ndindex(2, 3, 2):
        out[b, i, j] = np.einsum("hwc,hwcd->d", padded[b, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel)  # fmt: skip
    out = (out - out.mean(-1, keepdims=True)) / np.sqrt(out.var(-1, keepdims=True) + 1e-6)
    out = np.asarray(jax.nn.gelu(jnp.float32(out))).reshape(2, -1) @ np.asarray(network.head.kernel[...])  # fmt: skip
    np.testing.assert_allclose(jax.jit(network)(x), out, atol=1e-5)
    assert settings.build((5, 7), 3, nnx.Rngs(0))(jnp.zeros((2, 5, 7), jnp.uint8)).shape == (2, 3)
