"""Does a model compute what 4M computes? `python -m mm.weights parity STEM` asks a golden set made with the original code.

A set is STEM.safetensors (weights), STEM.npz (inputs, what the original made of them) and STEM.json (sizes, gradient norms).
Every array of it is compared; one that nothing here corresponds to is named as unchecked.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from etils.epath import Path
from flax import nnx, traverse_util

from mm.errors import UserError
from mm.models.encoder_decoder import EncoderDecoder, Model
from mm.objectives.masked import masked_terms
from mm.objectives.packing_4m import Buffer, packed
from mm.space import Dense, Modality, TokenSpace, View
from mm.tasks import Terms, weighted
from mm.tasks.joint import ALL, Joint, by_vocabulary, masked_weights
from mm.weights import imported, m4, m4_modalities, parity_generated, parity_tokenizers
from mm.weights.m4_files import File

LIMIT, LIMIT_BFLOAT16 = 1e-4, 2e-2
"""Largest absolute errors, in float32 and of logits in bfloat16."""

KINDS = ("mod", "token")
"""4M's losses."""
Errors = Iterator[tuple[str, float | None, float]]
"""What was compared, its largest absolute error, and the limit; None = it could not be compared, and the name says why."""


@dataclasses.dataclass(eq=False)
class Golden:
    """An opened golden set of a model; a `sampling_4m.Trunk`.

    Attributes:
      facts: STEM.json. arrays: STEM.npz, of the encoder's without what belongs to registers.
      used: names of arrays that were compared, or read.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    settings: Model
    space: TokenSpace
    params: Any
    used: set[str] = dataclasses.field(default_factory=set)

    def __getitem__(self, name: str) -> np.ndarray:
        self.used.add(name)
        return self.arrays[name]

    def present(self) -> list[str]:
        """Modalities that the batch has."""
        return [n for n in self.space.names if f"in/{n}/tensor" in self.arrays]

    def model(self, params: Any, dtype: str = "float32") -> EncoderDecoder:
        """The module with parameters."""
        settings = dataclasses.replace(self.settings, dtype=dtype)
        make = lambda: EncoderDecoder(settings, self.space, rngs=nnx.Rngs(0))
        return nnx.merge(nnx.graphdef(nnx.eval_shape(make)), params)

    def buffers(self) -> dict[str, Buffer]:
        """The inputs as 4M's buffers."""
        parts = ("tensor", "input_mask", "target_mask")
        arrays = lambda n: {part: self[f"in/{n}/{part}"] for part in parts}
        return {n: buffer_of(self.space[n], arrays(n)) for n in self.present()}

    def views(self) -> tuple[View, View]:
        """The encoder's and the decoder's."""
        room = []
        for pad, key in (("mid/enc_pad", "n_in"), ("mid/dec_pad", "n_out")):
            known = self.arrays[pad].shape[-1] if pad in self.arrays else self.facts.get(key)
            room.append(known or sum(b.seen.shape[1] for b in self.buffers().values()))
        return packed(self.buffers(), self.space, *room)


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
    space, settings = space_of(file, facts), m4.model_of(file)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params = m4.read(file, settings, space, lambda *_: here)
    return Golden(facts, without_registers(arrays, settings.registers), settings, space, params)


def space_of(file: File, facts: Mapping[str, Any]) -> TokenSpace:
    """The modalities that the file has tables for, on the sides that it has them for, as large and in the order as the facts say."""
    source, said = imported.source_of(file), facts.get("modalities", {})
    sizes = {"image_size": facts.get("image", source.image_size), "patch_size": facts.get("patch", source.patch_size)}  # fmt: skip
    overrides = {n: source.overrides.get(n, {}) | dict(said.get(n, {})) for n in (*source.inputs, *source.targets)}  # fmt: skip
    space = m4_modalities.space(source.inputs, source.targets, t5_dim=source.t5_dim, overrides=overrides, **sizes)  # fmt: skip
    order = [*said, *space.names]
    return TokenSpace(tuple(sorted(space.modalities, key=lambda m: order.index(m.name))))


def without_registers(arrays: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The arrays, of the encoder's only what stands behind as many registers."""
    cut = lambda a: a[..., count:] if a.ndim == 3 and a.dtype == bool else a[:, count:]
    return {k: cut(a) if k.startswith("mid/enc_") else a for k, a in arrays.items()}


def check(stem: Path) -> Errors:
    """Everything in a golden set of a model or a tokenizer, in turn. Raises UserError: see `read`."""
    if "mask_token" not in File(stem.with_name(f"{stem.name}.safetensors")):
        yield from ((name, error, LIMIT) for name, error in parity_tokenizers.check(stem).items())
        return
    golden = read(stem)
    with jax.default_matmul_precision("highest"):  # GPUs and TPUs round float32 without
        yield from outputs(golden)
        yield from outputs_in_bfloat16(golden)
        yield from _losses(golden)
        yield from parity_generated.check(golden)
    for name in sorted(golden.arrays.keys() - golden.used):
        # Inputs that a model has no tables for it leaves alone, as 4M's does.
        if not name.startswith("in/"):
            yield f"{name}: nothing here corresponds to it", None, LIMIT


def outputs(golden: Golden) -> Errors:
    """Packed views, states and logits of one forward pass."""
    found = jax.jit(lambda p: forward(golden, golden.model(p)))(golden.params)
    yield from _views(golden, found)
    yield from states(golden, found)
    yield from _logits(golden, found["logits"], found["asked"], "", LIMIT)


def outputs_in_bfloat16(golden: Golden) -> Errors:
    """Logits again, every factor of a product rounded (on a CPU but for parameters)."""
    low = jax.jit(lambda p: forward(golden, golden.model(p, "bfloat16"))["logits"])(golden.params)
    asked = golden.views()[1].mask
    yield from _logits(golden, low, asked, " in bfloat16", LIMIT_BFLOAT16)


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
        if (name := f"mid/{side}_pad") in golden.arrays:
            yield name, float((golden[name][:, 0] == np.asarray(found[mask])).sum()), 0.0
        if (name := f"mid/{side}_mod") in golden.arrays:
            ours = ids[of[np.asarray(found[view].place)]]
            yield name, _largest(ours, golden[name], found[mask]), 0.0
    if (name := "mid/target_ids") in golden.arrays:
        yield name, _largest(found["target_ids"], golden[name], found["asked"]), 0.0
    if (name := "mid/dec_blocked") in golden.arrays:
        yield name, _blocked(golden, found), 0.0


def _blocked(golden: Golden, found: Mapping[str, Any]) -> float:
    """How many pairs of queries see each other in only one of the two models."""
    of = golden.space.per_place()["modality"][np.asarray(found["queries"].place)]
    asked = np.asarray(found["asked"])
    text = np.array([m.order == "left_to_right" for m in golden.space.modalities])[of]
    place = np.arange(of.shape[1])
    sees = of[:, :, None] == of[:, None]
    sees &= (place[:, None] >= place) | ~text[:, :, None]
    both = asked[:, :, None] & asked[:, None]
    return float((both & (sees == golden["mid/dec_blocked"])).sum())


def states(golden: Golden, found: Mapping[str, Any]) -> Errors:
    """Embeddings and states of the encoder and the decoder."""
    for side, mask in (("enc", "seen"), ("dec", "asked")):
        for part in (f"{side}_tokens", f"{side}_emb", f"{side}_out"):
            if (name := f"mid/{part}") in golden.arrays:
                yield name, _largest(found[part], golden[name], found[mask]), LIMIT


def _logits(golden: Golden, logits: Mapping[str, Any], asked: Any, said: str, limit: float) -> Errors:  # fmt: skip
    for name, ours in logits.items():
        if f"logits/{name}" in golden.arrays:
            yield f"logits/{name}{said}", _largest(ours, golden[f"logits/{name}"], asked), limit


def losses(terms: Terms, space: TokenSpace, absent: Collection[str] = ()) -> dict[str, jax.Array]:
    """4M's two averages of the modalities' cross-entropies; one without targets counts 0.

    `mod`: the mean over modalities. `token`: weighted by targets x size of the vocabulary.

    Args:
      absent: of what the batch has nothing at all: these do not count.
    """
    names = [m.name for m in space.modalities if m.predicted]
    means = {n: weighted(terms, {f"masked/{n}": 1.0}) for n in names}
    token = weighted({ALL: by_vocabulary(terms, space)}, {ALL: 1.0})
    settings = Joint(shares=dict.fromkeys(absent, 0.0))
    return {"mod": weighted(terms, masked_weights(settings, space)), "token": token} | means


def _losses(golden: Golden) -> Errors:
    """Both losses, those of the modalities, and the norms of both gradients in every parameter."""
    absent = set(golden.space.names) - set(golden.present())

    def both(params: Any) -> Any:
        model = golden.model(params)
        view, queries = golden.views()
        states = model.decode(queries, model.encode(view), view)
        terms = masked_terms(model.logits, golden.space, states, queries)
        found = losses(terms, golden.space, absent)
        return {kind: found[kind] for kind in KINDS}, found

    @jax.jit
    def gradients(params: Any) -> Any:
        _, back, found = jax.vjp(both, params, has_aux=True)
        ones = {kind: {k: jnp.float32(k == kind) for k in KINDS} for kind in KINDS}
        return {kind: back(one)[0] for kind, one in ones.items()}, found

    grads, found = gradients(golden.params)
    for ours, loss in found.items():
        if (name := f"loss/{ours}" if ours in KINDS else f"loss_per_mod/{ours}") in golden.arrays:
            yield name, abs(float(loss) - golden[name].item()), LIMIT
    for kind in KINDS:
        norms = gradient_norms(golden, grads[kind])
        for key, norm in golden.facts.get("grad_norms", {}).get(kind, {}).items():
            if key in norms:
                yield f"grad_norms/{kind}/{key}", abs(norms[key] - norm), LIMIT
            else:
                yield f"grad_norms/{kind}/{key}: no parameter here", None, LIMIT


def gradient_norms(golden: Golden, grads: Any) -> dict[str, float]:
    """By 4M's names of parameters; of tied ones under either."""
    flat = traverse_util.flatten_dict(grads, sep="/")
    table = m4.pieces(golden.settings, golden.space)
    norms = {p.key: float(np.linalg.norm(m4.taken(p, flat[path]))) for path, some in table.items() for p in some}  # fmt: skip
    again = m4.implied(golden.settings, golden.space)
    return norms | {key: norms[i.twin] for key, i in again.items() if i.twin}


def report(errors: Errors, say: Callable[[str], Any] = print) -> bool:
    """Prints every error, and what could not be compared; whether all errors are within their limits."""
    bad = unchecked = 0
    for name, error, limit in errors:
        if error is None:
            unchecked += 1
            say(f"unchecked  {name}")
            continue
        beyond = not error <= limit  # NaN too
        bad += beyond
        say(f"{error:.1e}  {name}" + (f"  more than {limit:g}" if beyond else ""))
    said = f"{bad} beyond their limits" if bad else "all within their limits"
    say(said + f", {unchecked} unchecked" * bool(unchecked))
    return not bad
