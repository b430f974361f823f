"""Whatever a form of contrast is given, its value and gradients are finite; settings that cannot work are refused in a line."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.errors import UserError
from mm.models.heads import Gate
from mm.models.layers import unit
from mm.models.towers import Dense
from mm.objectives.contrastive import forms, forms_with_needs, geometry, nway, pair
from mm.objectives.contrastive.views import Views
from mm.tasks.towers import Towers

ROWS, WIDTH, TOKENS = 5, 8, 3
REDUCTIONS = {
    "softmax": pair.softmax, "reverse_kl": pair.reverse_kl(), "sigmoid": pair.sigmoid, "hinge": pair.hinge(),
    "hardest": pair.hinge(hardest=True), "decoupled": pair.decoupled, "apart": pair.apart,
    "debiased": pair.debiased(0.1, 0.5),
}  # fmt: skip


def given_target(views):
    """float[B, B]: any, rows and columns without a positive too."""
    return views.columns["target"]


def nudged(key, rows):
    return rows + 0.1 * jax.random.normal(key, rows.shape)


FORMS = {
    **{f"all pairs, {n}": (2, forms.AllPairs(target=given_target, reduction=r)) for n, r in REDUCTIONS.items()},
    "pairs": (3, forms.Pairs(of=((0, 1), (2, 1)), target=given_target)),
    **{f"late, {pool}": (2, forms_with_needs.Late(target=given_target, pool=pool)) for pool in ("max", "softmax")},
    "1-to-k": (3, forms.OneToK()), "symile": (3, forms.Symile()), "symile, every": (2, forms.Symile(every=True)),
    "gram": (4, forms.Gram(target=given_target)), "gram, hard": (2, forms.Gram(target=given_target, smoothing=0.0)),
    "triangle": (3, forms.Triangle(target=given_target)),
    "mv_infonce": (3, forms.MultiView()), "mv_dhel": (3, forms.MultiView(loss=nway.mv_dhel)),
    "alignment": (3, forms.OfPairs(term=geometry.alignment)), "cross": (3, forms.OfPairs(term=geometry.cross_uniformity)),
    "uniformity": (3, forms.OfEach(term=geometry.uniformity)),
    "conditioned": (3, forms_with_needs.Conditioned(target=given_target)), "weighted": (2, forms.Weighted()),
    "augmented": (2, forms_with_needs.Augmented(form=forms.AllPairs(target=given_target), by={"m0": nudged, "m1": None})),
}  # fmt: skip


@functools.cache
def compiled(name):
    """(raw float[M, B, N, E], there, scale, target) -> ((sum, count), gradients of raw and scale), and modalities."""
    number, form = FORMS[name]

    def loss(raw, there, scale, target):
        dtype = raw.dtype
        tokens = tuple((x.astype(dtype), jnp.ones(x.shape[:2], bool) & t[:, None]) for x, t in zip(raw, there, strict=True))  # fmt: skip
        z = unit(raw.sum(2)).astype(dtype)
        columns = {"target": target} | {f"m{i}": x for i, x in enumerate(raw)}
        embed = lambda _, rows: unit(rows.sum(1)).astype(dtype)
        views = Views(z, there, jnp.arange(ROWS), scale, columns, tokens, embed)
        return form(views, jax.random.key(0))

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 2), has_aux=True)), number


@st.composite
def worlds(draw):
    """Seed, who is there, scale, targets with empty rows, what is collapsed and its dtype."""
    absent = draw(st.sampled_from(["nobody", "a modality", "all but one", "all", "some"]))
    return {
        "seed": draw(st.integers(0, 99)),
        "absent": absent,
        "which": draw(st.integers(0, 3)),
        "scale": draw(st.sampled_from([1e-6, 1.0, 14.3, 100.0, 1e4])),
        "empty": draw(st.sampled_from(["none", "row", "column", "all"])),
        "collapsed": draw(st.sampled_from(["no", "rows", "modalities", "both"])),
    }


def made(world, number):
    rng = np.random.default_rng(world["seed"])
    raw = rng.normal(size=(number, ROWS, TOKENS, WIDTH))
    if world["collapsed"] in ("rows", "both"):
        raw[:] = raw[:, :1]
    if world["collapsed"] in ("modalities", "both"):
        raw[:] = raw[:1]
    there = {
        "nobody": np.ones((number, ROWS), bool), "all": np.zeros((number, ROWS), bool),
        "a modality": np.broadcast_to((np.arange(number) != world["which"] % number)[:, None], (number, ROWS)),
        "all but one": np.broadcast_to((np.arange(number) == world["which"] % number)[:, None], (number, ROWS)),
        "some": rng.random((number, ROWS)) < 0.5,
    }[world["absent"]]  # fmt: skip
    target = np.eye(ROWS) + (rng.random((ROWS, ROWS)) < 0.2)
    target[{"none": [], "row": [1], "column": [], "all": [*range(ROWS)]}[world["empty"]]] = 0
    target[:, [2] if world["empty"] == "column" else []] = 0
    raw = np.where(there[..., None, None], raw, 0)  # what is absent is zeros, see `make_raw`
    return raw, there, np.float32(world["scale"]), target.astype(np.float32)


LOW = ("gram", "triangle", "all pairs, softmax", "mv_dhel")  # asked in bfloat16 too


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, jnp.float32) for n in FORMS] + [(n, jnp.bfloat16) for n in LOW]
)
@settings(max_examples=12)
@given(world=worlds())
def test_value_and_gradients_are_finite_and_nothing_comes_of_what_is_absent(name, dtype, world):
    run, number = compiled(name)
    raw, there, scale, target = made(world, number)
    (total, count), (to_raw, to_scale) = run(jnp.asarray(raw, dtype), there, scale, target)
    to_raw = np.float32(to_raw)
    assert np.isfinite([total, count, to_scale]).all() and np.isfinite(to_raw).all(), (total, count)
    assert count >= 0 and (count > 0 or total == 0)
    assert (to_raw[~there] == 0).all(), "what is absent gets no gradient"
    if world["absent"] == "all":
        assert total == 0


@pytest.mark.parametrize("name", [n for n, (_, f) in FORMS.items() if getattr(f, "target", None) is given_target])  # fmt: skip
def test_a_row_without_a_positive_is_no_row(name):
    """The value is that of the same batch in which nobody has one, less the others': none of it is NaN, and all of none is 0."""
    run, number = compiled(name)
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(number, ROWS, TOKENS, WIDTH)).astype(np.float32)
    there, scale = np.ones((number, ROWS), bool), np.float32(5.0)
    with_all, without = (run(raw, there, scale, t)[0] for t in (np.eye(ROWS, dtype=np.float32), np.zeros((ROWS, ROWS), np.float32)))  # fmt: skip
    one_less = run(raw, there, scale, np.diag([0.0, 1, 1, 1, 1]).astype(np.float32))[0]
    if "sigmoid" in name:  # every entry is a question of its own
        assert with_all[1] == without[1] == one_less[1]
        return
    assert tuple(map(float, without)) == (0, 0)
    if name != "pairs":  # which counts pairs of modalities
        np.testing.assert_allclose(one_less[1] / with_all[1], (ROWS - 1) / ROWS, rtol=1e-6)


def towers(number=3, form=None, **settings):
    encoders = {f"m{i}": Dense() for i in range(number)}
    objectives = {} if form is None else {"main": (1.0, form)}
    return Towers(encoders=encoders, objectives=objectives, **settings)


REFUSED = {
    "temperature 0": (lambda: towers(scale=float("inf")), "scale=inf"),
    "no temperature": (lambda: towers(scale=float("nan")), "scale=nan"),
    "temperature infinite": (lambda: towers(scale=0.0), "scale=0.0"),
    "most infinite": (lambda: towers(most=float("inf")), "most=inf"),
    "scale above most": (lambda: towers(scale=200.0), "where it would stay"),
    "one modality": (lambda: towers(1, forms.Gram()), "at least two modalities"),
    "temperature 0 of the pool": (lambda: towers(3, forms_with_needs.Conditioned(temperature=0.0)), "temperature=0.0"),
    "a pair of nobody": (lambda: towers(2, forms.Pairs(of=((0, 2),))), "modalities are 0 .. 1"),
    "three in a pair": (lambda: towers(3, forms_with_needs.Late()), "of 2 modalities, there are 3"),
    "three in a weighted pair": (lambda: towers(3, forms.Weighted()), "of 2 modalities, there are 3"),
    "a triangle of two": (lambda: towers(2, forms.Triangle()), "of 3 modalities, there are 2"),
    "no such anchor": (lambda: towers(3, forms.Gram(anchor=3)), "anchor=3"),
    "no such corner": (lambda: towers(3, forms.Triangle(anchor=-1)), "anchor=-1"),
    "smoothing above 1": (lambda: towers(3, forms.Gram(smoothing=1.5)), "smoothing=1.5"),
    "no head": (lambda: towers(3, forms_with_needs.GatedSymile()), "needs head"),
    "no teacher": (lambda: towers(3, forms_with_needs.Predicted()), "needs teacher"),
    "other modalities": (lambda: towers(2, forms_with_needs.Augmented(form=forms.AllPairs(), by={"m0": None})), "by=.'m0'"),
    "within": (lambda: towers(2, forms_with_needs.Augmented(form=forms.Triangle(), by={"m0": None, "m1": None})), "of 3 mod"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(case):
    build, said = REFUSED[case]
    with pytest.raises(UserError, match=said) as refused:
        build().validate()
    assert "\n" not in str(refused.value) and str(refused.value).startswith("config.task.")


def test_reductions_that_cannot_work_are_refused():
    for build in (lambda: pair.reverse_kl(0.0), lambda: pair.debiased(1.0), lambda: pair.debiased(temperature=0.0)):  # fmt: skip
        with pytest.raises(UserError):
            build()


def test_what_can_work_is_taken():
    for number, form in FORMS.values():
        towers(number, form).validate()
    towers(3, forms_with_needs.GatedSymile(), head=Gate()).validate()
    towers(3, forms_with_needs.Predicted(), teacher=0.9).validate()


def test_terms_of_geometry_are_means_over_what_is_there():
    rng = np.random.default_rng(0)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 7, 4)))
    x, y = jnp.float32(x), jnp.float32(y)
    there = np.array([True, False, True, True, False, True, True])
    kernel = lambda a, b: np.log(np.mean([np.exp(-2 * ((a[i] - b[j]) ** 2).sum()) for i, j in itertools.permutations(np.flatnonzero(there), 2)]))  # fmt: skip
    found = jax.jit(lambda: (geometry.uniformity(x, there), geometry.cross_uniformity(x, y, there), geometry.alignment(x, y, there)))()  # fmt: skip
    expected = kernel(x, x), kernel(x, y), ((x - y) ** 2).sum(1)[there].mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
