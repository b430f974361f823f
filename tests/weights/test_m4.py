"""4M's weights: names, counts, parity with the original, there and back to the bit, and every way in which a file can be wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath import Path
from safetensors.numpy import load_file, save_file

import mm
from benchmarks import import_memory
from mm import config, workdir
from mm.errors import UserError
from mm.models.encoder_decoder import EncoderDecoder
from mm.weights import imported, m4, m4_modalities, m4_presets, parity
from mm.weights.__main__ import main
from mm.weights.m4_files import File
from tests.weights.golden import golden

HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
NAMES = ["rgb@224", "caption", "tok_depth@224", "tok_dinov2_global", "t5_caption"]
SMALL = {
    "caption": {"vocab_size": 210},
    "tok_depth@224": {"vocab_size": 50},
    "tok_dinov2_global": {"vocab_size": 40},
}
SIZES = {"image_size": 64, "t5_dim": 6, "overrides": SMALL}


def tiny(kind, **changed):
    """A network of 4M's kind, small, and its space."""
    settings = m4_presets.model(f"fm_base_12e_12d_{kind}")
    for field, value in {"width": 16, "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "embed_layers": 2, **changed}.items():  # fmt: skip
        setattr(settings, field, value)
    return settings, m4_modalities.space(NAMES, **SIZES)


def random_file(path, settings, space, seed=0):
    """Writes random weights, biases and scales too, under 4M's names; returns our parameters."""
    rng = np.random.default_rng(seed)
    flat = {k: jnp.asarray(rng.normal(size=x.shape), jnp.float32) for k, x in m4.shapes(settings, space).items()}  # fmt: skip
    m4.write(
        path,
        dict(flat),
        settings,
        space,
        m4.config_of(settings, space, 64, 16),
    )
    return flat


@pytest.fixture(scope="module", params=["gelu", "swiglu_nobias", "swiglu_qknorm_nobias"])
def made(request, tmp_path_factory):
    settings, space = tiny(
        request.param, tables="two" if request.param == "gelu" else "three", registers=2
    )
    path = Path(tmp_path_factory.mktemp("m4")) / "model.safetensors"
    return path, settings, space, random_file(path, settings, space)


@pytest.mark.parametrize(
    ("name", "millions", "keys"),
    [("4m-7-b", 441, 359), ("4m-7-l", 1029, 659), ("4m-7-xl", 3470, 659), ("4m-21-b", 834, 433), ("4m-21-l", 1553, 733), ("4m-21-xl", 4518, 733)],
)  # fmt: skip
def test_released_models_have_the_original_parameters_and_tensors(name, millions, keys):
    settings, space = m4_presets.model(name), m4_modalities.preset(name.rpartition("-")[0])
    shapes = m4.shapes(settings, space)
    table = m4.pieces(settings, space)
    count = sum(int(np.prod(x.shape)) for x in shapes.values())
    assert round(count / 1e6) == millions
    assert count == sum(
        int(np.prod(p.shape(shapes[path].shape))) for path, some in table.items() for p in some
    )
    assert sum(map(len, table.values())) + len(m4.implied(settings, space)) == keys
    shared = m4_modalities.preset(name.rpartition("-")[0], shared_text=True)
    less = sum(int(np.prod(x.shape)) for x in m4.shapes(settings, shared).values())
    texts = sum(m.order == "left_to_right" for m in space.modalities)
    assert count - less == 3 * (texts - 1) * 30_000 * settings.width, (
        "one vocabulary in each of three tables"
    )


@pytest.mark.parametrize("name", m4_presets.REGISTRY)
def test_every_size_of_the_registry_is_a_preset(name):
    settings, space = m4_presets.model(name), m4_modalities.preset("4m-7")
    shapes = m4.shapes(settings, space)
    hidden = shapes["encoder/mlp/up/kernel"].shape[-1]
    width = settings.width
    assert width // settings.heads == 64
    assert hidden == (4 * width if name.endswith("_gelu") else int(2 * (4 * width) / 3))
    assert ("encoder/attn/qkv/bias" in shapes) == name.endswith("_gelu")
    assert ("decoder/cross/q_norm/scale" in shapes) == ("qknorm" in name)
    assert m4.pieces(settings, space)


def test_names_are_those_of_the_original():
    """Of the golden model, whose file was written by the original code."""
    stem = Path(golden("fm_gelu_bias"))
    set_ = parity.read(stem)
    facts = json.loads(stem.with_name("fm_gelu_bias.json").read_text())
    theirs = {k: tuple(v) for k, v in facts["keys"].items()}
    shapes = m4.shapes(set_.settings, set_.space)
    ours = {p.key: p.shape(shapes[path].shape) for path, some in m4.pieces(set_.settings, set_.space).items() for p in some}  # fmt: skip
    again = {k: i.shape for k, i in m4.implied(set_.settings, set_.space).items()}
    assert ours | again == theirs and not ours.keys() & again.keys()


def test_the_original_computes_the_same():
    errors = {
        name: (error, limit) for name, error, limit in parity.check(Path(golden("fm_gelu_bias")))
    }
    assert len([n for n in errors if n.startswith("grad_norms/")]) > 150
    assert {"gen/maskgit1_cfg1.0", "gen/maskgit1_cfg2.5", "gen/ar_caption"} <= errors.keys()
    for name, (error, limit) in errors.items():
        assert error <= min(limit, 1e-5 if "bfloat16" not in name else limit), name


def test_a_wrong_weight_is_found():
    """The comparison can fail: one element of one kernel changed by 1e-2."""
    stem = Path(golden("fm_gelu_bias"))
    set_ = parity.read(stem)
    kernel = set_.params["decoder"]["mlp"]["up"]["kernel"]
    set_.params["decoder"]["mlp"]["up"]["kernel"] = kernel.at[0, 0, 0].add(1e-2)
    model = jax.jit(lambda p: parity.forward(set_, set_.model(p)))
    found = model(set_.params)
    worst = max(error for _, error, _ in parity.states(set_, found))
    assert worst > parity.LIMIT


def test_there_and_back_to_the_bit(made, tmp_path):
    path, settings, space, flat = made
    file = File(path)
    read = m4.model_of(file)
    assert read == settings
    params = m4.read(file, read, space, lambda *_: HERE)
    again = tmp_path / "again.safetensors"
    assert m4.write(Path(again), params, read, space, m4.config_of(read, space, 64, 16)) == len(
        file.shapes
    )
    assert again.read_bytes() == path.read_bytes()
    ours = m4.shapes(read, space)
    for name, x in flat.items():
        node = params
        for part in name.split("/"):
            node = node[part]
        assert np.array_equal(node, x) and node.shape == ours[name].shape


def test_every_shard_reads_only_its_own(made):
    """Filled piece by piece for any index, the array is the whole one's part."""
    path, settings, space, flat = made
    file, table = File(path), m4.pieces(settings, space)
    rng = np.random.default_rng(0)
    for name, some in table.items():
        shape = flat[name].shape
        index = tuple(slice(a, b + 1) for a, b in (sorted(rng.integers(0, n, 2)) for n in shape))
        assert np.array_equal(m4.filled(file, some, shape, index), np.asarray(flat[name])[index]), (
            name
        )


def test_what_a_file_leaves_out_because_it_says_it_twice(tmp_path):
    """Files of the hub keep only one name of tensors that are one: whichever it is, the model is the same."""
    settings, space = tiny("gelu", tables="two")
    path = Path(tmp_path) / "model.safetensors"
    random_file(path, settings, space)
    arrays, meta = load_file(path), {"share_embedding": "true", "num_heads": "2"}
    whole = m4.read(File(path), settings, space, lambda *_: HERE)
    for key in [k for k in arrays if "token_emb" in k and k.startswith("decoder")] + ["encoder_embeddings.caption.mod_emb"]:  # fmt: skip
        del arrays[key]
    for key in [k for k in arrays if k.endswith("pos_emb") and "dinov2" not in k]:
        del arrays[key]
    save_file(arrays, tmp_path / "less.safetensors", metadata=meta)
    less = File(Path(tmp_path) / "less.safetensors")
    assert m4.model_of(less) == settings
    jax.tree.map(
        np.testing.assert_array_equal, whole, m4.read(less, settings, space, lambda *_: HERE)
    )


def changed(arrays):
    """Ways in which the tensors of a file can be wrong, and what the message must name."""
    drop = {k: x for k, x in arrays.items() if k != "encoder.1.attn.proj.weight"}
    yield drop, ("missing: encoder.1.attn.proj.weight",)
    yield arrays | {"decoder.0.gate": np.zeros(3, np.float32)}, ("unknown: decoder.0.gate",)
    cut = arrays["encoder.0.attn.proj.weight"][:8]
    yield arrays | {"encoder.0.attn.proj.weight": np.ascontiguousarray(cut)}, ("encoder.0.attn.proj.weight", "[8, 16]", "[16, 16]")  # fmt: skip
    moved = arrays["encoder_embeddings.caption.pos_emb"] + 0.1
    yield (
        arrays | {"encoder_embeddings.caption.pos_emb": moved},
        ("encoder_embeddings.caption.pos_emb", "fixes"),
    )
    other = arrays["decoder_embeddings.caption.mod_emb"] + 1
    yield (
        arrays | {"decoder_embeddings.caption.mod_emb": other},
        ("decoder_embeddings.caption.mod_emb is not",),
    )


@pytest.mark.parametrize("which", range(5))
def test_a_wrong_file_is_refused_by_name_and_nothing_is_written(which, tmp_path):
    settings, space = tiny("swiglu_nobias")
    path, out = Path(tmp_path) / "model.safetensors", Path(tmp_path) / "run"
    random_file(path, settings, space)
    arrays, said = list(changed(load_file(path)))[which]
    save_file(arrays, path, metadata={"num_heads": "2", "image_size": "64"})
    with pytest.raises(UserError) as e:
        imported.write(path, out)
    assert all(s in str(e.value) for s in said), e.value
    assert not out.exists() and not list(tmp_path.glob("*partial*"))


def test_a_pickle_a_cut_file_and_a_file_of_something_else(tmp_path):
    settings, space = tiny("gelu", tables="two")
    path = Path(tmp_path) / "model.safetensors"
    random_file(path, settings, space)
    for name, content, said in (
        ("model.pth", b"PK\x03\x04" + bytes(50), "pickle"),
        ("model.bin", b"\x80\x04\x95" + bytes(50), "pickle"),
        ("cut.safetensors", path.read_bytes()[:-100], "safetensors"),
        ("empty.safetensors", b"", "is empty"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=said):
            File(Path(tmp_path) / name)
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="no 4M model"):
        m4.model_of(File(Path(tmp_path) / "other.safetensors"))
    with pytest.raises(UserError, match="no such file"):
        imported.fetched(str(tmp_path / "nothing.safetensors"))
    with pytest.raises(UserError, match=r"fm_base_12e_12d_silu.*did you mean"):
        m4_presets.model("fm_base_12e_12d_silu")


def test_a_run_of_it_is_loaded_used_and_exported(made, tmp_path, capsys):
    """The commands: import, `mm.load` with features, export; and what has no form of 4M's is refused."""
    path, settings, space, _ = made
    run, out = tmp_path / "run", tmp_path / "out" / "model.safetensors"
    assert main(["import", str(path), "--out", str(run)]) == 0
    with pytest.raises(UserError, match="exists already"):
        main(["import", str(path), "--out", str(run)])
    model = mm.load(run)
    assert model.task.space.names == space.names and model.task.settings.model == settings
    ids = np.random.default_rng(0).integers(0, 50, (3, 16)).astype(np.int32)
    given = {"tok_depth@224": (ids, np.full(3, 16))}
    features = model.task.features(model.params, given, 2, chunk=4)
    assert features.shape == (3, 16) and np.isfinite(features).all()
    np.testing.assert_array_equal(model.features(2, **{"tok_depth@224": ids}), features)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    seen = model.features(1, **{"rgb@224": pictures})
    assert seen.shape == (2, 16) and np.abs(seen[0] - seen[1]).max() > 1e-3
    with pytest.raises(UserError, match="has no embeddings"):
        model.task.embed(model.params, given)
    assert main(["export", str(run), "--form", "4m", "--out", str(out)]) == 0
    a, b = load_file(path), load_file(out)
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
    assert File(Path(out)).config["domains_in"] == list(space.names)
    exp = workdir.experiment(Path(run))
    assert config.to_json(exp.task.model)["tables"] == settings.tables


def test_a_model_that_4m_has_no_form_for(made):
    _, settings, space, _ = made
    with pytest.raises(UserError, match="unimodal") as e:
        m4.pieces(settings.__class__(width=16, heads=2), space)
    for part in ("fused", "logit_scale", "tables=one", "token_scale", "positions=sincos"):
        assert part in str(e.value)


def test_queries_are_told_and_padding_is_as_in_4m(made):
    """A text's queries read the token before theirs: changing it changes the answer, changing a later one does not."""
    path, settings, space, flat = made
    from flax import nnx

    from mm.objectives.packing_4m import Buffer, packed

    params = m4.read(File(path), settings, space, lambda *_: HERE)
    graph = nnx.graphdef(nnx.eval_shape(lambda: EncoderDecoder(settings, space, rngs=nnx.Rngs(0))))

    @jax.jit
    def answers(ids):
        asked = jnp.zeros((1, 20), bool).at[:, 2:8].set(True)
        buffers = {"caption": Buffer(ids, jnp.zeros((1, 20), bool).at[:, :2].set(True), asked)}
        visible, queries = packed(buffers, space, 4, 6)
        model = nnx.merge(graph, params)
        return model.logits(
            model.decode(queries, model.encode(visible), visible), "caption"
        ), queries.mask

    ids = jnp.arange(20)[None] + 5
    first, mask = answers(ids)
    assert mask.sum() == 5
    second, _ = answers(ids.at[0, 5].add(1))
    same = np.abs(np.asarray(first - second)).max(-1)[0]
    assert (same[:3] < 1e-5).all() and (same[3:5] > 1e-5).all()


@pytest.mark.slow
def test_importing_a_model_takes_little_more_memory_than_its_file(tmp_path):
    """4M-7 B, 1.8 GB: room for its parameters, for the largest array once more, and for the process itself."""
    file = tmp_path / "model.safetensors"
    size = import_memory.written("4m-7-b", file)
    assert import_memory.imported(file, tmp_path / "run")["own"] <= 1.3 * size
