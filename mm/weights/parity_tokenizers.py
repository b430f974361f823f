"""How far our tokenizers are from 4M's own: a golden set that its code made, computed here and compared.

A set is NAME.safetensors (weights), NAME.json (config) and NAME.npz: inputs `x` and `x_big`, what came of each (`latent`,
`quant`, `tokens`, `rec`), and one training step on `x` (`train_rec`, `train_code_loss`, `ema_embed`, `ema_cluster`).
Arrays of 4M are [B, C, H, W], or [B, H, W] where they are labels or tokens.
"""

import dataclasses
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from einops import rearrange
from etils.epath import Path
from flax import nnx

from mm.errors import UserError
from mm.tokenizers import autoencoder
from mm.tokenizers.given import MEAN, STD
from mm.tokenizers.vit import ViTAutoencoder
from mm.weights.m4_files import Config, File
from mm.weights.m4_tokenizer_settings import number
from mm.weights.m4_tokenizers import Imported, import_tokenizer

OUTPUTS = ("latent", "quant", "tokens", "rec")


def check(stem: Path | str) -> dict[str, float | None]:
    """Largest absolute error of every array of the set NAME at `stem`, but its inputs.

    Returns:
      by the array's name; of tokens the number that differ; infinite for an array of another shape; None for one that is
      not checked: nothing here corresponds to it, or chance made it (codes of a memory are drawn in training).

    Raises:
      UserError: see `import_tokenizer`, `arrays_of` and `laid`; or nothing in the set is checked.
    """
    stem = Path(stem)
    weights, path = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("safetensors", "npz"))
    made, golden = import_tokenizer(weights), arrays_of(path)
    config = File(weights).config
    inputs = {name: a for name, a in golden.items() if name.partition("_")[0] == "x"}
    if config.get("undo_std"):
        inputs = {name: _unstandardised(x) for name, x in inputs.items()}
    found: dict[str, np.ndarray] = {}
    for name, x in inputs.items():
        try:
            outputs = run(made, x)
        except UserError as e:
            raise UserError(f"{path}: {name} {e}") from e
        ids, wanted = outputs["tokens"], golden.get("tokens" + name[1:])
        if ids.ndim == 4 and wanted is not None and wanted.shape != ids.shape:
            outputs["tokens"] = np.moveaxis(ids, 1, -1)  # the codes of a place stand last there
        found |= {output + name[1:]: outputs[output] for output in OUTPUTS}
    if "x" in inputs and any(name.startswith(("train_", "ema_")) for name in golden):
        weight = number(weights, config, "commitment_weight", 1.0)
        found |= trained(made, golden | inputs, config, weight)
    if not found.keys() & golden.keys():
        raise UserError(
            f"{path}: no input x with any of {', '.join(OUTPUTS)}; a golden set of a tokenizer has some"
        )
    return {name: error(found.get(name), a) for name, a in golden.items() if name not in inputs}


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a golden set. Raises UserError: no such file, or one that is damaged."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; a golden set is STEM.safetensors, .npz and .json")
    try:
        with path.open("rb") as f, np.load(f, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: not a readable .npz ({e}); make the golden set again") from e


def _unstandardised(x: np.ndarray) -> np.ndarray:
    """What 4M's `undo_std` makes of ImageNet's standardised pixels [B, 3, H, W]: in [-1, 1]."""
    return 2 * (x * STD[:, None, None] + MEAN[:, None, None]) - 1


def error(found: np.ndarray | None, golden: np.ndarray) -> float | None:
    """Largest absolute difference; of integers, how many differ; None where there are no numbers to compare with."""
    if found is None or not np.issubdtype(golden.dtype, np.number):
        return None
    if found.shape != golden.shape:
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
    """Inputs of 4M: float32[B, C, H, W] as its encoder sees them; labels int[B, H, W]; vectors float32[B, C].

    Raises:
      UserError: no inputs of this tokenizer.
    """
    network = made.network
    if x.ndim == 2 and not isinstance(network, ViTAutoencoder):
        inner = laid(made, x[..., None, None])
        flat = lambda lay: lambda a: lay(a)[..., 0, 0]
        return Laid(*inner[:2], *map(flat, inner[2:]))
    _check_inputs(network, x)
    h, w = x.shape[-2:]
    rows = x if x.ndim == 3 else rearrange(x, "b c h w -> b h w c")
    places = lambda a: rearrange(
        a.reshape(-1, a.shape[-1]), "(b h w) d -> b d h w", b=len(x), h=h, w=w
    )
    one = network.codebooks == 1
    if not isinstance(network, ViTAutoencoder):
        tokens = (lambda a: places(a)[:, 0]) if one else places
        return Laid(network, rows.reshape(-1, network.features), places, places, tokens)
    network = dataclasses.replace(network, height=h, width=w)
    h, w = network.grid.h, network.grid.w
    images = lambda a: rearrange(a, "b h w c -> b c h w")
    places = lambda a: rearrange(a, "b (h w) d -> b d h w", h=h, w=w)
    form = "b (h w) -> b h w" if one else "b (k h w) -> b k h w"
    return Laid(network, rows, places, images, lambda a: rearrange(a, form, h=h, w=w))


def _check_inputs(network: Any, x: np.ndarray) -> None:
    if getattr(network, "labels", 0):
        fits = x.ndim == 3 and np.issubdtype(x.dtype, np.integer)
        fits = fits and x.min() >= 0 and x.max() < network.labels
        takes = f"labels [B, H, W] below {network.labels}"
    else:
        channels = getattr(network, "channels", 0) or network.features
        fits = x.ndim == 4 and x.shape[1] == channels
        takes = f"[B, {channels}, H, W]"
    patch = getattr(network, "patch", 1)
    if not fits or x.shape[-1] % patch or x.shape[-2] % patch:
        raise UserError(
            f"is {x.dtype}{list(x.shape)}, the tokenizer takes {takes} in patches of {patch}; mend the set"
        )


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


def trained(
    made: Imported, golden: Mapping[str, np.ndarray], config: Config, weight: float = 1.0
) -> dict[str, np.ndarray]:
    """One training step on `x`: reconstruction, the codebook's loss times `weight`, and the codebook after it.

    Which latent of the batch a code that fell out of use restarts at, is chance: the one nearest to the set's is taken.
    """
    if made.network.memory:
        return {"train_code_loss": np.zeros(1)}  # its codes are chosen at random in training
    to = laid(made, golden["x"])
    structure, steady = to.structure, dataclasses.replace(made.quantizer, threshold=0.0)

    @jax.jit
    def step(params: Any, buffers: Any, x: jax.Array) -> tuple[Any, ...]:
        net = nnx.merge(structure, params)
        coded = steady.quantize(buffers, net.encode(x), jax.random.key(0))
        total, count = steady.terms(buffers, coded)["commitment"]
        after = steady.update(buffers, coded, jax.random.key(1))
        return net.decode(coded.vectors), total / count, after, coded.latents

    def found(buffers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rec, loss, after, latents = step(made.params, buffers, to.rows)
        names = {"codebook": "ema_embed", "counts": "ema_cluster", "sums": "ema_embed_avg"}
        moved = {names[name]: np.asarray(a) for name, a in after.items()}
        commitment = np.asarray(loss)[None] * weight
        moved |= {"train_rec": to.images(np.asarray(rec)), "train_code_loss": commitment}
        return moved | _restarted(made, golden, config, moved, np.asarray(latents))

    steps = [found(buffers) for buffers in _begun(made, golden)]
    far = lambda step: error(step["ema_embed"], golden["ema_embed"]) or 0.0
    return min(steps, key=far) if "ema_embed" in golden else steps[0]


def _begun(made: Imported, golden: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """What the training step may have begun with: the file's; but where nothing in it has been used yet, every code the
    same number of times, which the set does not say, so that this one number is taken from `ema_cluster`, and running
    sums are the codes or so many times the codes.
    """
    buffers, decay = dict(made.buffers), made.quantizer.decay
    after, ids = golden.get("ema_cluster"), golden.get("tokens")
    if np.any(buffers["counts"]) or after is None or ids is None:
        return [buffers]
    uses = (ids.reshape(-1, 1) == np.arange(made.quantizer.codes)).sum(0)
    if uses.shape != after.shape:
        return [buffers]
    before = np.median(after - (1 - decay) * uses) / decay
    buffers["counts"] = np.full_like(buffers["counts"], before)
    scaled = {"sums": buffers["sums"] * np.float32(before)} if "sums" in buffers else {}
    return [buffers, buffers | scaled] if scaled else [buffers]


def _restarted(
    made: Imported,
    golden: Mapping[str, np.ndarray],
    config: Config,
    moved: Mapping[str, np.ndarray],
    latents: np.ndarray,
) -> dict[str, np.ndarray]:
    """`ema_embed` where some codes are used less than the threshold: these at a direction of the batch, or of a code."""
    book, wanted = moved["ema_embed"], golden.get("ema_embed")
    if wanted is None or wanted.shape != book.shape:
        return {}
    splits = config.get("code_replacement_policy") == "linde_buzo_gray"
    pool = book if splits else latents.reshape(-1, latents.shape[-1])
    pool = pool / np.maximum(np.linalg.norm(pool, axis=-1, keepdims=True), 1e-12)
    restarted = book.copy()
    for i in np.flatnonzero(moved["ema_cluster"] < np.float32(made.quantizer.threshold)):
        restarted[i] = pool[np.abs(wanted[i] - pool).max(-1).argmin()]
    return {"ema_embed": restarted}
