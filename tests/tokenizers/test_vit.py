"""The ViT around a codebook: bicubic positions against NumPy, any size with the same weights, rows of three sorts, its recipe."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from configs import vit_vq
from mm import config
from mm.errors import UserError
from mm.main import main
from mm.models.layers import sincos_2d
from mm.tokenizers import autoencoder, vit
from mm.tokenizers.vit import Transformer, ViTAutoencoder

SIDE = Transformer(width=16, depth=1, heads=2)


def small(**changed) -> ViTAutoencoder:
    fields = {"height": 16, "width": 16, "patch": 4, "image_size": 16, "code_width": 6}
    return ViTAutoencoder(**fields | {"encoder": SIDE, "decoder": SIDE} | changed)


def kernel(x: float, a: float = -0.75) -> float:
    """Keys' cubic convolution."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def slow_resized(x: np.ndarray, h: int, w: int) -> np.ndarray:
    """One output and one of its 16 neighbours at a time."""
    out = np.zeros((h, w, x.shape[2]))
    for i in range(h):
        for j in range(w):
            y, z = (i + 0.5) * x.shape[0] / h - 0.5, (j + 0.5) * x.shape[1] / w - 0.5
            for m in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for n in range(int(np.floor(z)) - 1, int(np.floor(z)) + 3):
                    place = min(max(m, 0), x.shape[0] - 1), min(max(n, 0), x.shape[1] - 1)
                    out[i, j] += kernel(y - m) * kernel(z - n) * x[place]
    return out


@settings(max_examples=12)
@given(st.integers(1, 7), st.integers(1, 9))
def test_each_place_takes_of_its_four_neighbours_what_keys_says(old, new):
    found = vit.cubic_weights(old, new)
    wanted = slow_resized(np.eye(old)[None], 1, new)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)
    assert new != old or (found == np.eye(old)).all()


def test_bicubic_against_numpy():
    x = np.random.default_rng(0).normal(size=(3, 5, 2))
    found = jax.jit(lambda x: vit.resized(x, 7, 4))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, slow_resized(x, 7, 4), atol=1e-5)


def test_bicubic_is_the_one_of_pytorch():
    """1..16 in a square, twice as large: the first row that PyTorch gives, and ONNX's specification of cubic resizing."""
    x = jnp.arange(1.0, 17).reshape(4, 4, 1)
    row = [0.47265625, 0.76953125, 1.24609375, 1.875, 2.28125, 2.91015625, 3.38671875, 3.68359375]
    np.testing.assert_allclose(vit.resized(x, 8, 8)[0, :, 0], row, atol=1e-6)
    assert vit.resized(x, 4, 4) is x  # the same size: the same bits


def test_positions_are_those_of_the_stored_grid_resized():
    stored = np.asarray(sincos_2d(3, 3, 8), np.float64)
    np.testing.assert_array_equal(vit.positions(3, 3, 3, 8), sincos_2d(3, 3, 8))
    wanted = slow_resized(stored.reshape(3, 3, 8), 2, 5).reshape(10, 8)
    np.testing.assert_allclose(vit.positions(3, 2, 5, 8), wanted, atol=1e-5)


def test_one_set_of_weights_takes_any_size_that_patches_tile():
    trained = small(post_mlp=True, out_conv=True)
    params = jax.jit(lambda: nnx.to_pure_dict(nnx.state(trained.build(nnx.Rngs(0)))))()
    for height, width in ((16, 16), (8, 24)):
        sized = dataclasses.replace(trained, height=height, width=width)
        structure, shapes = autoencoder.split(sized)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda a: a.shape, shapes)
        raw = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)

        @jax.jit
        def run(params, raw, structure=structure):
            network = nnx.merge(structure, params)
            x = network.prepare(raw)
            z = network.encode(x)
            return x, z, network.render(network.decode(z)), network.render(x)

        x, z, back, same = run(params, raw)
        assert z.shape == (2, height * width // 16, 6) and back.shape == raw.shape
        assert np.abs(x).max() <= 1 + 1e-6
        np.testing.assert_array_equal(same, raw)


@pytest.mark.parametrize(
    ("changed", "dtype", "shape"),
    [
        ({}, np.uint8, (16, 16, 3)),
        ({"channels": 1}, np.uint8, (16, 16)),
        ({"rows": "values", "channels": 5, "patch": 1, "height": 2, "image_size": 3}, np.float32, (2, 16, 5)),
        ({"rows": "values", "channels": 1}, np.float32, (16, 16)),
        ({"rows": "labels", "labels": 7, "channels": 4, "out_conv": True}, np.int32, (16, 16)),
        ({"rows": "mask", "channels": 1, "codebooks": 3}, np.bool_, (16, 16)),
        ({"codebooks": 3, "width": 8}, np.uint8, (16, 8, 3)),
        ({"codebooks": 3, "memory": 5}, np.uint8, (16, 16, 3)),
    ],
)  # fmt: skip
def test_rows_of_every_sort_go_through(changed, dtype, shape):
    made = small(**changed)
    made.validate()
    assert (made.row.shape, made.row.dtype) == (shape, dtype)
    terms = autoencoder.check_network(made)  # shapes of encode and render
    more = {"labels": {"accuracy"}, "mask": {"iou"}, "values": {"smooth_l1"}}.get(made.rows, set())
    more |= {"cosine_distance"} if made.rows == "values" and made.channels > 1 else set()
    assert terms == {"reconstruction"} | more
    assert made.grid.size == made.codebooks * (shape[0] // made.patch) * (shape[1] // made.patch)


def test_labels_cost_their_cross_entropy_and_come_back_as_the_likeliest():
    network = nnx.eval_shape(lambda: small(rows="labels", labels=3, channels=4).build(nnx.Rngs(0)))
    labels = np.array([[[0, 2], [1, 1]]])
    out = np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32)
    chances = np.exp(out) / np.exp(out).sum(-1, keepdims=True)
    nats = -np.log([chances[0, i, j, labels[0, i, j]] for i in (0, 1) for j in (0, 1)]).sum()
    total, count = network.terms(jnp.asarray(out), jnp.asarray(labels))["reconstruction"]
    assert float(total) == pytest.approx(nats, rel=1e-5) and float(count) == 4
    np.testing.assert_array_equal(network.render(jnp.asarray(out)), out.argmax(-1))


def test_masks_cost_their_cross_entropy_and_are_where_it_is_likelier(tmp_path):
    made = small(rows="mask", channels=1)
    network = nnx.eval_shape(lambda: made.build(nnx.Rngs(0)))
    raw = np.zeros((2, 16, 16), bool)
    raw[0, 4:12], raw[1, 2:5, 2:5] = True, True
    x = network.prepare(jnp.asarray(raw))
    out = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    likely = 1 / (1 + np.exp(-out[..., 0]))
    nats = -np.log(np.where(raw, likely, 1 - likely)).sum()
    terms = network.terms(jnp.asarray(out), x)
    assert float(terms["reconstruction"][0]) == pytest.approx(nats, rel=1e-5)
    rendered = np.asarray(network.render(jnp.asarray(out)))
    np.testing.assert_array_equal(rendered, out[..., 0] > 0)
    overlap = [(a & b).sum() / (a | b).sum() for a, b in zip(raw, rendered, strict=True)]
    assert float(terms["iou"][0]) == pytest.approx(sum(overlap)) and float(terms["iou"][1]) == 2
    assert made.measures(raw, rendered) == {"iou": pytest.approx(np.mean(overlap))}
    np.testing.assert_array_equal(made.read_file(made.write_file(raw[0], tmp_path / "a")), raw[0])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"memory": 9, "codebooks": 4}, "code_width=6: not a multiple of codebooks=4"),
        ({"height": 18}, "height=18: not a multiple of patch=4"),
        ({"image_size": 17}, "image_size=17"),
        ({"rows": "labels"}, "labels > 0 where rows are labels"),
        ({"labels": 3}, "labels > 0 where rows are labels"),
        ({"rows": "pictures"}, "use one of pixels, values, labels, mask"),
        ({"channels": 4}, "channels=4: pixels have 1 or 3"),
        ({"encoder": Transformer(width=18, depth=1, heads=3)}, "encoder.width=18: must divide by 4"),
        ({"decoder": Transformer(width=16, depth=1, heads=3)}, "decoder.width=16: must divide .* heads=3"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(changed, says):
    with pytest.raises(UserError, match=says) as error:
        small(**changed).validate()
    assert "\n" not in str(error.value)


def test_pictures_of_users_are_cut_to_the_row_and_written(tmp_path):
    made, pixels = small(), np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = (200, 30, 90)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    row = made.read_file(tmp_path / "a.png")
    assert row.shape == (16, 16, 3) and np.abs(row[8, 8].astype(int) - (200, 30, 90)).max() < 3
    assert made.write_file(row, tmp_path / "b").name == "b.png"


def test_presets_are_copies():
    changed = vit.preset("vit_b")
    changed.depth = 1
    assert vit.preset("vit_b").depth == 12
    with pytest.raises(KeyError):
        vit.preset("vit_x")


def test_the_recipe_is_checked_and_small_in_smoke():
    for arg in ("", "smoke"):
        exp = vit_vq.get_config(arg)
        config.validate(exp)
        assert config.fingerprint(config.from_json(config.to_json(exp))) == config.fingerprint(exp)
        assert autoencoder.check_network(exp.task.network) == {"reconstruction"}
    assert vit_vq.get_config("smoke").steps == 20 < vit_vq.get_config().steps


@pytest.mark.slow
def test_the_recipe_runs(tmp_path):
    assert (
        main(["mm", "--config", "configs/vit_vq.py:smoke", "--workdir", str(tmp_path / "run")]) == 0
    )
