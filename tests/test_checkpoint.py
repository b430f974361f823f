"""Checkpoints that were hurt: found out, named, and the one before them taken."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from mm import checkpoint
from mm.errors import UserError

MIXED = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5,
    "b": {"c": np.array([True, False, True]), "d": np.int32(-7)},
    "e": np.linspace(-3, 3, 5).astype(ml_dtypes.bfloat16),
    "f": np.arange(-4, 4, dtype=np.int8),
}


def slow_checksum(x) -> int:
    """One value after the other, in Python's own integers."""
    bits = np.asarray(x).reshape(-1)
    bits = bits.astype(np.uint8) if bits.dtype == bool else bits
    bits = bits.view(f"uint{8 * bits.dtype.itemsize}")
    return sum(int(b) * (2 * i + 1) for i, b in enumerate(bits)) % 2**32


def test_checksums_by_the_formula():
    found = checkpoint.checksums(jax.tree.map(jnp.asarray, MIXED))
    expected = {"a": MIXED["a"], "b/c": MIXED["b"]["c"], "b/d": MIXED["b"]["d"]}
    expected |= {"e": MIXED["e"], "f": MIXED["f"]}
    assert found == {name: slow_checksum(x) for name, x in expected.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.bfloat16])
def test_every_flipped_bit_and_swapped_pair_changes_a_checksum(dtype):
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype) * 9
    right = checkpoint.checksums({"x": jnp.asarray(x)})
    for bit in range(8 * x.nbytes):
        raw = bytearray(x.tobytes())
        raw[bit // 8] ^= 1 << bit % 8
        wrong = np.frombuffer(bytes(raw), dtype).reshape(x.shape)
        assert checkpoint.checksums({"x": jnp.asarray(wrong)}) != right, bit
    swapped = x.copy()
    swapped[0, 0], swapped[2, 1] = x[2, 1], x[0, 0]
    assert checkpoint.checksums({"x": jnp.asarray(swapped)}) != right


def state_of(seed: int):
    params = {"layer": {"kernel": jax.random.normal(jax.random.key(seed), (32, 48))}}
    tx = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    return {"params": params, "buffers": {}, "opt": tx.init(params), "step": jnp.int32(seed)}


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 1 and 2."""
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        kept.save(step, state_of(step), {"tokenizers": {}})
    kept.wait()
    yield kept
    kept.close()


def shapes():
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state_of(0)
    )


def anything(step, meta):
    """No check."""


def data_files(folder):
    """Where Orbax keeps arrays, the largest first."""
    found = [p for p in folder.rglob("*") if p.is_file() and p.parent.name == "d"]
    return sorted(found, key=lambda p: -p.stat().st_size)


def test_the_newest_one_comes_back_equal(saved):
    state, meta = saved.restore_newest(shapes(), anything)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(2)), strict=True):
        assert np.array_equal(a, b)
    assert meta["data_index"] == 2 and "params/layer/kernel" in meta["checksums"]


def test_a_flipped_byte_anywhere_is_found_or_harmless(saved):
    """Wrong values are never returned; what Orbax alone would let pass is among the flips."""
    (path, *_) = data_files(saved.folder / "2")
    whole, silent = path.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(whole), 20):
        raw = bytearray(whole)
        raw[place] ^= 0x10
        path.write_bytes(bytes(raw))
        try:
            state = saved.restore(2, shapes())
        except checkpoint.Damaged as e:
            silent += "is not what was saved" in str(e)
        else:
            assert checkpoint.checksums(state) == checkpoint.checksums(state_of(2))
    path.write_bytes(whole)
    assert silent, "no flip of these reached the checksums"


def cut(folder):
    path = data_files(folder)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(folder):
    path = data_files(folder)[0]
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def gone(folder):
    data_files(folder)[0].unlink()


def without_meta(folder):
    (folder / "meta" / "metadata").write_text('{"format_ver')


@pytest.mark.parametrize("hurt", [cut, flipped, gone, without_meta])
def test_a_damaged_one_is_named_and_the_one_before_it_is_used(saved, hurt, capsys):
    hurt(saved.folder / "2")
    state, meta = saved.restore_newest(shapes(), anything)
    assert int(state["step"]) == 1 and meta["data_index"] == 1
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "damaged" in x]
    assert f"{saved.folder}/2: damaged" in line and "set aside" in line
    assert (saved.folder / "damaged" / "2").is_dir() and saved.latest() == 1
    saved.save(2, state_of(2), {"tokenizers": {}})
    saved.wait()
    assert int(saved.restore_newest(shapes(), anything)[0]["step"]) == 2


def test_all_damaged(saved):
    for step in ("1", "2"):
        cut(saved.folder / step)
    with pytest.raises(UserError, match=r"all checkpoints were damaged \(2, now below damaged/\)"):
        saved.restore_newest(shapes(), anything)


def test_a_part_is_verified_too(saved):
    wanted = {"params": shapes()["params"]}
    assert np.array_equal(
        saved.restore_part(2, wanted)["params"]["layer"]["kernel"],
        state_of(2)["params"]["layer"]["kernel"],
    )
    path = saved.folder / "2" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["checksums"]["params/layer/kernel"] ^= 1
    path.write_text(json.dumps(meta))
    with pytest.raises(checkpoint.Damaged, match="params/layer/kernel is not what was saved"):
        checkpoint.Checkpoints(saved.folder).restore_part(2, wanted)


def test_nothing_is_cast_or_cut_to_fit(saved):
    for change, said in (
        ({"dtype": jnp.bfloat16}, r"kernel: float32\[32, 48\] there, bfloat16\[32, 48\] here"),
        ({"shape": (32, 47)}, r"kernel: float32\[32, 48\] there, float32\[32, 47\] here"),
    ):
        wanted = shapes()
        kernel = wanted["params"]["layer"]["kernel"]
        kept = {"shape": kernel.shape, "dtype": kernel.dtype, "sharding": kernel.sharding}
        wanted["params"]["layer"]["kernel"] = jax.ShapeDtypeStruct(**kept | change)
        for read in (lambda w: saved.restore(2, w), lambda w: saved.restore_newest(w, anything)):
            with pytest.raises(UserError, match=said):
                read(wanted)
    assert saved.latest() == 2, "what does not fit is not damaged"
    wanted = shapes()
    wanted["params"]["more"] = wanted["params"]["layer"]
    with pytest.raises(UserError, match="params/more/kernel: missing there"):
        saved.restore(2, wanted)


def test_checkpoints_without_checksums_are_read(saved):
    path = saved.folder / "2" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["checksums"]
    path.write_text(json.dumps(meta))
    assert int(saved.restore_newest(shapes(), anything)[0]["step"]) == 2


def test_a_folder_that_was_moved(saved, tmp_path):
    shutil.copytree(saved.folder, tmp_path / "elsewhere")
    with_other_name = checkpoint.Checkpoints(tmp_path / "elsewhere")
    assert int(with_other_name.restore_newest(shapes(), anything)[0]["step"]) == 2
    with_other_name.close()
