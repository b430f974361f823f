"""4M's weights: safetensors to our parameters and back, by one table of names, tensor by tensor.

A file holds every tensor under the name of its PyTorch module, linear layers as (out, in). Ours are stacked over
layers, and the tables of all modalities lie end to end. What a file says twice (tied tables, fixed positions, zero biases
of norms without one) is compared, not read.

Source of the names and shapes: apple/ml-4m.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils.epath import Path
from flax import nnx, traverse_util

from mm.errors import UserError
from mm.models.encoder_decoder import (
    EncoderDecoder,
    Model,
    learned_places,
    position_table,
)
from mm.models.layers import hidden_size
from mm.space import TokenSpace
from mm.weights.m4_files import File

BLOCK = {
    "norm1": "norm1", "norm2": "norm2", "query_norm": "query_norm", "context_norm": "context_norm",
    "attn/qkv": "attn.qkv", "attn/out": "attn.proj", "attn/q_norm": "attn.q_norm", "attn/k_norm": "attn.k_norm",
    "cross/q": "cross_attn.q", "cross/kv": "cross_attn.kv", "cross/out": "cross_attn.proj",
    "cross/q_norm": "cross_attn.q_norm", "cross/k_norm": "cross_attn.k_norm",
    "mlp/up": "mlp.fc1", "mlp/gate": "mlp.fc3", "mlp/down": "mlp.fc2",
}  # fmt: skip
"""Our module within a block -> theirs; a decoder's `attn` is their `self_attn`."""
ONCE = {"encoder_norm": "encoder_norm", "decoder_norm": "decoder_norm", "context": "decoder_proj_context"}  # fmt: skip
WAVES_WITHIN = 2e-4
"""Fixed positions of a file may differ as much from ours: float32 sines of angles up to 512 are that uncertain (8e-5 between
PyTorch and XLA at 2,048 features); a table of another kind is about 1 away."""
LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class Piece(NamedTuple):
    """One of their tensors, as part of one of our arrays.

    Attributes:
      rows: of ours that it fills: a layer's number, a range, None = it is all of it.
      transposed: (out, in) there. lead: axes of size 1 before its own there.
    """

    key: str
    rows: int | slice | None = None
    transposed: bool = False
    lead: int = 0

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Its shape in the file, from that of our array."""
        if isinstance(self.rows, int):
            ours = ours[1:]
        elif self.rows is not None:
            ours = (self.rows.stop - self.rows.start, *ours[1:])
        return (1,) * self.lead + (ours[::-1] if self.transposed else ours)


def shapes(settings: Model, space: TokenSpace) -> dict[str, Any]:
    """Path -> shape and dtype of every parameter; nothing is allocated."""
    model = nnx.eval_shape(lambda: EncoderDecoder(settings, space, rngs=nnx.Rngs(0)))
    return traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model, nnx.Param)), sep="/")


def pieces(settings: Model, space: TokenSpace) -> dict[str, list[Piece]]:
    """The table: path of our parameter -> their tensors.

    Raises:
      UserError: parts that 4M has not, by name.
    """
    found = {path: _pieces(path, x.shape, settings, space) for path, x in shapes(settings, space).items()}  # fmt: skip
    alien = sorted({path.split("/")[0] for path, some in found.items() if not some})
    alien += [f"token_scale={settings.token_scale:g}"] * (settings.token_scale != 1)
    alien += [f"positions={settings.positions}"] * (settings.positions != "by_layout")
    alien += [f"mlp={settings.mlp}"] * (settings.mlp not in ("gelu", "swiglu"))
    alien += ["tables=one"] * (settings.tables == "one")
    alien += ["padding_speaks=False"] * (not settings.padding_speaks)
    vocabularies = [m.vocabulary.name for m in space.modalities if m.vocabulary]
    alien += ["a vocabulary that modalities share"] * (len({*vocabularies}) < len(vocabularies))
    if alien:
        raise UserError(
            f"a 4M model has no form for {', '.join(alien)}; leave these out to export it"
        )
    return found


def _pieces(path: str, shape: tuple[int, ...], settings: Model, space: TokenSpace) -> list[Piece]:
    head, *inner = path.split("/")
    if head in ("encoder", "decoder"):
        module, leaf = "/".join(inner[:-1]), inner[-1]
        theirs = BLOCK[module]
        if head == "decoder" and module.startswith("attn/"):
            theirs = f"self_{theirs}"
        key = f"{head}.{{}}.{theirs}.{LEAF[leaf]}"
        return [Piece(key.format(i), i, leaf == "kernel") for i in range(shape[0])]
    if head in ONCE:
        return [Piece(f"{ONCE[head]}.{LEAF[inner[0]]}", None, inner[0] == "kernel")]
    if head in ("token", "target", "head"):
        part = space.only("seen" if head == "token" else "predicted")
        side = "encoder" if head == "token" else "decoder"
        name = "to_logits" if head == "head" else "token_emb"
        return [
            Piece(
                f"{side}_embeddings.{m.name}.{name}.weight",
                _range(part.offset(m.name), m.vocabulary.size),
            )
            for m in part.modalities
            if m.vocabulary
        ]
    if head == "modality":
        return [Piece(f"{_side(m)}_embeddings.{m.name}.mod_emb", i, lead=2) for i, m in enumerate(space.modalities)]  # fmt: skip
    if head in ("position", "target_position"):
        side, role = ("encoder", "seen") if head == "position" else ("decoder", "predicted")
        places = learned_places(space, settings.positions, role)
        return [Piece(f"{side}_embeddings.{n}.pos_emb", rows, lead=1) for n, rows in places.items()]
    if head == "dense":
        linear = "emb_proj" if space[inner[0]].layout.bias else "proj"  # pyright: ignore[reportAttributeAccessIssue]
        return [Piece(f"encoder_embeddings.{inner[0]}.{linear}.{LEAF[inner[1]]}", None, inner[1] == "kernel")]  # fmt: skip
    singles = {
        "mask_token": Piece("mask_token", lead=2),
        "registers": Piece("register_tokens", lead=1),
    }
    return [singles[head]] if head in singles else []


def _range(start: int, size: int) -> slice:
    return slice(start, start + size)


def _side(m: Any) -> str:
    return "encoder" if m.seen else "decoder"


class Implied(NamedTuple):
    """A tensor that says again what another one says, or what is fixed: it may be missing.

    Attributes:
      twin: the other's key. value: what is fixed, made when asked. within: how far from it a file may be.
    """

    shape: tuple[int, ...]
    twin: str = ""
    value: Callable[[], np.ndarray] | None = None
    within: float = 0.0


def implied(settings: Model, space: TokenSpace) -> dict[str, Implied]:
    """Key -> what a file says besides the table's tensors."""
    width, found = settings.width, {}
    fixed = lambda m: np.asarray(position_table(TokenSpace((m,)), width, {}))[None]
    for m in space.modalities:
        for side in (s for s, role in (("encoder", m.seen), ("decoder", m.predicted)) if role):
            role, base = (
                ("seen" if side == "encoder" else "predicted"),
                f"{side}_embeddings.{m.name}",
            )
            if side != _side(m):
                found[f"{base}.mod_emb"] = Implied((1, 1, width), f"{_side(m)}_embeddings.{m.name}.mod_emb")  # fmt: skip
            if m.name not in learned_places(space, settings.positions, role):
                found[f"{base}.pos_emb"] = Implied((1, m.places, width), value=lambda m=m: fixed(m), within=WAVES_WITHIN)  # fmt: skip
            if side == "decoder" and settings.tables == "two":
                size = (space.vocabulary(m.name).size, width)
                found[f"{base}.to_logits.weight"] = Implied(size, f"{base}.token_emb.weight")
    for key in _norms(settings):
        of_head = key.endswith(("q_norm", "k_norm"))
        if of_head or not settings.bias:
            size = width // settings.heads if of_head else width
            zeros = np.zeros(size, np.float32)
            found[f"{key}.bias"] = Implied((size,), value=lambda zeros=zeros: zeros)
    return found


def _norms(settings: Model) -> Iterator[str]:
    """Keys of all layer norms, without their leaf."""
    yield from ("encoder_norm", "decoder_norm")
    heads = ("q_norm", "k_norm") if settings.qk_norm else ()
    for i in range(settings.encoder_layers):
        yield from (f"encoder.{i}.{n}" for n in ("norm1", "norm2", *(f"attn.{h}" for h in heads)))
    for i in range(settings.decoder_layers):
        inner = ("norm1", "query_norm", "context_norm", "norm2")
        inner += tuple(f"{a}.{h}" for a in ("self_attn", "cross_attn") for h in heads)
        yield from (f"decoder.{i}.{n}" for n in inner)


def model_of(file: File) -> Model:
    """The network that a file holds, by its names and shapes; heads, and whether tables are tied, by its config.

    Raises:
      UserError: no 4M model, or one with parts that have no form here.
    """
    keys, config = file.shapes, file.config
    if "mask_token" not in keys or "encoder.0.attn.qkv.weight" not in keys:
        raise UserError(
            f"{file.path}: no 4M model: mask_token or encoder.0.attn.qkv.weight is missing"
        )
    width = keys["mask_token"][-1]
    depth = {s: 1 + max(int(m[1]) for k in keys if (m := re.match(rf"{s}\.(\d+)\.", k))) for s in ("encoder", "decoder")}  # fmt: skip
    qk_norm = "encoder.0.attn.q_norm.weight" in keys
    per_head = keys["encoder.0.attn.q_norm.weight"][0] if qk_norm else 64
    heads = int(config.get("num_heads") or config.get("heads") or max(width // per_head, 1))
    if width % heads:
        raise UserError(f"{file.path}: {heads} heads do not divide a width of {width}")
    mlp = "swiglu" if "encoder.0.mlp.fc3.weight" in keys else "gelu"
    wanted = {"swiglu": "SiLU", "gelu": "GELU"}[mlp]
    act = str(config.get("act_layer", wanted)).rpartition(".")[2]
    if wanted not in act or keys["encoder.0.mlp.fc1.weight"][0] != hidden_size(mlp, width):
        raise UserError(
            f"{file.path}: an MLP of {keys['encoder.0.mlp.fc1.weight'][0]} features with {act} has no form here; "
            f"{mlp} has {hidden_size(mlp, width)}"
        )
    return Model(
        width=width, heads=heads, encoder_layers=depth["encoder"], decoder_layers=depth["decoder"],
        embed_layers=depth["encoder"], embed_dim=0, token_scale=1.0, token_std=0.02, positions="by_layout",
        tables="two" if tied(file) else "three", registers=keys.get("register_tokens", (1, 0))[1],
        padding_speaks=True, float32_stream=True, mlp=mlp, bias="encoder.0.attn.qkv.bias" in keys, qk_norm=qk_norm,
    )  # fmt: skip


def tied(file: File) -> bool:
    """Whether what is predicted has the vectors of what is told: as the config says, or as the tensors are."""
    if "share_embedding" in file.config:
        return bool(file.config["share_embedding"])
    pairs = [(k, k.replace("token_emb", "to_logits")) for k in file.shapes if re.match(r"decoder_emb.*token_emb", k)]  # fmt: skip
    return all(b not in file or np.array_equal(file.whole(a), file.whole(b)) for a, b in pairs)


def check(file: File, settings: Model, space: TokenSpace) -> None:
    """Every tensor of the file is accounted for, has its shape, and says nothing else twice.

    Raises:
      UserError: naming what is missing, unknown, of another shape, or different from its twin.
    """
    ours = shapes(settings, space)
    wanted = {p.key: p.shape(ours[path].shape) for path, some in pieces(settings, space).items() for p in some}  # fmt: skip
    again = implied(settings, space)
    alias = {i.twin: key for key, i in again.items() if i.twin}
    missing = [k for k in wanted if k not in file and alias.get(k, k) not in file]
    unknown = [k for k in file.shapes if k not in wanted and k not in again]
    if missing or unknown:
        said = [f"missing: {', '.join(missing)}"] * bool(missing)
        said += [f"unknown: {', '.join(unknown)}"] * bool(unknown)
        raise UserError(f"{file.path}: not the tensors of this model; {'; '.join(said)}")
    for key, shape in file.shapes.items():
        expected = wanted.get(key) or again[key].shape
        if shape != expected:
            raise UserError(f"{file.path}: {key}: {list(shape)} there, {list(expected)} here")
    for key, i in ((k, i) for k, i in again.items() if k in file):
        if i.twin in file and not np.array_equal(file.whole(key), file.whole(i.twin)):
            raise UserError(f"{file.path}: {key} is not {i.twin}, which a tied model needs")
        if i.value is None:
            continue
        off = float(np.abs(file.whole(key) - i.value()).max(initial=0.0))
        if not off <= i.within:
            raise UserError(
                f"{file.path}: {key} is up to {off:.1e} from what 4M fixes it to; it has no form here"
            )


def read(
    file: File, settings: Model, space: TokenSpace, sharding: Callable[[str, Any], Any]
) -> Any:
    """Our parameters, each made shard by shard where it lives; only what a shard needs is read.

    Args:
      sharding: (path, shape and dtype) -> where the array is to live.

    Raises:
      UserError: see `check`; nothing is read then.
    """
    check(file, settings, space)
    alias = {i.twin: key for key, i in implied(settings, space).items() if i.twin}
    named = lambda p: p if p.key in file else p._replace(key=alias[p.key])
    made = {}
    table = pieces(settings, space)
    for path, x in shapes(settings, space).items():
        some = [named(p) for p in table[path]]
        fill = lambda index, some=some, shape=x.shape: filled(file, some, shape, index)
        made[path] = jax.make_array_from_callback(x.shape, sharding(path, x), fill)
    return traverse_util.unflatten_dict(made, sep="/")


def filled(file: File, some: list[Piece], shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:  # fmt: skip
    """One shard of an array, of the tensors that it has rows of."""
    spans = [slice(*s.indices(n)[:2]) for s, n in zip(index, shape, strict=True)]
    if len(some) == 1 and some[0].rows is None:
        return _tensor(file, some[0], shape, tuple(spans))
    out = np.zeros([s.stop - s.start for s in spans], np.float32)
    first, rest = spans[0], tuple(spans[1:])
    for p in some:
        if isinstance(p.rows, int):
            if first.start <= p.rows < first.stop:
                out[p.rows - first.start] = _tensor(file, p, shape[1:], rest)
        elif p.rows is not None:
            low, high = max(p.rows.start, first.start), min(p.rows.stop, first.stop)
            if low < high:
                own = (p.rows.stop - p.rows.start, *shape[1:])
                part = (slice(low - p.rows.start, high - p.rows.start), *rest)
                out[low - first.start : high - first.start] = _tensor(file, p, own, part)
    return out


def _tensor(file: File, p: Piece, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """A part of a tensor in our orientation."""
    if p.lead:
        return file.whole(p.key).reshape(shape)[index]
    return file.part(p.key, index[::-1]).T if p.transposed else file.part(p.key, index)


def write(
    path: Path, params: Any, settings: Model, space: TokenSpace, config: Mapping[str, Any]
) -> int:
    """Our parameters as 4M's file, tensor by tensor, all or nothing; returns how many tensors it has.

    Raises:
      UserError: the model has parts that 4M has not.
    """
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    where: dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]] = {}
    for name, some in pieces(settings, space).items():
        for p in some:
            where[p.key] = p.shape(flat[name].shape), lambda p=p, x=flat[name]: taken(p, x)
    for key, i in implied(settings, space).items():
        where[key] = i.shape, (lambda i=i: where[i.twin][1]()) if i.twin else i.value  # pyright: ignore[reportArgumentType]
    header: dict[str, Any] = {"__metadata__": {k: v if isinstance(v, str) else json.dumps(v) for k, v in config.items()}}  # fmt: skip
    end = 0
    for key, (shape, _) in where.items():
        size = 4 * int(np.prod(shape))
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for shape, make in where.values():
            f.write(np.ascontiguousarray(make().reshape(shape), np.float32).tobytes())
    partial.replace(path)
    return len(where)
    return len(where)


def taken(p: Piece, x: Any) -> np.ndarray:
    """Their tensor out of our array (leading axes of size 1 left out)."""
    x = np.asarray(x if p.rows is None else x[p.rows])
    return x.T if p.transposed else x


def config_of(
    settings: Model, space: TokenSpace, image_size: int, patch_size: int
) -> dict[str, Any]:
    """What 4M's own loader asks for, and nothing that it does not know (that tables are tied, their tensors say); sizes in pixels."""
    swiglu, bias = settings.mlp == "swiglu", settings.bias
    return {
        "domains_in": [m.name for m in space.modalities if m.seen],
        "domains_out": [m.name for m in space.modalities if m.predicted],
        "image_size": image_size, "patch_size": patch_size, "dim": settings.width,
        "encoder_depth": settings.encoder_layers, "decoder_depth": settings.decoder_layers,
        "num_heads": settings.heads, "mlp_ratio": 4, "qkv_bias": bias, "proj_bias": bias, "mlp_bias": bias,
        "norm_bias": bias, "act_layer": "SiLU" if swiglu else "GELU", "gated_mlp": swiglu,
        "qk_norm": settings.qk_norm, "num_register_tokens": settings.registers,
    }  # fmt: skip
