"""4M's tokenizers: against NumPy by their own names, bit for bit through a file and back, golden sets, and bad files."""

import json
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from mm import artefact, tokenizers
from mm.errors import UserError
from mm.tokenizers import autoencoder
from mm.tokenizers.quantizers import FSQ, Categorical, VectorQuantizer
from mm.tokenizers.vit import PRESETS, Transformer, ViTAutoencoder, cubic_weights
from mm.weights import m4_tokenizers as m4
from mm.weights import parity_tokenizers as parity
from tests.weights import slow_4m
from tests.weights.golden import golden
from tests.weights.kinds_4m import COSINE, KINDS, SIDE, fresh, inputs


def resized(pos_emb, side: int):
    """Positions [1, D, h, w] on another grid, by the matrix of each axis (checked in test_vit)."""
    weights = cubic_weights(pos_emb.shape[-1], side)
    return np.einsum("ih,jw,bdhw->bdij", weights, weights, pos_emb)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_what_numpy_makes_of_its_state_dict(name):
    made = fresh(name)
    x, state = inputs(made.network), m4.state_dict(made)
    if name == "two sizes":  # the reference stays on the grid that is stored
        state["decoder.pos_emb"] = resized(state["decoder.pos_emb"], 3)
    if name.startswith("vector"):
        reference = slow_4m.mlp_vq(state, np.float64(x))
    else:
        exact = x if name == "labels" else np.float64(x)
        reference = slow_4m.vit_vq(state, exact, SIDE.heads, cosine=name != "euclidean")
    found = parity.run(made, x)
    np.testing.assert_array_equal(found["tokens"], reference[2])
    assert len(np.unique(reference[2])) > 2
    for output, wanted in zip(
        ("latent", "quant", "rec"), (*reference[:2], reference[3]), strict=True
    ):
        assert found[output].shape == wanted.shape and np.abs(wanted).max() > 0.1
        loss = 3e-6 * np.abs(wanted).max()  # of float32
        np.testing.assert_allclose(found[output], wanted, atol=loss, err_msg=output)


@pytest.mark.parametrize("name", KINDS)
def test_a_tokenizer_comes_back_bit_for_bit_from_its_file(name, tmp_path):
    made, path = fresh(name), tmp_path / "a.safetensors"
    m4.export_tokenizer(made, path)
    again = m4.import_tokenizer(path)
    assert again[:2] == made[:2] and [*tmp_path.iterdir()] == [path]
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), made[2:], again[2:]
    )
    assert all(jax.tree.leaves(same))
    m4.export_tokenizer(again, tmp_path / "b.safetensors")
    state, twice = load_file(path), load_file(tmp_path / "b.safetensors")
    assert state.keys() == twice.keys() and all(np.array_equal(state[k], twice[k]) for k in state)


def test_a_file_of_4m_comes_back_bit_for_bit(tmp_path):
    stem = golden("vqvae_tiny")
    before = load_file(f"{stem}.safetensors")
    m4.export_tokenizer(m4.import_tokenizer(f"{stem}.safetensors"), tmp_path / "a.safetensors")
    after = load_file(tmp_path / "a.safetensors")
    assert before.keys() == after.keys()
    for name, a in before.items():
        if name.endswith("pos_emb"):  # computed, not stored
            np.testing.assert_allclose(after[name], a, atol=1e-6)
        else:
            np.testing.assert_array_equal(after[name], a, err_msg=name)


def test_the_names_are_those_of_4m():
    names = {name: {*m4.state_dict(fresh(name))} for name in KINDS}
    assert {
        "encoder.pos_emb", "encoder.proj.weight", "encoder.blocks.1.attn.qkv.bias", "encoder.norm_mlp.weight",
        "encoder.post_mlp.fc2.bias", "quant_proj.weight", "quantize._codebook.initted", "quantize._codebook.embed",
        "post_quant_proj.bias", "decoder.out_proj.weight", "decoder.out_conv.1.gamma", "decoder.out_conv.0.dwconv.weight",
    } <= names["everything"]  # fmt: skip
    assert "quantize._codebook.embed_avg" in names["euclidean"] - names["plain"]
    assert {"cls_emb.weight"} <= names["labels"] - names["plain"]
    assert {"quantize.project_in.weight", "quantize.project_out.bias"} <= names["two codebooks"]
    assert {
        "quantize.codes", "quantize.to_k.weight", "encoder.layernorms.1.weight", "encoder.blocks.0.block.2.weight",
        "decoder.linear_out.bias",
    } <= names["vector"]  # fmt: skip
    shapes = {name: a.shape for name, a in m4.state_dict(fresh("labels")).items()}
    assert shapes["decoder.out_proj.weight"] == (6 * 16, 24) and shapes["encoder.proj.weight"] == (
        24,
        3,
        4,
        4,
    )
    assert shapes["decoder.out_conv.0.dwconv.weight"] == (6, 1, 7, 7)


@pytest.fixture
def file(tmp_path) -> Path:
    m4.export_tokenizer(fresh("everything"), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def changed(path: Path, change, **metadata) -> Path:
    """The file with another state dict and, beside it, its config."""
    (path.parent / "a.json").write_text(json.dumps({"config": m4.read(path)[0] | metadata}))
    state = load_file(path)
    change(state)
    save_file(state, path)
    return path


BAD = {
    "missing": (lambda s: s.pop("encoder.blocks.0.mlp.fc1.bias"), ["missing keys: encoder.blocks.0.mlp.fc1.bias"]),
    "missing size": (lambda s: s.pop("quant_proj.weight"), ["missing keys: quant_proj.weight"]),
    "missing block": (
        lambda s: [s.pop(k) for k in [*s] if k.startswith("decoder.blocks.0.")],
        ["decoder.blocks.0.norm1.weight", "unknown keys: decoder.blocks.1."],
    ),
    "unknown": (lambda s: s.update(head=np.ones(2)), ["unknown keys: head"]),
    "shape": (
        lambda s: s.update({"decoder.out_proj.bias": np.zeros(47, np.float32)}),
        ["decoder.out_proj.bias is [47]", "[48]"],
    ),
    "rank": (lambda s: s.update({"quant_proj.weight": np.zeros((5, 24))}), ["quant_proj.weight is [5, 24]", "4 dim"]),
    "positions": (lambda s: s.update({"decoder.pos_emb": s["decoder.pos_emb"] * 1.01}), ["decoder.pos_emb is not the"]),
    "codebook": (lambda s: s.update({"quantize._codebook.initted": np.zeros(1)}), ["initted is not 1"]),
    "diffusion": (
        lambda s: s.update({"decoder.time_embed.0.weight": np.ones((2, 2))}),
        ["decoder.time_embed.0.weight: a diffusion decoder", "no form here yet"],
    ),
    "another model": (lambda s: [s.pop(k) for k in [*s] if "proj." in k], ["no tokenizer of 4M"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_state_dicts_that_do_not_fit_are_one_line(file, name):
    change, says = BAD[name]
    with pytest.raises(UserError) as error:
        m4.import_tokenizer(changed(file, change))
    said = str(error.value)
    assert all(part in said for part in says) and str(file) in said and "\n" not in said


CONFIGS = {
    "heads": ({"vit_encoder": None, "vit": None}, "how many attention heads the encoder"),
    "width": (
        {"vit_decoder": None, "dec_type": "vit_b_dec"},
        "vit_b_dec, of 768 features, its arrays 24",
    ),
    "uneven": ({"vit_encoder": {"num_heads": 5}}, "5 attention heads do not divide 24"),
    "codes": ({"codebook_size": 16}, "codebook_size=16, its arrays 11"),
    "latent": ({"latent_dim": 16}, "latent_dim=16, its arrays 5"),
    "rule": ({"norm_codes": False}, "missing keys: quantize._codebook.embed_avg"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_do_not_fit_are_one_line(file, name):
    fields, says = CONFIGS[name]
    with pytest.raises(UserError) as error:
        m4.import_tokenizer(changed(file, lambda s: None, **fields))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_config_stands_in_metadata_or_beside(file):
    made, state = m4.import_tokenizer(file), load_file(file)
    settings_, vit_ = dict(m4.read(file)[0]), {"num_heads": 3}
    for side in ("encoder", "decoder"):
        settings_.pop(f"vit_{side}")
    forms = {
        "JSON or YAML by name": {k: json.dumps(v) for k, v in settings_.items()} | {"vit": "{num_heads: 3}"},
        "in one": {"config": json.dumps(settings_ | {"vit": vit_})},
        "Python": {k: str(v) for k, v in settings_.items()} | {"vit": str(vit_)},
    }  # fmt: skip
    for form, metadata in forms.items():
        save_file(state, file, metadata)
        assert m4.import_tokenizer(file)[:2] == made[:2], form
    save_file(state, file)
    for name in ("config.json", "a.json"):  # the one of the same name goes first
        vit_["num_heads"] = 3 if name == "a.json" else 2
        beside = file.parent / name
        beside.write_text(json.dumps({"config": settings_, "vit": vit_, "keys": {}}))
        assert m4.import_tokenizer(file).network.encoder.heads == vit_["num_heads"]
    beside.write_text("{")
    with pytest.raises(UserError, match=r"a\.json: not a config"):
        m4.import_tokenizer(file)


def test_the_sizes_of_4m_are_known_by_name():
    assert PRESETS["vit_b"] == Transformer(width=768, depth=12, heads=12)
    network = ViTAutoencoder(encoder=PRESETS["vit_l"], decoder=PRESETS["vit_s"])
    config = m4.config_of(network, VectorQuantizer(codes=16384, width=32, unit=False, drift=True))
    assert (config["enc_type"], config["dec_type"]) == ("vit_l_enc", "vit_s_dec")
    assert config.keys() <= {
        "image_size", "patch_size", "n_channels", "post_mlp", "out_conv", "codebook_size", "latent_dim", "norm_codes",
        "norm_latents", "ema_decay", "enc_type", "dec_type",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "quantizer"),
    [("plain", FSQ(levels=(3, 2))), ("plain", Categorical()), ("vector", COSINE)],
)
def test_what_4m_has_not_is_not_written(name, quantizer, tmp_path):
    made = fresh(name)._replace(quantizer=quantizer)
    with pytest.raises(
        UserError, match=f"4M has no .* with {type(quantizer).__name__}; it has ViTAuto"
    ):
        m4.export_tokenizer(made, tmp_path / "a.safetensors")
    assert not [*tmp_path.iterdir()]


def test_codes_of_our_own_rule_are_read_as_they_were(tmp_path):
    """Kept at unit length, with running sums: what 4M makes of them is the same."""
    made = fresh("plain")
    ours = VectorQuantizer(codes=11, width=5, dead=0.3)
    book = made.buffers["codebook"] / np.linalg.norm(
        made.buffers["codebook"], axis=1, keepdims=True
    )
    buffers = made.buffers | {"codebook": book, "sums": np.ones_like(book)}
    made = made._replace(quantizer=ours, buffers=buffers)
    m4.export_tokenizer(made, tmp_path / "a.safetensors")
    again = m4.import_tokenizer(tmp_path / "a.safetensors")
    assert again.quantizer.unit and again.quantizer.drift
    x = inputs(made.network)
    before, after = parity.run(made, x), parity.run(again, x)
    np.testing.assert_array_equal(after["tokens"], before["tokens"])
    np.testing.assert_array_equal(after["rec"], before["rec"])


def pickled(path: Path, new: bool) -> Path:
    """As torch.save writes, now (a zip) and before 1.6."""
    data = pickle.dumps({"model": {}}, protocol=2)
    if not new:
        path.write_bytes(data)
        return path
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("archive/data.pkl", data)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors", ""])
@pytest.mark.parametrize("new", [True, False])
def test_pickles_are_refused_whatever_they_are_called(suffix, new, tmp_path):
    path = pickled(tmp_path / f"a{suffix}", new)
    with pytest.raises(UserError, match=r"a pickle, .*save_file") as error:
        m4.import_tokenizer(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_header_that_begins_like_a_pickle_is_none(tmp_path):
    """The first byte of a safetensors file is the lowest of its header's length."""
    path = tmp_path / "a.bin"
    for filled in range(3000):
        save_file({"a": np.zeros(1)}, path, {"x": "y" * filled * 8})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    with pytest.raises(UserError, match="no tokenizer of 4M"):
        m4.import_tokenizer(path)


@settings(max_examples=12)
@given(st.binary(max_size=60))
def test_any_bytes_are_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        m4.import_tokenizer(path)
    assert str(path) in str(error.value)


ROWS = {"uint8": (0, 256), "float32": (-1, 1), "int32": (0, 6)}


@pytest.mark.parametrize("name", ["everything", "feature map", "labels", "two codebooks", "vector"])
def test_an_imported_tokenizer_is_one_of_ours(name, tmp_path):
    made = fresh(name)
    m4.export_tokenizer(made, tmp_path / "theirs.safetensors")
    path = tmp_path / "ours.safetensors"
    mark = m4.write_artefact(
        m4.import_tokenizer(tmp_path / "theirs.safetensors"), path, {"licence": "none"}
    )
    tokenizer = tokenizers.load(f"{path}#{mark}", "rgb")
    row = tokenizer.settings.row
    rng, (low, high) = np.random.default_rng(0), ROWS[str(row.dtype)]
    raw = rng.uniform(low, high, (4, *row.shape)).astype(row.dtype)
    ids, length = tokenizer.encode(raw)
    network = tokenizer.settings
    assert ids.shape == (4, network.grid.size) and ids.dtype == np.int32
    assert (length == network.grid.size).all() and tokenizer.modality.layout == network.grid
    assert tokenizer.modality.vocabulary.size == made.quantizer.codes
    x = raw if name in ("vector", "labels") else np.moveaxis(raw, -1, 1)
    x = x / np.float32(127.5) - 1 if row.dtype == np.uint8 else x
    reference = parity.run(made, x)
    np.testing.assert_array_equal(ids, reference["tokens"].reshape(4, -1))
    back = tokenizer.decode(ids)
    assert back.shape == raw.shape and back.dtype == raw.dtype
    rec = reference["rec"] if name == "vector" else np.moveaxis(reference["rec"], 1, -1)
    if row.dtype == np.uint8:
        rec = (rec.clip(-1, 1) + 1) * 127.5
    np.testing.assert_allclose(back, rec.argmax(-1) if name == "labels" else rec, atol=0.6 if row.dtype == np.uint8 else 1e-5)  # fmt: skip
    written = tokenizer.write_file(raw[0], tmp_path / "row")
    if row.dtype != np.uint8:
        np.testing.assert_array_equal(tokenizer.read_file(written), raw[0])
    assert tokenizer.read_file(written).shape == row.shape
    assert artefact.read(path)[0]["card"] == {"licence": "none"}
    assert autoencoder.check_network(network)
    kept = m4.read_artefact(path)
    assert kept[:2] == made[:2]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, kept[2:], made[2:])))


def test_other_tokenizers_are_none_of_4m():
    shipped = Path(__file__).parents[2] / "tokenizers"
    with pytest.raises(UserError, match="4M has no ImageAutoencoder"):
        m4.read_artefact(shipped / "image.safetensors")
    with pytest.raises(UserError, match="holds a 'text'"):
        m4.read_artefact(shipped / "text.safetensors")
