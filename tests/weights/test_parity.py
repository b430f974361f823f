"""`python -m mm.weights parity` against a tiny set of the original's: what it compares, what it cannot, and what names leave open."""

import dataclasses
import re
import zipfile
from pathlib import Path as Local

import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath import Path
from flax import traverse_util

from mm.generate.plan_4m import Step
from mm.weights import m4, m4_modalities, m4_presets, parity
from mm.weights.parity_generated import NAME, Reading, first_in_torch, readings, same_text

SET = Local(__file__).parents[1] / "fixtures" / "golden_4m.zip"
"""Made with apple/ml-4m at cda590f: SwiGLU, norms of q and k, untied heads, registers, inputs and targets that differ, a target
that nothing is asked of, learned positions; the fixed positions of texts are left out."""


@pytest.fixture(scope="module")
def stem(tmp_path_factory):
    folder = Local(tmp_path_factory.mktemp("golden"))
    with zipfile.ZipFile(SET) as z:
        z.extractall(folder)
    return Path(folder / "set")


def test_another_variant_of_the_original_computes_the_same(stem):
    golden = parity.read(stem)
    assert golden.settings.registers == 2 and golden.settings.qk_norm and golden.settings.tables == "three"  # fmt: skip
    assert not golden.space["tok_clip@224"].seen and golden.space["det"].predicted
    found = {name: (error, limit) for name, error, limit in parity.outputs(golden)}
    assert {k for k in golden.arrays if k.startswith(("mid/", "logits/"))} == found.keys()
    for name, (error, limit) in found.items():
        assert error is not None and error <= min(limit, 1e-5), name


@pytest.mark.slow
def test_losses_gradients_and_what_is_generated_are_the_original_s(stem, tmp_path):
    """And what is not understood is named, and does not fail."""
    strange = ("gen/dream", "gen/roar4_cfg1.0", "mid/other")
    for suffix in ("json", "safetensors"):
        (tmp_path / f"set.{suffix}").write_bytes(Local(f"{stem}.{suffix}").read_bytes())
    arrays = dict(np.load(f"{stem}.npz")) | dict.fromkeys(strange, np.zeros((2, 4), np.int64))
    np.savez(tmp_path / "set.npz", **arrays)  # pyright: ignore[reportArgumentType]
    errors = list(parity.check(Path(tmp_path / "set")))
    found = {name: (error, limit) for name, error, limit in errors if error is not None}
    wanted = {k for k in arrays if not k.startswith("in/")} - {*strange}
    assert wanted <= found.keys()
    assert {"gen/maskgit1_cfg2.5", "gen/maskgit4_tok_dinov2_global_cfg3.0"} <= wanted
    assert len([k for k in found if k.startswith("grad_norms/token/")]) > 60
    for name, (error, limit) in found.items():
        assert error <= min(limit, 1e-5 if "bfloat16" not in name else limit), name
    said: list[str] = []
    assert parity.report(iter(errors), said.append)
    unchecked = [line for line in said if line.startswith("unchecked")]
    assert [line.split()[1].rstrip(":") for line in unchecked] == [*strange]


def test_what_is_not_understood_is_named_and_does_not_fail():
    said: list[str] = []
    rows = [("loss/mod", 1e-6, 1e-4), ("gen/dream: why", None, 0.0)]
    assert parity.report(iter(rows), said.append)
    assert said == ["1.0e-06  loss/mod", "unchecked  gen/dream: why", "all within their limits, 1 unchecked"]  # fmt: skip
    assert not parity.report(iter([*rows, ("loss/token", float("nan"), 1.0)]), said.append)
    assert said[-1] == "1 beyond their limits, 1 unchecked"


def test_a_modality_that_the_batch_has_not_does_not_count_in_the_mean(stem):
    space = parity.read(stem).space
    names = space.only("predicted").names
    terms = {f"masked/{n}": (jnp.float32(i * (i + 2)), jnp.float32(i)) for i, n in enumerate(names)}
    means = [0, *range(3, len(names) + 2)]  # nothing is asked of the first
    assert np.isclose(parity.losses(terms, space)["mod"], sum(means) / len(names))
    present = parity.losses(terms, space, absent=names[:2])["mod"]
    assert np.isclose(present, sum(means[2:]) / (len(names) - 2))


def test_what_names_leave_open(stem):
    golden = parity.read(stem)
    of = lambda name, size: [(w.step.target, w.step.steps, w.step.schedule, w.step.guidance, tuple(w.inputs)) for w in readings(golden, NAME.fullmatch(name), np.zeros((2, size), int))]  # pyright: ignore[reportArgumentType] # fmt: skip
    pixels = ("rgb@224",)
    depth = ("tok_depth@224", 1, "cosine", 2.5, pixels)
    assert of("gen/maskgit1_cfg2.5", 4) == [depth, ("tok_clip@224", *depth[1:])]
    assert of("gen/maskgit_tok_depth_cfg2.5", 4) == [depth]
    assert of("gen/maskgit3_tok_depth@224", 4) == [("tok_depth@224", 3, s, 1.0, pixels) for s in ("cosine", "linear")]  # fmt: skip
    assert of("gen/maskgit1", 5) == [] and of("gen/ar_caption", 3) == [], "no room for sentinels"
    assert not NAME.fullmatch("gen/dream") and not NAME.fullmatch("gen/maskgit1_cfgx_y_cfg")


@pytest.mark.parametrize(
    ("size", "count", "kept"),
    [
        (16, 4, [9, 10, 11, 12]), (16, 7, [8, 9, 10, 11, 12, 14, 15]), (16, 1, [10]), (12, 4, [6, 7, 8, 9]), (16, 16, range(16)),
        (196, 3, range(3)), (196, 30, [104, 105, 106, 107, 108, *range(122, 147)]),
    ],
)  # fmt: skip
def test_which_of_equal_numbers_torch_keeps(size, count, kept):
    """torch.topk(torch.ones(size), count), PyTorch 2.13 on a CPU."""
    assert sorted(first_in_torch(size, count)) == [*kept]


def test_texts_that_were_given_less_room(stem):
    """Of a model that says words for ever; the same with one id changed is found."""
    settings = dataclasses.replace(
        m4_presets.model("fm_base_12e_12d_gelu"), width=16, heads=2, encoder_layers=1, decoder_layers=1, embed_layers=1
    )  # fmt: skip
    space = m4_modalities.space(["caption"], overrides={"caption": {"vocab_size": 230, "max_tokens": 9}})  # fmt: skip
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=x.shape).astype(np.float32) for k, x in m4.shapes(settings, space).items()}  # fmt: skip
    params["head"][:210] = 0
    batch = {f"in/caption/{mask}_mask": np.ones((3, 20), bool) for mask in ("input", "target")}
    batch["in/caption/tensor"] = np.zeros((3, 20), np.int32)
    golden = parity.Golden({}, batch, settings, space, traverse_util.unflatten_dict(params, sep="/"))  # fmt: skip
    way = Reading(Step(target="caption", scheme="autoregressive", temperature=0.0), {})
    ids, length = way.made(golden, tokens=6)
    assert length.tolist() == [6, 6, 6] and (ids[:, :6] >= 210).all()
    there = np.ones((3, 6), bool)
    assert same_text(golden, way, ids[:, :6], there)
    there[1, 5] = False
    assert not same_text(golden, way, ids[:, :6], there), "rows of one batch have one room"
    ids[2, 5] += 1
    assert not same_text(golden, way, ids[:, :6], np.ones((3, 6), bool))


@pytest.mark.parametrize("width", [768, 2048])
def test_positions_as_float32_has_them_are_4m_s(width):
    """PyTorch's table of 512 positions is up to 8e-5 from ours, and released files hold it."""
    settings = dataclasses.replace(m4_presets.model("4m-7-b"), width=width)
    space = m4_modalities.space(["caption"], overrides={"caption": {"vocab_size": 210}})
    fixed = m4.implied(settings, space)["encoder_embeddings.caption.pos_emb"]
    assert fixed.value
    half = np.arange(width // 2, dtype=np.float32) / np.float32(width // 2)
    angle = np.arange(512, dtype=np.float32)[:, None] * (1 / np.float32(10_000) ** half)
    off = np.abs(fixed.value()[0] - np.concatenate([np.sin(angle), np.cos(angle)], 1)).max()
    assert 1e-5 < off <= fixed.within < 1e-3
    zeros = m4.implied(settings, space)["encoder.0.norm1.bias"]
    assert zeros.within == 0.0, "a bias that is not zero would be lost"


def test_the_config_of_a_file_is_what_the_original_can_be_made_of(stem):
    """FM(config) takes no other arguments."""
    known = """domains_in domains_out image_size patch_size norm_bias dim encoder_depth decoder_depth num_heads mlp_ratio qkv_bias
        proj_bias mlp_bias drop_path_rate_encoder drop_path_rate_decoder shared_drop_path act_layer gated_mlp qk_norm
        decoder_causal_mask decoder_sep_mask num_register_tokens use_act_checkpoint share_modality_embeddings"""
    golden = parity.read(stem)
    config = m4.config_of(golden.settings, golden.space, 16, 8)
    assert config.keys() <= set(re.split(r"\s+", known))
    assert config["domains_out"] == ["tok_clip@224", "caption", "tok_depth@224", "det", "tok_dinov2_global"]  # fmt: skip
