"""Discrete autoencoders in use: raw rows -> ids -> raw rows, with weights from an artefact.

The network is any NNX module that follows `Network`: it brings its own preprocessing, encoder, decoder and
reconstruction terms, so that everything here and in `mm.tasks.tokenizer` serves any kind of data.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from mm.tasks import Terms
from mm.tokenizers import quantizers


class Network(Protocol):
    """The module between raw rows and latents. Everything is traced; B rows at a time."""

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


def quantizer_config(quantizer: Any) -> dict[str, Any]:
    """A quantizer's settings as an artefact's config: {"kind": ..., fields ...}."""
    kind = {cls: name for name, cls in quantizers.KINDS.items()}[type(quantizer)]
    return {"kind": kind} | dataclasses.asdict(quantizer)


def split(settings: Any) -> nnx.GraphDef:
    """The network's structure without its arrays; `nnx.merge(structure, params)` takes a plain nested dict."""
    return nnx.split(nnx.eval_shape(lambda: settings.build(nnx.Rngs(0))))[0]


class Autoencoder:
    """A trained network and its quantizer, run in chunks of few fixed sizes, so that nothing is compiled twice.

    Attributes:
      codes: size of the vocabulary.
      vectors: what each code stands for, float32[codes, d].
    """

    def __init__(
        self,
        settings: Any,
        quantizer: dict[str, Any],
        arrays: dict[str, np.ndarray],
        chunk: int = 2048,
    ):
        """Args:
        settings: the network's settings, with `build(rngs) -> Network`.
        quantizer: what `quantizer_config` wrote.
        arrays: what `flatten` wrote.
        chunk: rows per call; what is left over runs in the smallest chunk of `chunk`, `chunk`/8, .. that holds it.
        """
        fields = {k: v for k, v in quantizer.items() if k != "kind"}
        self._quantizer = quantizers.KINDS[quantizer["kind"]](**fields)
        tree = traverse_util.unflatten_dict(dict(arrays), sep=".")
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree["network"])
        self._weights = (params, jax.tree.map(jnp.asarray, tree.get("quantizer", {})))
        self._chunks = sorted({max(chunk // d, 1) for d in (1, 8, 128)})
        self.codes = self._quantizer.codes
        self.vectors = np.asarray(
            self._quantizer.lookup(self._weights[1], jnp.arange(self.codes)), np.float32
        )
        structure, bottleneck = split(settings), self._quantizer

        @jax.jit
        def encode(weights: Any, raw: jax.Array) -> jax.Array:
            network = nnx.merge(structure, weights[0])
            return bottleneck.quantize(weights[1], network.encode(network.prepare(raw))).ids

        @jax.jit
        def decode(weights: Any, ids: jax.Array) -> jax.Array:
            network = nnx.merge(structure, weights[0])
            return network.render(network.decode(bottleneck.lookup(weights[1], ids)))

        self._encode, self._decode = encode, decode

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Raw rows [n, ...] -> ids int32[n, places]."""
        return self._chunked(self._encode, raw)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """ids int[n, places] -> raw rows [n, ...]. Ids outside the vocabulary count as its nearest end."""
        return self._chunked(self._decode, np.clip(ids, 0, self.codes - 1).astype(np.int32))

    def _chunked(self, run: Callable[[Any, np.ndarray], jax.Array], rows: np.ndarray) -> np.ndarray:
        parts, start = [], 0
        while start < len(rows) or not parts:
            left = len(rows) - start
            size = next((c for c in self._chunks if c >= left), self._chunks[-1])
            part = rows[start : start + size]
            padded = np.concatenate(
                [part, np.zeros((size - len(part), *rows.shape[1:]), rows.dtype)]
            )
            parts.append(np.asarray(run(self._weights, padded))[: len(part)])
            start += size
        return np.concatenate(parts)
