"""4M's table of modalities, and the token spaces of its models."""

import json

import numpy as np
import pytest

from mm.errors import UserError
from mm.space import Dense, Grid, Sequence, Vector, Vocabulary
from mm.weights.m4_modalities import MODALITIES, PLACES, PRESETS, preset, space
from tests.weights.golden import golden

IDS = {
    "rgb@224": 20716, "rgb": 13010, "caption": 32652, "det": 30982, "tok_rgb@224": 11606,
    "tok_depth@224": 20063, "depth": 17286, "tok_normal@224": 16656, "normal": 25850,
    "tok_semseg@224": 12515, "semseg_coco": 4154, "tok_clip@224": 11422, "CLIP-B16": 10663,
    "t5_caption": 28551, "metadata": 1951, "human_poses": 30584, "color_palette": 12967,
    "sam_mask": 10735, "sam_instance": 1938, "tok_canny_edge@224": 12520, "canny_edge": 10506,
    "tok_sam_edge@224": 7842, "tok_dinov2@224": 26275, "DINOv2-B14": 4874,
    "tok_imagebind@224": 6200, "ImageBind-H14": 2897, "tok_dinov2_global": 29172,
    "DINOv2-B14-global": 2998, "tok_imagebind_global": 12099, "ImageBind-H14-global": 5462,
    "rgb@448": 27924, "tok_rgb@448": 1057, "tok_depth@448": 11499, "tok_normal@448": 32321,
    "tok_semseg@448": 10291, "tok_clip@448": 3585,
}  # fmt: skip
LONGEST = {"human_poses": 263}  # tokens may be 275
TOKENS = {
    "caption": 256, "det": 256, "t5_caption": 77, "metadata": 40, "human_poses": 275,
    "color_palette": 23, "sam_mask": 64, "sam_instance": 290, "tok_dinov2@224": 256,
    "tok_imagebind@224": 256, "tok_dinov2_global": 16, "tok_imagebind_global": 16,
}  # fmt: skip


def test_ids_are_hashes_of_the_names():
    assert {name: row.id for name, row in MODALITIES.items()} == IDS
    assert len(set(IDS.values())) == 36 and list(MODALITIES) == list(IDS)


def test_most_tokens():
    for name, row in MODALITIES.items():
        tiled = {"224": 196, "448": 784}.get(name.partition("@")[2])
        assert row.max_tokens == TOKENS.get(name, tiled), name


TRUNK_KEYS = {768: 12, 1024: 24, 2048: 24}


@pytest.mark.parametrize(
    ("name", "keys", "embeddings", "heads"),
    [("4m-7", (359, 659, 659), (243, 324, 647), None), ("4m-21", (433, 733, 733), (636, 847, 1695), (211, 281, 562))],
)  # fmt: skip
def test_the_released_models_have_as_many_arrays_and_parameters(name, keys, embeddings, heads):
    """Keys of the state dict, and millions of parameters in embeddings and heads, of B, L and XL."""
    made = preset(name)
    ids = made.only("predicted").size
    assert ids == made.only("seen").size
    layouts = [m.layout for m in made.modalities]
    dense = sum(n.shape[1] + n.bias for n in layouts if isinstance(n, Dense))
    vectors = sum(m.size for m in made.modalities if isinstance(m.layout, Vector))
    arrays = sum(7 if m.predicted else 3 + m.layout.bias for m in made.modalities)
    for i, (width, depth) in enumerate(TRUNK_KEYS.items()):
        trunk = (
            depth * (4 + 2 + 3 + 8 + 2 + 3 + 3) + 1 + 4 + 2
        )  # blocks, mask token, norms, context
        assert trunk + arrays == keys[i]
        assert round((3 * ids + dense + 2 * vectors) * width / 1e6) == embeddings[i]
        assert heads is None or round(ids * width / 1e6) == heads[i]


def test_the_layouts_of_4m_21():
    made = preset("4m-21")
    assert len(made.modalities) == 19 and len(PRESETS["4m-21"][1]) == 17
    assert len(preset("4m-7").modalities) == 8
    rgb, t5 = made["rgb@224"], made["t5_caption"]
    assert rgb.layout == Dense(shape=(196, 768), grid=(14, 14)) and not rgb.layout.bias
    assert t5.layout == Dense(shape=(77, 4096), bias=True, places=512)
    assert [m.name for m in made.modalities if not m.predicted] == ["rgb@224", "t5_caption"]
    assert all(m.seen for m in made.modalities)
    assert made["tok_dinov2@224"].layout == Grid(h=16, w=16)
    assert made["tok_rgb@224"].layout == Grid(h=14, w=14)
    assert made["tok_imagebind_global"].layout == Vector(n=16)
    assert {m.name for m in made.modalities if m.order == "left_to_right"} == {
        "caption", "det", "metadata", "human_poses", "color_palette", "sam_instance",
    }  # fmt: skip
    for m in made.modalities:
        if isinstance(m.layout, Sequence):
            assert (
                m.layout
                == Sequence(
                    max_len=TOKENS[m.name],
                    places=PLACES,
                    wraps=min(LONGEST.get(m.name, TOKENS[m.name]), TOKENS[m.name]),
                )
                and m.places == 512
            )
            assert m.vocabulary == Vocabulary(name=m.name, size=30_000, eos=3)
        elif m.vocabulary:
            assert m.vocabulary.eos is None and m.order == "parallel"


def test_texts_have_private_ranges_or_share_one():
    own, shared = preset("4m-21"), preset("4m-21", shared_text=True)
    assert own.size - shared.size == 5 * 30_000
    texts = [m.name for m in own.modalities if isinstance(m.layout, Sequence)]
    assert len({own.offset(n) for n in texts}) == 6 and len({shared.offset(n) for n in texts}) == 1
    assert shared.vocabulary("det") == Vocabulary(name="text", size=30_000, eos=3)
    assert shared["det"].layout == own["det"].layout


def test_inputs_and_targets_as_chosen():
    made = space(["tok_rgb@224", "rgb@448"], ["tok_rgb@448", "tok_rgb@224"])
    roles = {m.name: (m.seen, m.predicted) for m in made.modalities}
    assert roles == {"tok_rgb@224": (True, True), "rgb@448": (True, False), "tok_rgb@448": (False, True)}  # fmt: skip
    assert list(roles) == ["tok_rgb@224", "rgb@448", "tok_rgb@448"]
    assert made["rgb@448"].layout == Dense(shape=(784, 768), grid=(28, 28))
    assert made["tok_rgb@448"].layout == Grid(h=28, w=28)


def test_other_sizes():
    names = ["rgb@224", "tok_clip@224", "tok_rgb@448", "tok_dinov2@224"]
    own = {"tok_dinov2@224": {"max_tokens": 25}, "tok_clip@224": {"patch_size": 8}}
    made = space(names, image_size=64, overrides=own)
    assert [m.layout for m in made.modalities] == [
        Dense(shape=(16, 768), grid=(4, 4)), Grid(h=8, w=8), Grid(h=8, w=8), Grid(h=5, w=5),
    ]  # fmt: skip
    assert space(["rgb@224"], patch_size=32)["rgb@224"].layout == Dense(shape=(49, 3072), grid=(7, 7))  # fmt: skip


TINY = {
    "rgb@224": {"id": 20716, "type": "img", "min_tokens": 0, "max_tokens": 16, "patch_size": 16, "input_alphas": [1.0]},
    "tok_rgb@224": {"id": 11606, "type": "img", "max_tokens": 16, "vocab_size": 128},
    "tok_dinov2_global": {"type": "img", "max_tokens": 16, "vocab_size": 96},
    "human_poses": {"type": "seq", "max_tokens": 24, "vocab_size": 240, "keep": ["random"]},
    "t5_caption": {"type": "seq_emb", "max_tokens": 10},
}  # fmt: skip


def test_a_tiny_model():
    made = space(list(TINY), image_size=64, t5_dim=32, overrides=TINY)
    assert [m.layout for m in made.modalities] == [
        Dense(shape=(16, 768), grid=(4, 4)), Grid(h=4, w=4), Vector(n=16),
        Sequence(max_len=24, places=512, wraps=24), Dense(shape=(10, 32), bias=True, places=512),
    ]  # fmt: skip
    assert made.size == 128 + 96 + 240 and made.vocabulary("human_poses").eos == 3
    assert np.bincount(made.per_place()["modality"]).tolist() == [16, 16, 16, 512, 512]


def test_the_tables_of_a_golden_model():
    """Every embedding of the original model has the rows that its modality's vocabulary and places ask for."""
    facts = json.loads(golden("fm_gelu_bias").with_suffix(".json").read_text())
    names, shapes = list(facts["modalities"]), facts["keys"]
    made = space(names, image_size=facts["image"], t5_dim=facts["t5_dim"], overrides=facts["modalities"])  # fmt: skip
    for m in made.modalities:
        for side, there in (("encoder", m.seen), ("decoder", m.predicted)):
            stem = f"{side}_embeddings.{m.name}"
            assert any(k.startswith(stem) for k in shapes) == there
            if there:
                assert shapes[f"{stem}.pos_emb"][1] == m.places
            if there and m.vocabulary:
                assert shapes[f"{stem}.token_emb.weight"][0] == m.vocabulary.size
        if isinstance(m.layout, Dense):
            linear = "proj" if m.layout.grid else "emb_proj"
            stem = f"encoder_embeddings.{m.name}.{linear}"
            assert shapes[f"{stem}.weight"][1] == m.layout.shape[1]
            assert (f"{stem}.bias" in shapes) == m.layout.bias


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: preset("4m-8"), "'4m-8' is no preset of 4M; did you mean '4m-7'"),
        (lambda: space(["captoin"]), "did you mean 'caption'"),
        (lambda: space(["caption"], overrides={"captoin": {}}), "'captoin' is no modality"),
        (lambda: space(["depth"]), "'depth' can be no input"),
        (lambda: space(["caption"], ["rgb@224"]), "'rgb@224' can be no target"),
        (lambda: space(["caption"], ["t5_caption"]), "'t5_caption' can be no target"),
        (lambda: space(["caption", "caption"]), "share a name"),
        (lambda: space(["tok_rgb@224"], image_size=100), "patches of 16 do not tile 100 pixels"),
        (lambda: space(["tok_dinov2@224"], image_size=64), "patches of 14 do not tile 64 pixels"),
        (lambda: space(["tok_rgb@224"], overrides={"tok_rgb@224": {"max_tokens": 15}}), "15 tokens are no square"),
        (lambda: space(["caption"], overrides={"caption": {"id": 1}}), "caption: id is 1, 4M's is 32652"),
        (lambda: space(["caption"], overrides={"caption": {"type": "img"}}), "type is 'img', 4M's is 'seq'"),
        (lambda: space(["caption", "det"], shared_text=True, overrides={"det": {"vocab_size": 240}}), "given twice"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(make, said):
    with pytest.raises(UserError, match=said) as e:
        make()
    assert "\n" not in str(e.value)
