"""Does a model compute what 4M computes? `python -m mm.weights parity STEM` asks a golden set made with the original code.

A set is STEM.safetensors (weights), STEM.npz (inputs, what the original made of them) and STEM.json (sizes, gradient norms).
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from etils.epath import Path
from flax import nnx, traverse_util

from mm.errors import UserError
from mm.generate.plan_4m import Step
from mm.generate.sampling_4m import generate
from mm.models.encoder_decoder import EncoderDecoder, Model
from mm.objectives.masked import masked_terms
from mm.objectives.packing_4m import Buffer, packed
from mm.space import Dense, Modality, TokenSpace, View
from mm.tasks import Terms, weighted
from mm.tasks.joint import ALL, Joint, by_vocabulary, masked_weights
from mm.weights import m4, m4_modalities, parity_tokenizers
from mm.weights.m4_files import File

LIMIT, LIMIT_BFLOAT16 = 1e-4, 2e-2
"""Largest absolute errors, in float32 and of logits in bfloat16."""

Errors = Iterator[tuple[str, float | None, float]]
"""What was compared, its largest absolute error (None: it is not checked), and the limit."""


@dataclasses.dataclass(eq=False)
class Golden:
    """An opened golden set of a model; a `sampling_4m.Trunk`.

    Attributes:
      facts: STEM.json. arrays: STEM.npz.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    settings: Model
    space: TokenSpace
    params: Any

    def model(self, params: Any, dtype: str = "float32") -> EncoderDecoder:
        """The module with parameters."""
        settings = dataclasses.replace(self.settings, dtype=dtype)
        make = lambda: EncoderDecoder(settings, self.space, rngs=nnx.Rngs(0))
        return nnx.merge(nnx.graphdef(nnx.eval_shape(make)), params)

    def buffers(self) -> dict[str, Buffer]:
        """The inputs as 4M's buffers."""
        parts = ("tensor", "input_mask", "target_mask")
        arrays = lambda m: {part: self.arrays[f"in/{m.name}/{part}"] for part in parts}
        return {m.name: buffer_of(m, arrays(m)) for m in self.space.modalities}

    def views(self) -> tuple[View, View]:
        """The encoder's and the decoder's."""
        return packed(self.buffers(), self.space, self.facts["n_in"], self.facts["n_out"])


def buffer_of(m: Modality, arrays: Mapping[str, np.ndarray]) -> Buffer:
    """4M's `tensor`, `input_mask` and `target_mask` (True = not used) of one modality, pictures [B, C, H, W] as patches."""
    values = arrays["tensor"]
    if not isinstance(m.layout, Dense):
        values = values.reshape(len(values), -1).astype(np.int32)
    elif m.layout.grid:
        h, w = m.layout.grid
        values = rearrange(values, "b c (h p) (w q) -> b (h w) (p q c)", h=h, w=w)
    masks = (jnp.asarray(~arrays[part]) for part in ("input_mask", "target_mask"))
    return Buffer(jnp.asarray(values), *masks)


def read(stem: Path) -> Golden:
    """Raises UserError: a file of the set is missing, or does not fit the others."""
    files = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in ("safetensors", "npz", "json")}  # fmt: skip
    for path in files.values():
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; a golden set is STEM.safetensors, .npz and .json"
            )
    try:
        facts = json.loads(files["json"].read_text())
    except ValueError as e:
        raise UserError(f"{stem}: a golden set that cannot be read ({e}); make it again") from e
    arrays = parity_tokenizers.arrays_of(files["npz"])
    file = File(files["safetensors"])
    space = m4_modalities.space(
        list(facts["modalities"]), image_size=facts["image"], patch_size=facts["patch"],
        t5_dim=facts.get("t5_dim", 4096), overrides=facts["modalities"],
    )  # fmt: skip
    settings = m4.model_of(file)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return Golden(facts, arrays, settings, space, m4.read(file, settings, space, lambda *_: here))


def check(stem: Path) -> Errors:
    """Everything in a golden set of a model or a tokenizer, in turn. Raises UserError: see `read`."""
    if "mask_token" not in File(stem.with_name(f"{stem.name}.safetensors")):
        yield from ((name, error, LIMIT) for name, error in parity_tokenizers.check(stem).items())
        return
    golden = read(stem)
    found = jax.jit(lambda p: forward(golden, golden.model(p)))(golden.params)
    yield from _views(golden, found)
    yield from states(golden, found)
    low = jax.jit(lambda p: forward(golden, golden.model(p, "bfloat16"))["logits"])(golden.params)
    yield from _logits(golden, found["logits"], found["asked"], "", LIMIT)
    yield from _logits(golden, low, found["asked"], " in bfloat16", LIMIT_BFLOAT16)
    for kind in ("mod", "token"):
        yield from _loss(golden, kind)
    yield from _generated(golden)


def forward(golden: Golden, model: EncoderDecoder) -> dict[str, Any]:
    """All that a golden set has of one forward pass."""
    visible, queries = golden.views()
    encoded = model.encode(visible)
    states = model.decode(queries, encoded, visible)
    names = [m.name for m in golden.space.modalities if m.predicted]
    of = jnp.asarray(golden.space.per_place()["offset"])
    return {
        "visible": visible, "queries": queries, "seen": visible.mask, "asked": queries.mask,
        "enc_tokens": model.read(visible), "enc_emb": model.places(visible.place),
        "dec_tokens": jnp.broadcast_to(model.told_of(queries), states.shape), "dec_emb": model.places(queries.place, "predicted"),
        "target_ids": queries.ids - of[queries.place], "enc_out": model.without_registers(encoded), "dec_out": states,
        "logits": {n: model.logits(states, n) for n in names},
    }  # fmt: skip


def _largest(ours: Any, theirs: np.ndarray, there: Any) -> float:
    """The largest error where a token is there; padding is nobody's prediction."""
    ours, there = np.asarray(ours, np.float64), np.asarray(there)
    there = there.reshape(*there.shape, *[1] * (ours.ndim - there.ndim))
    return float(np.abs(np.where(there, ours - theirs, 0)).max())


def _views(golden: Golden, found: Mapping[str, Any]) -> Errors:
    """Which tokens stand where."""
    ids = np.array([m4_modalities.MODALITIES[n].id for n in golden.space.names])
    of = golden.space.per_place()["modality"]
    for side, view, mask in (("enc", "visible", "seen"), ("dec", "queries", "asked")):
        pad = golden.arrays[f"mid/{side}_pad"][:, 0]
        yield f"mid/{side}_pad", float((pad == np.asarray(found[mask])).sum()), 0.0
        ours = ids[of[np.asarray(found[view].place)]]
        yield f"mid/{side}_mod", _largest(ours, golden.arrays[f"mid/{side}_mod"], found[mask]), 0.0
    yield "mid/target_ids", _largest(found["target_ids"], golden.arrays["mid/target_ids"], found["asked"]), 0.0  # fmt: skip
    yield "mid/dec_blocked", _blocked(golden, found), 0.0


def _blocked(golden: Golden, found: Mapping[str, Any]) -> float:
    """How many pairs of queries see each other in only one of the two models."""
    of = golden.space.per_place()["modality"][np.asarray(found["queries"].place)]
    asked = np.asarray(found["asked"])
    text = np.array([m.order == "left_to_right" for m in golden.space.modalities])[of]
    place = np.arange(of.shape[1])
    sees = of[:, :, None] == of[:, None]
    sees &= (place[:, None] >= place) | ~text[:, :, None]
    both = asked[:, :, None] & asked[:, None]
    return float((both & (sees == golden.arrays["mid/dec_blocked"])).sum())


def states(golden: Golden, found: Mapping[str, Any]) -> Errors:
    for side, mask in (("enc", "seen"), ("dec", "asked")):
        for name in (f"{side}_tokens", f"{side}_emb", f"{side}_out"):
            yield f"mid/{name}", _largest(found[name], golden.arrays[f"mid/{name}"], found[mask]), LIMIT  # fmt: skip


def _logits(golden: Golden, logits: Mapping[str, Any], asked: Any, said: str, limit: float) -> Errors:  # fmt: skip
    for name, ours in logits.items():
        if f"logits/{name}" in golden.arrays:
            yield f"logits/{name}{said}", _largest(ours, golden.arrays[f"logits/{name}"], asked), limit  # fmt: skip


def losses(terms: Terms, space: TokenSpace) -> dict[str, jax.Array]:
    """4M's two averages of the modalities' cross-entropies; one without targets counts 0.

    `mod`: the mean over modalities. `token`: weighted by targets x size of the vocabulary.
    """
    names = [m.name for m in space.modalities if m.predicted]
    means = {n: weighted(terms, {f"masked/{n}": 1.0}) for n in names}
    token = weighted({ALL: by_vocabulary(terms, space)}, {ALL: 1.0})
    return {"mod": weighted(terms, masked_weights(Joint(), space)), "token": token} | means


def _loss(golden: Golden, kind: str) -> Errors:
    """One of the losses, and the norm of its gradient in every parameter."""

    def loss(params: Any) -> Any:
        model = golden.model(params)
        view, queries = golden.views()
        states = model.decode(queries, model.encode(view), view)
        found = losses(masked_terms(model.logits, golden.space, states, queries), golden.space)
        return found[kind], found

    (value, found), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(golden.params)
    yield f"loss/{kind}", abs(float(value) - float(golden.arrays[f"loss/{kind}"])), LIMIT
    for name in found if kind == "mod" else ():
        if f"loss_per_mod/{name}" in golden.arrays:
            yield f"loss_per_mod/{name}", abs(float(found[name]) - float(golden.arrays[f"loss_per_mod/{name}"])), LIMIT  # fmt: skip
    flat = traverse_util.flatten_dict(grads, sep="/")
    table = m4.pieces(golden.settings, golden.space)
    norms = {p.key: float(np.linalg.norm(m4.taken(p, flat[path]))) for path, some in table.items() for p in some}  # fmt: skip
    for key, norm in golden.facts["grad_norms"].get(kind, {}).items():
        if key not in norms:
            raise UserError(f"grad_norms: {key} is no parameter here")
        yield f"grad_norms/{kind}/{key}", abs(norms[key] - norm), LIMIT


def _generated(golden: Golden) -> Errors:
    """Greedy generation from all of the pixels: an image in one pass of MaskGIT, guided or not, and a caption; ids that differ."""
    name = next(m.name for m in golden.space.modalities if getattr(m.layout, "grid", None))
    pixels = np.asarray(golden.buffers()[name].ids)
    inputs = {name: (pixels, np.full(len(pixels), pixels.shape[1]))}
    for key, theirs in golden.arrays.items():
        if match := re.fullmatch(r"gen/maskgit1_cfg([\d.]+)", key):
            step = Step(target="tok_depth@224", scheme="maskgit", temperature=0.0, guidance=float(match[1]), guided=(name,))  # fmt: skip
        elif key == "gen/ar_caption":
            step = Step(target="caption", scheme="autoregressive", temperature=0.0)
        else:
            continue
        made = generate(golden, golden.params, inputs, [step], jax.random.key(0))
        ids, length = made[step.target]
        there = ~golden.arrays.get(f"{key}_pad", np.zeros(theirs.shape, bool))
        same = np.array_equal(length, there.sum(1)) and np.array_equal(
            ids[:, : theirs.shape[1]][there], theirs[there]
        )
        yield key, 0.0 if same else float(np.inf), 0.0


def report(errors: Errors, say: Callable[[str], Any] = print) -> bool:
    """Prints every error; whether all are within their limits."""
    bad = 0
    for name, error, limit in errors:
        if error is None:
            say(f"unchecked  {name}")
            continue
        beyond = not error <= limit  # NaN too
        bad += beyond
        say(f"{error:.1e}  {name}" + (f"  more than {limit:g}" if beyond else ""))
    say(f"{bad} beyond their limits" if bad else "all within their limits")
    return not bad
