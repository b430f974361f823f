"""The autoencoder task: trains a discrete tokenizer of any kind of data from its raw rows.

The network brings preprocessing, encoder, decoder and reconstruction terms (`mm.tokenizers.autoencoder.Network`);
here is what all of them share: the bottleneck, its statistics, and codes that are replaced in training.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import nnx

from mm import artefact
from mm.errors import UserError
from mm.tasks import Terms
from mm.tokenizers import autoencoder, quantizers
from mm.tokenizers.quantizers import VectorQuantizer, code_terms

WATCHED = 5000  # validation rows whose reconstruction is measured for the card
CHUNK = 500  # of them at a time
QUANTIZER = "quantizer"  # beside the network's weights


@dataclasses.dataclass(kw_only=True, slots=True)
class Autoencode:
    """Settings of the task.

    Attributes:
      column: whose raw rows are learned; the artefact is named after it.
      network: `mm.tokenizers.autoencoder.Settings`, of mm or of the recipe's own.
      quantizer: settings of `mm.tokenizers.quantizers`.
      weights: what each reconstruction term, and the commitment, counts.
      replace: share of codes that the decoder gets from another row of the batch (same place): what a model
        generates is never perfectly consistent, and the decoder must live with a few wrong codes.
      dtype: what the network's weights are stored as.
      card: facts for people (data, licence, steps); figures on validation data are added.
    """

    column: str
    network: Any
    quantizer: Any = dataclasses.field(default_factory=VectorQuantizer)
    weights: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"reconstruction": 1.0, "commitment": 0.25}
    )
    replace: float = 0.0
    dtype: str = "float16"
    card: dict[str, Any] = dataclasses.field(default_factory=dict)

    def validate(self) -> None:
        """Raises UserError for a share outside [0, 1), settings of the network that make no sense, or latents
        that the quantizer does not fit."""
        if hasattr(self.network, "validate"):
            self.network.validate()
        self.quantizer.validate()
        if self.network.latent != self.quantizer.width:
            raise UserError(
                f"config.task.network.latent={self.network.latent}: the quantizer takes {self.quantizer.width} features; make them equal"
            )
        if not 0 <= self.replace < 1:
            raise UserError(
                f"config.task.replace={self.replace}: a share of codes, at least 0 and below 1; change it"
            )

    def build(self, data: Any) -> "AutoencoderTask":
        """Raises UserError: see `autoencoder.check_network`; or no term of the network has a weight."""
        terms = autoencoder.check_network(self.network)
        if not terms & self.weights.keys():
            raise UserError(
                f"config.task.weights: of the network's terms ({', '.join(sorted(terms))}) none has a weight; add one"
            )
        return AutoencoderTask(self, data)


class AutoencoderTask:
    """See `mm.tasks.Task`. A batch is {column: raw rows [B, ...], ...}."""

    def __init__(self, settings: Autoencode, data: Any):
        self.settings, self.data = settings, data
        self.weights: Mapping[str, float] = settings.weights
        self.structure, _ = autoencoder.split(settings.network)

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fresh weights of the network, with those that the quantizer learns as `QUANTIZER`; and its buffers."""
        of_network, of_quantizer = jax.random.split(key)
        network = self.settings.network.build(nnx.Rngs(params=of_network))
        params, quantizer = nnx.to_pure_dict(nnx.state(network)), self.settings.quantizer
        kept = quantizer.init(of_quantizer)
        learned = {name: kept.pop(name) for name in sorted(quantizer.learned)}
        return params | ({QUANTIZER: learned} if learned else {}), kept

    def parts(self, params: Any, buffers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The network's weights, and all of the quantizer's arrays."""
        network = {name: tree for name, tree in params.items() if name != QUANTIZER}
        return network, buffers | params.get(QUANTIZER, {})

    def loss(self, params: Any, buffers: Any, batch: Any, key: jax.Array) -> tuple[Terms, Any]:
        """Terms: the network's own, `commitment` (if codes are learned), and the metrics `usage` and `perplexity`.

        Raises:
          UserError: the rows are not what the network says it takes (when the step is traced).
        """
        self._check_rows(batch[self.settings.column])
        of_replacing, of_update = jax.random.split(key)
        weights, arrays = self.parts(params, buffers)
        network, quantizer = nnx.merge(self.structure, weights), self.settings.quantizer
        x = network.prepare(batch[self.settings.column])
        coded = quantizer.quantize(arrays, network.encode(x), jax.random.fold_in(key, 2))
        others = jax.lax.stop_gradient(quantizer.lookup(arrays, coded.ids))
        vectors = replaced(coded.vectors, others, self.settings.replace, of_replacing)
        terms = autoencoder.training_terms(network, vectors, x, jax.random.fold_in(key, 3))
        return terms | quantizer.terms(arrays, coded), quantizer.update(buffers, coded, of_update)

    def _check_rows(self, rows: Any) -> None:
        takes = self.settings.network.row
        if (rows.shape[1:], rows.dtype) != (takes.shape, takes.dtype):
            raise UserError(
                f"config.task.network: takes rows {takes.dtype}{list(takes.shape)}, those of "
                f"{self.settings.column!r} are {rows.dtype}{list(rows.shape[1:])}; make its settings and the source's equal"
            )

    def export(self, params: Any, buffers: Any, folder: Path) -> Path:
        """Writes `folder`/`column`.safetensors; its card says how well validation rows come back."""
        s = self.settings
        config = {
            "network": dataclasses.asdict(s.network),
            "quantizer": quantizers.to_json(s.quantizer),
        }
        figures = self.figures(params, buffers)
        path = folder / f"{s.column}.safetensors"
        arrays = autoencoder.flatten(*self.parts(params, buffers), s.dtype)
        kind = artefact.kind_of(s.network, autoencoder.KINDS)
        artefact.write(path, kind, config, arrays, s.card | {"validation": figures})
        return path

    def figures(self, params: Any, buffers: Any) -> dict[str, float]:
        """Mean reconstruction terms and code usage on validation rows."""
        column = self.data.raw("validation")[self.settings.column]
        quantizer = self.settings.quantizer

        @jax.jit
        def run(params: Any, buffers: Any, rows: jax.Array) -> tuple[Terms, jax.Array]:
            weights, arrays = self.parts(params, buffers)
            network = nnx.merge(self.structure, weights)
            x = network.prepare(rows)
            coded = quantizer.quantize(arrays, network.encode(x))
            # what comes back through ids, also where training lets more than they say through
            out = network.decode(quantizer.lookup(arrays, coded.ids))
            return network.terms(out, x) | quantizer.terms(arrays, coded), coded.ids

        rows = np.arange(min(len(column), WATCHED))
        parts = [
            run(params, buffers, column[part])
            for part in np.array_split(rows, -(-len(rows) // CHUNK))
        ]
        terms = jax.tree.map(lambda *x: float(sum(x)), *(p[0] for p in parts))
        terms |= code_terms(jnp.concatenate([p[1] for p in parts]), quantizer.codes)
        return {name: round(float(s) / max(float(c), 1.0), 5) for name, (s, c) in terms.items()}


def replaced(
    vectors_bnd: jax.Array, others_bnd: jax.Array, share: float, key: jax.Array
) -> jax.Array:
    """Replaces a random share of code vectors by those of other rows of the batch at the same place.

    Args:
      vectors_bnd: float32[B, n, d]. others_bnd: float32[B, n, d], the same without a gradient.
      share: each code's probability to be replaced, in half of the rows doubled and in half of them 0, so that
        clean sequences stay what the decoder knows best.
    """
    if share == 0:
        return vectors_bnd
    of_rows, of_codes, of_shift = jax.random.split(key, 3)
    b, n, _ = vectors_bnd.shape
    rows = jax.random.bernoulli(of_rows, 0.5, (b, 1))
    hit = rows & jax.random.bernoulli(of_codes, min(2 * share, 1.0), (b, n))
    donors = (jnp.arange(b)[:, None] + jax.random.randint(of_shift, (1, n), 1, max(b, 2))) % b
    return jnp.where(hit[..., None], others_bnd[donors, jnp.arange(n)], vectors_bnd)
