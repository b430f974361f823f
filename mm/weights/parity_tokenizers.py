"""How far our tokenizers are from 4M's own: a golden set that its code made, computed here and compared.

A set is NAME.safetensors (weights), NAME.json (config) and NAME.npz: inputs `x` and `x_big`, what came of each (`latent`,
`quant`, `tokens`, `rec`), and one training step on `x` (`train_rec`, `train_code_loss`, `ema_embed`, `ema_cluster`).
Arrays of 4M are [B, C, H, W], or [B, H, W] where they are labels or tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from einops import rearrange
from etils.epath import Path
from flax import nnx

from mm.errors import UserError
from mm.tokenizers import autoencoder
from mm.tokenizers.vit import ViTAutoencoder
from mm.weights.m4_tokenizers import Imported, import_tokenizer

OUTPUTS = ("latent", "quant", "tokens", "rec")


def check(stem: Path | str) -> dict[str, float]:
    """Largest absolute error of every array of the set NAME at `stem`, but its inputs.

    Returns:
      by the array's name; of tokens the number that differ; infinite for an array that nothing here corresponds to, or
      that has another shape.

    Raises:
      UserError: see `import_tokenizer`; or there is no NAME.npz.
    """
    stem = Path(stem)
    made = import_tokenizer(stem.with_name(f"{stem.name}.safetensors"))
    path = stem.with_name(f"{stem.name}.npz")
    if not path.is_file():
        raise UserError(f"{path}: no such file; a golden set has its arrays there")
    with path.open("rb") as f, np.load(f) as file:
        golden = {name: file[name] for name in file.files}
    inputs = [name for name in golden if name.partition("_")[0] == "x"]
    found: dict[str, np.ndarray] = {}
    for name in inputs:
        outputs = run(made, golden[name])
        ids, wanted = outputs["tokens"], golden.get("tokens" + name[1:])
        if ids.ndim == 4 and wanted is not None and wanted.shape != ids.shape:
            outputs["tokens"] = np.moveaxis(ids, 1, -1)  # the codes of a place stand last there
        found |= {output + name[1:]: outputs[output] for output in OUTPUTS}
    if any(name.startswith(("train_", "ema_")) for name in golden):
        found |= trained(made, golden)
    return {name: error(found.get(name), a) for name, a in golden.items() if name not in inputs}


def error(found: np.ndarray | None, golden: np.ndarray) -> float:
    """Largest absolute difference; of integers, how many differ."""
    if found is None or found.shape != golden.shape:
        return float("inf")
    if np.issubdtype(golden.dtype, np.integer):
        return float((found != golden).sum())
    return float(np.abs(found - golden.astype(np.float64)).max())


class Laid(NamedTuple):
    """A tokenizer for inputs of one size, and their layouts there and here.

    Attributes:
      network: its settings. rows: the inputs as ours, [B, H, W, C], labels [B, H, W], or vectors [B h w, C].
      planes: features of places, with the last axis their own, -> [B, d, h, w]. images: `decode`'s output -> [B, C, H, W].
      tokens: ids -> [B, h, w], [B, k, h, w] where places have several.
    """

    network: Any
    rows: np.ndarray
    planes: Callable[[np.ndarray], np.ndarray]
    images: Callable[[np.ndarray], np.ndarray]
    tokens: Callable[[np.ndarray], np.ndarray]

    @property
    def structure(self) -> nnx.GraphDef:
        return autoencoder.split(self.network)[0]


def laid(made: Imported, x: np.ndarray) -> Laid:
    """Inputs of 4M: float32[B, C, H, W] as its encoder sees them; labels int[B, H, W]; vectors float32[B, C]."""
    if x.ndim == 2:
        inner = laid(made, x[..., None, None])
        flat = lambda lay: lambda a: lay(a)[..., 0, 0]
        return Laid(*inner[:2], *map(flat, inner[2:]))
    network, (h, w) = made.network, x.shape[-2:]
    rows = x if x.ndim == 3 else rearrange(x, "b c h w -> b h w c")
    places = lambda a: rearrange(
        a.reshape(-1, a.shape[-1]), "(b h w) d -> b d h w", b=len(x), h=h, w=w
    )
    if not isinstance(network, ViTAutoencoder):
        several = network.codebooks > 1 or network.memory
        tokens = places if several else lambda a: places(a)[:, 0]
        return Laid(network, rows.reshape(-1, network.features), places, places, tokens)
    network = dataclasses.replace(network, height=h, width=w)
    h, w = network.grid.h, network.grid.w
    images = lambda a: rearrange(a, "b h w c -> b c h w")
    one = network.codebooks == 1 and not network.memory
    form = "b (h w) -> b h w" if one else "b (k h w) -> b k h w"
    return Laid(network, rows, places, images, lambda a: rearrange(a, form, h=h, w=w))


def run(made: Imported, x: np.ndarray) -> dict[str, np.ndarray]:
    """What a tokenizer makes of 4M's inputs, in 4M's layout: `OUTPUTS`; see `laid`."""
    to = laid(made, x)
    structure = to.structure

    @jax.jit
    def outputs(params: Any, buffers: Any, x: jax.Array) -> tuple[jax.Array, ...]:
        net = nnx.merge(structure, params)
        ids = made.quantizer.quantize(buffers, net.encode(x)).ids
        vectors = made.quantizer.lookup(buffers, ids)
        return net.features(x), net.projection.joined(vectors), ids, net.decode(vectors)

    found = map(np.asarray, outputs(made.params, made.buffers, to.rows))
    layouts = (to.planes, to.planes, to.tokens, to.images)
    return {name: lay(a) for name, lay, a in zip(OUTPUTS, layouts, found, strict=True)}


def trained(made: Imported, golden: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One training step on `x`: reconstruction, the codebook's loss, and the codebook after it.

    The step begins with equal cluster sizes where the file's are all zero, as nothing has been used yet; the set does
    not say how large, so that one number is taken from `ema_cluster`.
    """
    if made.network.memory:
        return {"train_code_loss": np.zeros(1)}  # its codes are chosen at random in training
    to, buffers = laid(made, golden["x"]), dict(made.buffers)
    structure, decay = to.structure, made.quantizer.decay
    if not np.any(buffers["counts"]) and {"ema_cluster", "tokens"} <= golden.keys():
        uses = np.bincount(golden["tokens"].ravel(), minlength=made.quantizer.codes)
        before = np.median(golden["ema_cluster"] - (1 - decay) * uses) / decay
        buffers["counts"] = np.full_like(buffers["counts"], before)

    @jax.jit
    def step(params: Any, buffers: Any, x: jax.Array) -> tuple[Any, Any, Any]:
        net = nnx.merge(structure, params)
        coded = made.quantizer.quantize(buffers, net.encode(x), jax.random.key(0))
        total, count = made.quantizer.terms(buffers, coded)["commitment"]
        after = made.quantizer.update(buffers, coded, jax.random.key(1))
        return net.decode(coded.vectors), total / count, after

    rec, loss, after = step(made.params, buffers, to.rows)
    names = {"codebook": "ema_embed", "counts": "ema_cluster", "sums": "ema_embed_avg"}
    found = {names[name]: np.asarray(a) for name, a in after.items()}
    return found | {
        "train_rec": to.images(np.asarray(rec)),
        "train_code_loss": np.asarray(loss)[None],
    }
