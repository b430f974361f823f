"""4M's tokenizers as ours and back: a state dict in safetensors <-> settings, parameters and buffers, bit for bit.

One table of names per kind. The config is NAME.json or config.json beside the file, or the file's own metadata.

Source: the checkpoint layout of 4M-7 and 4M-21 (apple/ml-4m).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils.epath import Path
from flax import traverse_util
from safetensors.numpy import save

from mm import artefact
from mm.errors import UserError
from mm.tokenizers import autoencoder, memcodes, quantizers, vit
from mm.tokenizers.quantizers import Categorical, VectorQuantizer
from mm.weights.m4_files import Arrays, listed, read
from mm.weights.m4_tokenizer_settings import WHOLE, config_of, settings_of

INITIALISED = "quantize._codebook.initted"
WHAT_4M_HAS = "it has ViTAutoencoder and VectorAutoencoder, with Categorical where these have a memory and VectorQuantizer where not"
NETWORKS = (vit.ViTAutoencoder, memcodes.VectorAutoencoder)
WHAT_IS_FIXED = dict.fromkeys(
    ("encoder.pos_emb", "decoder.pos_emb"), "the fixed waves of its grid"
) | {INITIALISED: "1: its codebook was never begun"}


class Imported(NamedTuple):
    """A tokenizer of 4M in our form.

    Attributes:
      network: `ViTAutoencoder` or `VectorAutoencoder`. quantizer: `VectorQuantizer` or `Categorical`.
      params: of the network, nested dict of float32. buffers: of the quantizer.
    """

    network: Any
    quantizer: Any
    params: dict[str, Any]
    buffers: dict[str, Any]


class Form(NamedTuple):
    """How an array of theirs becomes ours and back; `p` is the side of a patch."""

    ours: Callable[[np.ndarray, int], np.ndarray]
    theirs: Callable[[np.ndarray, int], np.ndarray]


SAME = Form(lambda a, p: a, lambda a, p: a)
LINEAR = Form(lambda a, p: a.T, lambda a, p: a.T)
POINT = Form(lambda a, p: a[:, :, 0, 0].T, lambda a, p: a.T[:, :, None, None])
"""A 1 x 1 convolution."""
TAPS = Form(lambda a, p: a.transpose(2, 3, 1, 0), lambda a, p: a.transpose(3, 2, 0, 1))
PATCH = Form(
    lambda a, p: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
    lambda a, p: a.reshape(p, p, -1, a.shape[-1]).transpose(3, 2, 0, 1),
)
"""A convolution over patches."""
UNPATCH = Form(
    lambda a, p: a.reshape(-1, p, p, a.shape[-1]).transpose(3, 1, 2, 0).reshape(a.shape[::-1]),
    lambda a, p: a.reshape(len(a), p, p, -1).transpose(3, 1, 2, 0).reshape(a.shape[::-1]),
)
"""To patches: theirs have the channel first, ours last."""
UNPATCH_BIAS = Form(
    lambda a, p: a.reshape(-1, p, p).transpose(1, 2, 0).ravel(),
    lambda a, p: a.reshape(p, p, -1).transpose(2, 0, 1).ravel(),
)


def _linear(theirs: str, ours: str, form: Form = LINEAR, bias: Form = SAME) -> dict:
    return {f"{theirs}.weight": (f"{ours}.kernel", form), f"{theirs}.bias": (f"{ours}.bias", bias)}


def _norm(theirs: str, ours: str) -> dict:
    return {f"{theirs}.weight": (f"{ours}.scale", SAME), f"{theirs}.bias": (f"{ours}.bias", SAME)}


def _side(side: str) -> dict:
    """Of a transformer; {} counts its blocks."""
    block = f"{side}.blocks.{{}}"
    return (
        _norm(f"{block}.norm1", f"{side}.norm1")
        | _linear(f"{block}.attn.qkv", f"{side}.attn.qkv")
        | _linear(f"{block}.attn.proj", f"{side}.attn.out")
        | _norm(f"{block}.norm2", f"{side}.norm2")
        | _linear(f"{block}.mlp.fc1", f"{side}.mlp.up")
        | _linear(f"{block}.mlp.fc2", f"{side}.mlp.down")
        | _norm(f"{side}.norm_mlp", f"{side}_post.norm")
        | _linear(f"{side}.post_mlp.fc1", f"{side}_post.up")
        | _linear(f"{side}.post_mlp.fc2", f"{side}_post.down")
    )


def _perceptron(side: str) -> dict:
    """Of an MLP; {} counts its blocks."""
    return (
        _linear(f"{side}.linear_in", f"{side}.into")
        | _norm(f"{side}.layernorms.{{}}", f"{side}.blocks")
        | _linear(f"{side}.blocks.{{}}.block.0", f"{side}.blocks.up")
        | _linear(f"{side}.blocks.{{}}.block.2", f"{side}.blocks.down")
        | _linear(f"{side}.linear_out", f"{side}.out")
    )


Table = dict[str, tuple[str, Form]]
ENDS: Table = (
    _linear("quant_proj", "latent_out", POINT)
    | _linear("quantize.project_in", "projection.into")
    | _linear("quantize.project_out", "projection.out")
    | {
        "quantize.codes": ("projection.memory.codes", SAME),
        "quantize.to_k.weight": ("projection.memory.to_key", SAME),
        "quantize.to_v.weight": ("projection.memory.to_value", SAME),
    }
    | _linear("post_quant_proj", "latent_in", POINT)
)
CONV = "decoder.out_conv.{}"
VIT: Table = (
    {"cls_emb.weight": ("classes", SAME)}
    | _linear("encoder.proj", "patches_in", PATCH)
    | _side("encoder")
    | ENDS
    | _side("decoder")
    | _linear("decoder.out_proj", "patches_out", UNPATCH, UNPATCH_BIAS)
    | {f"{CONV}.gamma": ("out_conv.gamma", SAME)}
    | {f"{CONV}.dwconv.weight": ("out_conv.taps", TAPS)}
    | {f"{CONV}.dwconv.bias": ("out_conv.bias", SAME)}
    | _norm(f"{CONV}.norm", "out_conv.norm")
    | _linear(f"{CONV}.pwconv1", "out_conv.mlp.up")
    | _linear(f"{CONV}.pwconv2", "out_conv.mlp.down")
)
MLP: Table = _perceptron("encoder") | ENDS | _perceptron("decoder")
BUFFERS: Table = {
    f"quantize._codebook.{theirs}": (ours, SAME)
    for theirs, ours in (("embed", "codebook"), ("cluster_size", "counts"), ("embed_avg", "sums"))
}


def import_tokenizer(path: Path | str) -> Imported:
    """A tokenizer of 4M.

    Raises:
      UserError: see `read` and `settings_of`; keys are missing, unknown, or of another shape than the rest says; its
        codebook was never begun, or its positions are not the fixed ones.
    """
    path = Path(path)
    config, found = read(path)
    network, quantizer = settings_of(path, config, found)
    shapes = _shapes(network, quantizer)
    blank = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    fixed = _fixed(network)
    wanted = {name: a.shape for name, a in (_theirs(network, blank) | fixed).items()}
    _check_keys(path, found, wanted)
    for name, value in fixed.items():
        if not np.allclose(found[name], value, atol=1e-4):
            raise UserError(
                f"{path}: {name} is not {WHAT_IS_FIXED[name]}; take the file of a trained tokenizer"
            )
    flat = _ours(network, shapes, found)
    buffers = {ours: flat.pop(ours) for ours, _ in BUFFERS.values() if ours in flat}
    return Imported(network, quantizer, traverse_util.unflatten_dict(flat, sep="."), buffers)


def export_tokenizer(made: Imported, out: Path | str) -> None:
    """Writes a tokenizer with 4M's names, its config in the file's metadata; all or nothing.

    How a codebook is trained is 4M's to say: running sums of cosine codes, and shares of dead ones, are not written.

    Raises:
      UserError: 4M has no such network or quantizer.
    """
    out = Path(out)
    quantizer = Categorical if getattr(made.network, "memory", 0) else VectorQuantizer
    if not isinstance(made.network, NETWORKS) or type(made.quantizer) is not quantizer:
        raise UserError(
            f"{out}: 4M has no {type(made.network).__name__} with {type(made.quantizer).__name__}; {WHAT_4M_HAS}"
        )
    arrays, config = state_dict(made), config_of(made.network, made.quantizer)
    metadata = {name: json.dumps(value) for name, value in config.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_bytes(save(arrays, metadata))
    partial.replace(out)


def write_artefact(made: Imported, out: Path | str, card: Mapping[str, Any]) -> str:
    """Writes a tokenizer that `mm.tokenizers.load` opens, weights as float32; returns its fingerprint.

    Args:
      card: facts for people: where the weights are from, their licence.
    """
    config = {
        "network": dataclasses.asdict(made.network),
        "quantizer": quantizers.to_json(made.quantizer),
    }
    kind = artefact.kind_of(made.network, autoencoder.KINDS)
    arrays = autoencoder.flatten(made.params, made.buffers, "float32")
    return artefact.write(Path(out), kind, config, arrays, dict(card))


def read_artefact(path: Path | str) -> Imported:
    """A tokenizer of `write_artefact`, or of a run that trained one of these networks, to be exported.

    Raises:
      UserError: see `artefact.read`; or it is no tokenizer, or one of another kind.
    """
    path = Path(path)
    meta, arrays = artefact.read(path)
    config = meta["config"]
    network = artefact.settings_of(
        path,
        meta["kind"],
        config.get("network", {}),
        known=autoencoder.KINDS,
        what="tokenizer",
        has="build",
    )
    if not isinstance(network, NETWORKS):
        raise UserError(f"{path}: 4M has no {type(network).__name__}; {WHAT_4M_HAS}")
    quantizer = quantizers.from_json(config["quantizer"])
    tree = traverse_util.unflatten_dict(
        {k: a.astype(np.float32) for k, a in arrays.items()}, sep="."
    )
    return Imported(network, quantizer, tree["network"], tree.get("quantizer", {}))


def state_dict(made: Imported) -> Arrays:
    """Its arrays by 4M's names, float32."""
    buffers = dict(made.buffers)
    if getattr(made.quantizer, "cosine", False):
        buffers.pop("sums", None)  # 4M's cosine codes have none
    flat: Any = traverse_util.flatten_dict(made.params, sep=".") | buffers
    flat = {name: np.asarray(a, np.float32) for name, a in flat.items()}
    theirs = _theirs(made.network, flat) | _fixed(made.network)
    return {name: np.ascontiguousarray(a) for name, a in theirs.items()}


def _theirs(network: Any, flat: Arrays) -> Arrays:
    found: Arrays = {}
    for theirs, (ours, form) in _table(network).items():
        if ours in flat:
            layers = enumerate(flat[ours]) if "{}" in theirs else ((0, flat[ours]),)
            found |= {theirs.format(i): form.theirs(a, _patch(network)) for i, a in layers}
    return found


def _ours(network: Any, shapes: Mapping[str, tuple[int, ...]], found: Arrays) -> Arrays:
    flat: Arrays = {}
    for theirs, (ours, form) in _table(network).items():
        if ours in shapes:
            names = [theirs.format(i) for i in range(shapes[ours][0] if "{}" in theirs else 1)]
            layers = [form.ours(found[name], _patch(network)) for name in names]
            flat[ours] = np.ascontiguousarray(np.stack(layers) if "{}" in theirs else layers[0])
    return flat


def _table(network: Any) -> Table:
    return (VIT if isinstance(network, vit.ViTAutoencoder) else MLP) | BUFFERS


def _patch(network: Any) -> int:
    return getattr(network, "patch", 1)


def _shapes(network: Any, quantizer: Any) -> dict[str, tuple[int, ...]]:
    """Of all our arrays, by path."""
    buffers = jax.eval_shape(quantizer.init, jax.random.key(0))
    flat: Any = traverse_util.flatten_dict(autoencoder.split(network)[1], sep=".") | buffers
    return {name: tuple(a.shape) for name, a in flat.items()}


def _fixed(network: Any) -> Arrays:
    """What stands in their file and is no weight of ours."""
    begun = {} if network.memory else {INITIALISED: np.ones(1, np.float32)}
    if not isinstance(network, vit.ViTAutoencoder):
        return begun
    waves = lambda side, width: np.asarray(vit.positions(side, side, side, width)).T
    positions = {
        f"{name}.pos_emb": waves(side, width).reshape(1, width, side, side)
        for name, (side, width) in network.stored_positions.items()
    }
    return positions | begun


def _check_keys(path: Path, found: Arrays, wanted: Mapping[str, tuple[int, ...]]) -> None:
    missing, unknown = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing or unknown:
        said = [
            f"{what} {listed(names)}"
            for what, names in (("missing keys:", missing), ("unknown keys:", unknown))
            if names
        ]
        raise UserError(f"{path}: {'; '.join(said)}; {WHOLE}")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise UserError(
                f"{path}: {name} is {list(found[name].shape)}, by the rest of the file it must be {list(shape)}; {WHOLE}"
            )
