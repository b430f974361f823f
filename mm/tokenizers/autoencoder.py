"""Discrete autoencoders in use: raw rows -> ids -> raw rows, with weights from an artefact.

`Settings` say what the rows of one kind of data are and build the `Network` for them; both may stand in a recipe's
file (docs/add_a_modality.md). Everything here and in `mm.tasks.tokenizer` serves any kind.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import nnx, traverse_util

from mm import artefact
from mm.chunks import mapped
from mm.errors import UserError
from mm.space import Grid, Modality, Vector, Vocabulary
from mm.tasks import Terms
from mm.tokenizers import quantizers
from mm.tokenizers.arrays import read_array, write_array
from mm.tokenizers.audio import AudioAutoencoder
from mm.tokenizers.files import write_picture
from mm.tokenizers.image import ImageAutoencoder

KINDS: dict[str, Any] = {"image": ImageAutoencoder, "audio": AudioAutoencoder}
"""Settings that artefacts call by a short name; others by the class's own (`mm.parts`)."""

CHUNK = 2048, 4 << 20  # rows of a compiled call, and bytes of them, at most


class Settings(Protocol):
    """One kind of data and its network: a dataclass whose fields are JSON-ready (or such dataclasses).

    It may have more. `validate()` raises UserError for settings that make no sense. `picture(row)` is
    what a person sees of a row, uint8[H, W] or [H, W, 3], wherever rows are looked at. `read_file(path)`
    brings a user's file to the form of the training data, `write_file(row, stem)` writes a row and
    returns the path; without them files are .npy arrays (`mm.tokenizers.arrays`). `limits` are the
    least and largest value that a row can have. `measures(raw, decoded)` -> {name: figure} is what evaluation shows of
    reconstructions beside its own.

    Attributes:
      latent: features of a latent.
      row: shape and dtype of a raw row.
      grid: the places of its latents.
    """

    @property
    def latent(self) -> int: ...

    @property
    def row(self) -> jax.ShapeDtypeStruct: ...

    @property
    def grid(self) -> Grid | Vector: ...

    def build(self, rngs: nnx.Rngs) -> "Network": ...


class Network(Protocol):
    """The module between raw rows and latents: an `nnx.Module`. Everything is traced; B rows at a time.

    One whose decoder does not learn by what it decodes (diffusion) has `learn(vectors_bnd, x, key) -> Terms` too: the terms of
    a training step, instead of those of `decode`'s output.
    """

    def prepare(self, raw: jax.Array) -> jax.Array:
        """Raw rows -> float32[B, ...], what the encoder sees and what is reconstructed."""
        ...

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[B, ...] -> latents float32[B, n, d]."""
        ...

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, n, d] -> reconstruction float32[B, ...] (logits, a spectrum, ...)."""
        ...

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """Reconstruction terms of `decode`'s output against `prepare`'s."""
        ...

    def render(self, out: jax.Array) -> jax.Array:
        """`decode`'s output -> raw rows."""
        ...


def flatten(network: dict[str, Any], buffers: dict[str, Any], dtype: str) -> dict[str, np.ndarray]:
    """Weights as an artefact's arrays: "network.encoder...", stored as `dtype`, and "quantizer...", as they are."""
    flat = traverse_util.flatten_dict({"network": network, "quantizer": buffers}, sep=".")
    kept = {name: np.asarray(a) for name, a in jax.device_get(flat).items()}
    return {name: a.astype(dtype) if name.startswith("network.") else a for name, a in kept.items()}


def split(settings: Settings) -> tuple[nnx.GraphDef, dict[str, Any]]:
    """The network's structure without its arrays, and their shapes as a plain nested dict.

    `nnx.merge(structure, params)` takes such a dict of arrays.
    """
    structure, state = nnx.split(nnx.eval_shape(lambda: settings.build(nnx.Rngs(0))))
    return structure, nnx.to_pure_dict(state)


def layout_of(grid: Grid | Vector, per_latent: int) -> Grid | Vector:
    """The places of codes: a latent's codes stand beside each other, in the order of the quantizer's."""
    if isinstance(grid, Vector):
        return dataclasses.replace(grid, n=grid.n * per_latent)
    return dataclasses.replace(grid, w=grid.w * per_latent)


def check_network(settings: Settings) -> set[str]:
    """Traces the network once with 2 rows, computing nothing; returns the names of its terms.

    Raises:
      UserError: its parts do not give what the settings say. Errors of its own are not caught.
    """
    rows = jax.ShapeDtypeStruct((2, *settings.row.shape), settings.row.dtype)
    codes = jax.ShapeDtypeStruct((2, settings.grid.size, settings.latent), np.float32)

    def run(rows: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array, Terms]:
        network = settings.build(nnx.Rngs(0))
        x, out = network.prepare(rows), network.decode(codes)
        return (
            network.encode(x),
            network.render(out),
            training_terms(network, codes, x, jax.random.key(0)),
        )

    encoded, rendered, terms = jax.eval_shape(run, rows, codes)
    for part, wanted, found in (("encode", codes, encoded), ("render", rows, rendered)):
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise UserError(
                f"config.task.network: {part} of {type(settings).__name__}'s network gives "
                f"{_form(found)} of 2 rows; by its row, grid and latent it must be {_form(wanted)}"
            )
    return set(terms)


def training_terms(network: Any, vectors_bnd: jax.Array, x: jax.Array, key: jax.Array) -> Terms:
    """Terms of a training step of which the decoder is given these vectors; see `Network`."""
    if hasattr(network, "learn"):
        return network.learn(vectors_bnd, x, key)
    return network.terms(network.decode(vectors_bnd), x)


def _form(array: Any) -> str:
    return f"{np.dtype(array.dtype)}{list(array.shape)}"


class AutoencoderTokenizer:
    """See `mm.tokenizers.Tokenizer`. Runs in chunks of few fixed sizes, so that nothing is compiled twice.

    Attributes:
      settings: of its network.
    """

    def __init__(
        self, path: Path, *, name: str, meta: dict[str, Any], arrays: dict[str, np.ndarray]
    ):
        """Args:
        path: where `meta` and `arrays` were read, for messages.

        Raises:
          UserError: see `artefact.settings_of`; or the weights are those of another network.
        """
        config = meta["config"]
        self.settings: Any = artefact.settings_of(
            path, meta["kind"], config["network"], known=KINDS, what="tokenizer", has="build"
        )
        self._quantizer = quantizers.from_json(config["quantizer"])
        tree = traverse_util.unflatten_dict(dict(arrays), sep=".")
        structure, shapes = split(self.settings)
        _check_weights(path, meta["kind"], tree["network"], shapes)
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree["network"])
        self._weights = (params, jax.tree.map(jnp.asarray, tree.get("quantizer", {})))
        self._codes: int = self._quantizer.codes
        table = self._quantizer.table(self._weights[1])
        self.vectors: np.ndarray | None = None if table is None else np.asarray(table, np.float32)
        vocabulary = Vocabulary(name=name, size=self._codes)
        layout = layout_of(self.settings.grid, self._quantizer.per_latent)
        self.modality = Modality(name=name, vocabulary=vocabulary, layout=layout)
        self.fingerprint: str = meta["fingerprint"]
        self.card: dict[str, Any] = meta["card"]
        self._chunks = _chunks(self.settings.row)
        self._compile(structure)

    def _compile(self, structure: nnx.GraphDef) -> None:
        bottleneck = self._quantizer

        @jax.jit
        def encode(weights: Any, raw: jax.Array) -> jax.Array:
            network = nnx.merge(structure, weights[0])
            coded = bottleneck.quantize(weights[1], network.encode(network.prepare(raw)))
            return coded.ids.reshape(len(raw), -1)

        @jax.jit
        def decode(weights: Any, ids: jax.Array) -> jax.Array:
            network = nnx.merge(structure, weights[0])
            if bottleneck.per_latent > 1:
                ids = ids.reshape(*ids.shape[:-1], -1, bottleneck.per_latent)
            return network.render(network.decode(bottleneck.lookup(weights[1], ids)))

        self._encode, self._decode = encode, decode

    def compiled(self, part: str) -> tuple[Any, int]:
        """The program of `encode` or `decode` for its largest call, compiled anew, to be measured; and its rows."""
        rows = self._chunks[-1]
        shape = jax.ShapeDtypeStruct((rows, *self.settings.row.shape), self.settings.row.dtype)
        if part == "decode":
            shape = jax.ShapeDtypeStruct((rows, self.modality.size), np.int32)
        run = {"encode": self._encode, "decode": self._decode}[part]
        return run.lower(self._weights, shape).compile(), rows

    def encode(self, raw: Any) -> tuple[np.ndarray, np.ndarray]:
        """Raw rows [n, ...] -> ids int32[n, places] in the order of the grid, lengths int32[n], all of them places.

        Raises:
          ValueError: rows of another shape or dtype than the settings'.
        """
        raw, row = np.asarray(raw), self.settings.row
        if raw.shape[1:] != row.shape or raw.dtype != row.dtype:
            wanted = ", ".join(map(str, ("n", *row.shape)))
            raise ValueError(
                f"rows of {self.modality.name!r} are {np.dtype(row.dtype)}[{wanted}], not {_form(raw)}"
            )
        return self._mapped(self._encode, raw), np.full(len(raw), self.modality.size, np.int32)

    def decode(self, ids: np.ndarray, length: np.ndarray | None = None) -> np.ndarray:
        """ids int[n, places] -> raw rows [n, ...]. Ids outside the vocabulary count as its nearest end."""
        ids = np.clip(np.asarray(ids), 0, self._codes - 1).astype(np.int32)
        return self._mapped(self._decode, ids)

    def read_file(self, path: Path | str) -> np.ndarray:
        """A user's file -> a raw row, as the settings read it. Raises UserError: as they do."""
        read = getattr(self.settings, "read_file", None)
        return read(Path(path)) if read else read_array(Path(path), self.settings.row)

    def write_file(self, raw: np.ndarray, stem: Path) -> Path:
        """A raw row -> a file, as the settings write it, and its picture beside it, if they make one.

        Returns:
          the path of the picture, or else of the file.
        """
        path = getattr(self.settings, "write_file", write_array)(raw, Path(stem))
        picture = getattr(self.settings, "picture", None)
        return write_picture(picture(raw), Path(stem)) if picture else path

    def _mapped(self, run: Callable[[Any, np.ndarray], jax.Array], rows: np.ndarray) -> np.ndarray:
        return mapped(lambda part: run(self._weights, part), rows, self._chunks)


def _chunks(row: jax.ShapeDtypeStruct) -> list[int]:
    """Sizes of calls: what is left over runs in the smallest that holds it."""
    most, size = CHUNK
    fitting = max(size // max(row.size * np.dtype(row.dtype).itemsize, 1), 1)
    largest = min(most, 1 << (fitting.bit_length() - 1))
    return sorted({max(largest // d, 1) for d in (1, 8, 128)})


def _check_weights(path: Path, kind: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    there, here = _shapes(found), _shapes(wanted)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UserError(
                f"{path}: {name} is {there.get(name, 'missing')} there, and {here.get(name, 'missing')} in the "
                f"network that {kind} builds now; train it anew, or bring the network back"
            )


def _shapes(tree: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    flat: Any = traverse_util.flatten_dict(tree, sep=".")
    return {name: tuple(a.shape) for name, a in flat.items()}
