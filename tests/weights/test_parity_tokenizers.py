"""Golden sets of 4M's tokenizers: those that its code made, and what the check says of sets that are wrong."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mm.errors import UserError
from mm.tokenizers.quantizers import VectorQuantizer
from mm.weights import m4_tokenizers as m4
from mm.weights import parity_tokenizers as parity
from mm.weights.parity import report
from tests.weights.golden import golden
from tests.weights.kinds_4m import COSINE, EUCLIDEAN, fresh, inputs


@pytest.mark.parametrize("name", ["vqvae_tiny", "memcodes_tiny"])
def test_parity_with_the_original(name):
    errors = parity.check(golden(name))
    assert {"latent", "quant", "tokens", "rec", "train_code_loss"} <= errors.keys()
    chance = {"train_rec"} if name == "memcodes_tiny" else set()
    assert {n for n, error in errors.items() if error is None} == chance
    assert max(e for e in errors.values() if e is not None) < 1e-4, errors
    assert errors["tokens"] == 0


def test_vectors_may_stand_on_a_grid():
    made = fresh("vector")
    x = inputs(made.network)  # [6, 9]
    flat, grid = parity.run(made, x), parity.run(made, x.reshape(1, 2, 3, 9).transpose(0, 3, 1, 2))
    assert grid["tokens"].shape == (1, 2, 2, 3) and grid["rec"].shape == (1, 9, 2, 3)
    for name, a in flat.items():
        wide = np.moveaxis(grid[name], 1, -1).reshape(a.shape)
        np.testing.assert_allclose(wide, a, atol=1e-5, err_msg=name)


def written(name: str, stem: Path, **arrays) -> dict[str, np.ndarray]:
    """A set of our own making; returns its arrays."""
    made = fresh(name)
    m4.export_tokenizer(made, f"{stem}.safetensors")
    x = inputs(made.network)
    arrays = {"x": x} | parity.run(made, x) | arrays
    np.savez(f"{stem}.npz", **arrays)
    return arrays


def test_the_check_sees_what_is_wrong(tmp_path):
    stem = tmp_path / "set"
    right = written("vector", stem, train_code_loss=np.ones(1), rec_big=np.ones(2))
    np.savez(f"{stem}.npz", **right | {"quant": np.ones(2), "tokens": right["tokens"] ^ 1})
    errors = parity.check(stem)
    assert errors.pop("train_code_loss") == 1 and errors.pop("quant") == np.inf
    assert errors.pop("tokens") == right["tokens"].size
    assert errors.pop("rec_big") is None, "there is no x_big"
    assert max(errors.values()) < 1e-6 and errors.keys() == {"latent", "rec"}


def test_what_is_not_checked_is_named_and_no_failure(tmp_path, capsys):
    stem = tmp_path / "set"
    written("vector", stem, grad_norm=np.ones(2))
    assert report(((n, e, 1e-4) for n, e in parity.check(stem).items()))
    assert "unchecked  grad_norm\n" in capsys.readouterr().out
    np.savez(f"{stem}.npz", other=np.ones(2))
    with pytest.raises(UserError, match=r"set\.npz: no input x with any of latent"):
        parity.check(stem)


BAD_SETS = {
    "missing": (lambda p: p.unlink(), "no such file"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-99]), "not a readable .npz"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({})), "not a readable .npz"),
    "one array": (lambda p: np.save(p.open("wb"), np.ones(3)), "not a readable .npz"),
    "objects": (lambda p: np.savez(p, x=np.array([{}], object)), "not a readable .npz"),
    "channels": (lambda p: np.savez(p, x=np.ones((1, 4, 12, 12))), r"x is float64\[1, 4, 12, 12\], the tokenizer takes \[B, 3"),
    "patches": (lambda p: np.savez(p, x=np.ones((1, 3, 12, 13))), "in patches of 4"),
    "rank": (lambda p: np.savez(p, x=np.ones((3, 12))), "the tokenizer takes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETS)
def test_sets_that_do_not_fit_are_one_line(name, tmp_path):
    change, says = BAD_SETS[name]
    m4.export_tokenizer(fresh("everything"), tmp_path / "set.safetensors")
    np.savez(tmp_path / "set.npz", x=np.ones((1, 3, 12, 12)))
    change(tmp_path / "set.npz")
    with pytest.raises(UserError, match=says) as error:
        parity.check(tmp_path / "set")
    assert "set.npz" in str(error.value) and "\n" not in str(error.value)


def coded_vectors(quantizer: VectorQuantizer, **buffers) -> m4.Imported:
    """An MLP with one codebook, cheap to compile."""
    made = fresh("vector, codebook")
    buffers = (
        made.buffers | ({} if quantizer.drift else {"sums": made.buffers["codebook"]}) | buffers
    )
    return made._replace(quantizer=quantizer, buffers=buffers)


@pytest.mark.parametrize("quantizer", [COSINE, EUCLIDEAN], ids=["cosine", "euclidean"])
def test_a_training_step_in_which_codes_fall_out_of_use(quantizer, tmp_path):
    """Which latent such a code takes is chance; that it is one of the batch, and all other rows, are checked."""
    counts = np.where(np.arange(11) < 4, 0.1, 5.0).astype(np.float32)
    stem, made = tmp_path / "set", coded_vectors(quantizer, counts=counts)
    m4.export_tokenizer(made, f"{stem}.safetensors")
    x = inputs(made.network)
    latents = parity.run(made, x)["latent"]
    config = {"commitment_weight": 0.5}
    step = parity.trained(made, {"x": x}, config, 0.5)
    whole = parity.trained(made, {"x": x}, {})
    np.testing.assert_allclose(step["train_code_loss"], whole["train_code_loss"] / 2, rtol=1e-6)
    book = step["ema_embed"].copy()
    book[:4] = latents[[3, 1, 2, 0]] / np.linalg.norm(latents[[3, 1, 2, 0]], axis=1, keepdims=True)
    settings_ = m4.read(f"{stem}.safetensors")[0] | config
    (tmp_path / "set.json").write_text(json.dumps({"config": settings_}))
    for changed, right in ((book, True), (book * np.float32([[1.01]] + 10 * [[1]]), False)):
        np.savez(f"{stem}.npz", **{"x": x} | step | {"ema_embed": changed})
        errors = parity.check(stem)
        assert (errors.pop("ema_embed") < 1e-5) == right
        assert max(errors.values()) < 1e-5


def test_running_sums_that_the_file_does_not_hold_are_the_codes_or_begun_with_them(tmp_path):
    stem, made = tmp_path / "set", coded_vectors(EUCLIDEAN, counts=np.zeros(11, np.float32))
    book = made.buffers["codebook"]
    m4.export_tokenizer(made, f"{stem}.safetensors")
    x = inputs(made.network)
    outputs = parity.run(made, x)
    for times in (1, 4):
        begun = {"counts": np.full(11, 4, np.float32), "sums": times * book}
        step = parity.trained(made._replace(buffers=made.buffers | begun), {"x": x}, {})
        np.savez(f"{stem}.npz", **{"x": x} | outputs | step)
        assert max(parity.check(stem).values()) < 1e-5, times


def test_standardised_pixels_are_as_good(tmp_path):
    stem = tmp_path / "set"
    right = written("everything", stem)
    settings_ = m4.read(f"{stem}.safetensors")[0] | {"undo_std": True}
    (tmp_path / "set.json").write_text(json.dumps({"config": settings_}))
    mean, std = np.float32([[[0.485]], [[0.456]], [[0.406]]]), np.float32([[[0.229]], [[0.224]], [[0.225]]])  # fmt: skip
    np.savez(f"{stem}.npz", **right | {"x": ((right["x"] + 1) / 2 - mean) / std})
    assert max(parity.check(stem).values()) < 1e-5
