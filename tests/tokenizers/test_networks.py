"""What every network of a kind of data must do: keep its promises of shape, learn, come back from its artefact, be sharded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils.epath import Path
from flax import nnx, traverse_util
from jax.sharding import AbstractMesh

from mm import artefact, sharding, tokenizers
from mm.errors import UserError
from mm.tasks import weighted
from mm.tasks.tokenizer import Autoencode
from mm.tokenizers import autoencoder, quantizers, series
from mm.tokenizers.conv_image import ConvAutoencoder
from mm.tokenizers.diffusion_image import DiffusionAutoencoder
from mm.tokenizers.memcodes import Bottleneck
from mm.tokenizers.quantizers import FSQ
from mm.tokenizers.series import PoseAutoencoder, SeriesAutoencoder
from mm.tokenizers.video import VideoAutoencoder
from mm.tokenizers.vit import Transformer, ViTAutoencoder
from mm.tokenizers.waveform import WaveformAutoencoder
from tests.tokenizers.random_weights import random_weights

FSQ_3 = FSQ(levels=(5, 5, 5))
BLOCKS, MLP = Transformer(width=16, depth=1, heads=2), Bottleneck(width=16, depth=1, outer=16)
VALUES = {"rows": "values", "mean": (1.0, 0.0, -1.0), "std": (2.0, 1.0, 0.5)}
SMALL = {
    "waveform": WaveformAutoencoder(length=64, strides=(2, 4), width=8, dilations=(1, 3), latent=3, windows=(16,)),
    "stereo": WaveformAutoencoder(length=32, channels=2, strides=(4,), width=4, dilations=(1,), latent=3, windows=(8,)),
    "series": SeriesAutoencoder(length=8, features=3, mean=(1.0, 0.0, 9.0), strides=(2,), width=8, latent=3),
    "pose": PoseAutoencoder(features=3, parts=2, std=(1.0, 2.0, 4.0), codes=4, latent=3, encoder=MLP, decoder=MLP),
    "picture": ConvAutoencoder(height=16, width=16, widths=(8, 8), groups=4, latent=3),
    "drawn": DiffusionAutoencoder(height=8, width=8, widths=(8, 8), groups=4, latent=3, steps=2),
    "edges": ConvAutoencoder(height=8, width=8, channels=1, widths=(8,), groups=4, latent=3),
    "normals": ConvAutoencoder(height=8, width=8, widths=(8,), groups=4, latent=3, **VALUES),
    "video": VideoAutoencoder(frames=3, height=8, width=8, widths=(8, 8), steps=(1, 2), groups=4, latent=3),
    "volume": VideoAutoencoder(
        rows="values", frames=3, height=4, width=4, channels=1, widths=(8,), steps=(2,), groups=4, latent=3
    ),
    "mask": ViTAutoencoder(
        rows="mask", height=8, width=8, channels=1, patch=4, image_size=8, code_width=3, encoder=BLOCKS, decoder=BLOCKS
    ),
}  # fmt: skip
TERMS = {
    "waveform": {"reconstruction", "spectral", "si_sdr", "log_spectral_distance"},
    "series": {"reconstruction", "mae"},
    "picture": {"reconstruction", "absolute", "psnr", "ssim"},
    "drawn": {"velocity"},
    "edges": {"reconstruction", "absolute", "psnr"},
    "normals": {"reconstruction", "absolute", "mae", "cosine_distance"},
    "video": {"reconstruction", "absolute", "psnr"},
    "volume": {"reconstruction", "absolute", "mae"},
    "mask": {"reconstruction", "iou"},
}
TERMS |= {"stereo": TERMS["waveform"], "pose": TERMS["series"]}
WEIGHTS = {"reconstruction": 1.0, "spectral": 0.3, "velocity": 1.0}


def some(*names: str) -> list:
    """All of `SMALL`; what is not named is compiled by slow tests alone."""
    return [pytest.param(n, marks=() if n in names else pytest.mark.slow) for n in SMALL]


def rows_of(made, count: int, seed: int = 0) -> np.ndarray:
    """Rows of two prototypes, in the form of `made`."""
    two = np.random.default_rng(7).normal(size=(2, *made.row.shape))
    rows = two[np.random.default_rng(seed).integers(0, 2, count)]
    if made.row.dtype == np.uint8:
        return np.uint8(np.clip(128 + 60 * rows, 0, 255))
    if made.row.dtype == np.bool_:
        return rows > 0
    return np.float32(0.3 * rows if isinstance(made, WaveformAutoencoder) else rows)


@pytest.mark.parametrize("name", SMALL)
def test_shapes_terms_and_places_are_those_of_the_settings(name):
    made = SMALL[name]
    made.validate()
    assert autoencoder.check_network(made) == TERMS[name]
    _, shapes = autoencoder.split(made)
    flat = traverse_util.flatten_dict(shapes)
    assert all(isinstance(key, str) for path in flat for key in path)  # Orbax keeps no other
    assert all(a.dtype == "float32" for a in flat.values())


@pytest.mark.parametrize(
    "made",
    [WaveformAutoencoder(), SeriesAutoencoder(), PoseAutoencoder(), ConvAutoencoder(), VideoAutoencoder(), DiffusionAutoencoder()],
)  # fmt: skip
def test_networks_as_they_are_by_default_are_split_over_devices(made):
    made.validate()
    _, shapes = autoencoder.split(made)
    mesh = AbstractMesh((1, 4, 2), sharding.AXES)
    assert not sharding.check_divided({"params": shapes}, mesh)
    kernels = [line for line in sharding.table({"params": shapes}, mesh) if "kernel" in line]
    assert len(kernels) > 5 and all("fsdp" in line for line in kernels)
    assert all("fsdp" not in line for line in sharding.table({"params": shapes}, mesh) if "bias" in line)  # fmt: skip


@pytest.mark.parametrize("name", some("waveform", "pose", "normals", "video", "drawn"))
def test_rows_come_back_from_an_artefact_in_their_form(name, tmp_path):
    made, rows = SMALL[name], rows_of(SMALL[name], 5)
    config = {"network": dataclasses.asdict(made), "quantizer": quantizers.to_json(FSQ_3)}
    kind = artefact.kind_of(made, autoencoder.KINDS)
    path = tmp_path / "a.safetensors"
    artefact.write(path, kind, config, autoencoder.flatten(random_weights(made), {}, "float16"), {})
    tokenizer = tokenizers.load(str(path), name)
    assert tokenizer.settings == made and tokenizer.modality.layout == made.grid
    ids, length = tokenizer.encode(rows)
    assert ids.shape == (5, made.grid.size) and (length == made.grid.size).all()
    back = tokenizer.decode(ids)
    assert back.shape == rows.shape and back.dtype == rows.dtype
    if rows.dtype == np.float32:
        assert np.isfinite(back).all()
    figures = made.measures(rows, back)
    assert all(np.isfinite(v) for v in figures.values()), figures
    seen = tokenizer.write_file(back[0], tmp_path / "out" / "row")
    assert seen.is_file()


def test_several_codes_of_a_latent_stand_beside_each_other(tmp_path):
    made, residual = SMALL["series"], quantizers.ResidualFSQ(levels=(5, 5, 5), stages=3)
    rows = rows_of(made, 4)
    files = {}
    for name, quantizer in (("one", FSQ_3), ("three", residual)):
        config = {"network": dataclasses.asdict(made), "quantizer": quantizers.to_json(quantizer)}
        files[name] = str(tmp_path / f"{name}.safetensors")
        kind = artefact.kind_of(made, autoencoder.KINDS)
        arrays = autoencoder.flatten(random_weights(made), {}, "float32")
        artefact.write(Path(files[name]), kind, config, arrays, {})
    one, three = (tokenizers.load(files[n], "series") for n in ("one", "three"))
    assert three.modality.size == 3 * one.modality.size and three.modality.vocabulary.size == 375
    ids, length = three.encode(rows)
    coarse, finer, finest = ids.reshape(4, -1, 3).transpose(2, 0, 1)
    np.testing.assert_array_equal(coarse, one.encode(rows)[0])
    assert (
        (finer // 125 == 1).all() and (finest // 125 == 2).all() and (length == ids.shape[1]).all()
    )
    assert three.vectors.shape == (375, 3) and three.decode(ids).shape == rows.shape


@pytest.mark.parametrize("name", some("pose"))
def test_a_few_steps_lower_the_loss(name):
    made = SMALL[name]
    task = Autoencode(column="x", network=made, quantizer=FSQ_3, weights=WEIGHTS).build(None)
    tx = optax.adam(1e-2)

    def step(carry, key):
        params, opt = carry

        def loss(params):
            return weighted(task.loss(params, {}, {"x": jnp.asarray(rows)}, key)[0], WEIGHTS)

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = tx.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), value

    rows, params = rows_of(made, 8), random_weights(made)
    keys = jax.random.split(jax.random.key(0), 40)
    _, values = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), keys))(params)
    assert np.isfinite(values).all()
    assert values[-5:].mean() < 0.8 * values[0], values


@pytest.mark.parametrize(
    ("name", "changed", "says"),
    [
        ("waveform", {"length": 60}, "length=60: not a multiple of the strides' product 8"),
        ("waveform", {"window": 6}, "an odd number"),
        ("waveform", {"windows": (128,)}, "at most length=64"),
        ("waveform", {"strides": ()}, "at least one"),
        ("series", {"mean": (0.0, 1.0)}, r"one per feature \(3\)"),
        ("pose", {"std": (0.0,)}, "std above 0"),
        ("pose", {"codes": 0}, "codes=0"),
        ("picture", {"height": 18}, "height=18"),
        ("picture", {"groups": 3}, "groups must divide"),
        ("picture", {"channels": 2}, "pixels have 1 or 3"),
        ("normals", {"mean": (0.0, 0.0)}, r"one per channel \(3\)"),
        ("normals", {"rows": "labels"}, "use one of pixels, values"),
        ("video", {"frames": 4}, "frames=4: not 1 and a multiple of the steps' product 2"),
        ("video", {"steps": (2,)}, "one step per stage"),
        ("mask", {"channels": 3}, "a mask has 1"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(name, changed, says):
    with pytest.raises(UserError, match=says) as error:
        dataclasses.replace(SMALL[name], **changed).validate()
    assert "\n" not in str(error.value)


def test_statistics_are_those_of_each_feature():
    rows = np.random.default_rng(0).normal((1, 2), (3, 4), (500, 7, 2))
    rows[..., 1] = 5
    mean, std = series.statistics(rows)
    assert mean == pytest.approx((rows[..., 0].mean(), 5)) and std == (pytest.approx(rows[..., 0].std()), 1)  # fmt: skip
    made = SeriesAutoencoder(length=7, features=2, mean=mean, std=std, strides=(7,), width=4)
    network = nnx.eval_shape(lambda: made.build(nnx.Rngs(0)))
    x = network.prepare(jnp.asarray(rows, jnp.float32))
    np.testing.assert_allclose(x[..., 0].std(), 1, atol=1e-5)
    np.testing.assert_allclose(network.render(x), rows, atol=1e-5)
    error = np.full_like(rows, 0.5)  # of standardised values
    total, count = network.terms(x + error, x)["mae"]
    assert float(total / count) == pytest.approx(0.5 * np.mean(std), rel=1e-5)
