"""What a trained joint model does with tokens: embed, read features, generate, score. `JointTask` inherits it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm.errors import UserError
from mm.generate.grammar import Tables
from mm.generate.sampling import Sampler, guided, sample_parallel, sample_sequence
from mm.models.adapters import without_adapters
from mm.models.encoder_decoder import EncoderDecoder
from mm.space import TokenSpace, View

Tokens = tuple[np.ndarray, np.ndarray]
"""(ids int32[n, size], length int32[n]) of one modality; (values float32[n, size, features], length) of a dense one."""


class TokenCalls:
    """Calls on whole modalities. Work is cut into chunks of one static size, so that each compiles once.

    Attributes:
      settings: `mm.tasks.joint.Joint`. graph: of the module.
    """

    settings: Any
    space: TokenSpace
    graph: nnx.GraphDef[EncoderDecoder]

    def __init__(self) -> None:
        self._jitted: dict[Any, Callable] = {}

    def model(self, params: Any) -> EncoderDecoder:
        """The module with these parameters."""
        return nnx.merge(self.graph, without_adapters(params))

    def embed(self, params: Any, inputs: Mapping[str, Tokens], *, chunk: int = 256) -> np.ndarray:
        """float32[n, E], unit rows: of one modality its unimodal embedding, of several their fused embedding.

        Raises:
          UserError: no or unknown modalities.
        """
        names = self._ordered(inputs)
        if not self.settings.model.embed_dim:
            raise UserError(
                "this model has no embeddings (embed_dim=0); train contrast, or use `features`"
            )

        def embed(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            model, view = self.model(params), self._view(names, ids, length)
            if len(names) == 1:
                return model.embed_unimodal(view, jnp.array([self.space.index(names[0])]))
            return model.embed_fused(model.encode(view), view)

        return self._chunked(("embed", names), embed, params, [inputs[n] for n in names], chunk)

    def features(
        self, params: Any, inputs: Mapping[str, Tokens], layer: int, *, chunk: int = 256
    ) -> np.ndarray:
        """Mean over tokens of the encoder's state after `layer` layers (1 ..), float32[n, D]."""
        names = self._ordered(inputs)
        if not 1 <= layer <= self.settings.model.encoder_layers:
            raise UserError(
                f"layer={layer}: the encoder has layers 1 .. {self.settings.model.encoder_layers}"
            )

        def features(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            view = self._view(names, ids, length)
            model = self.model(params)
            states = model.without_registers(model.encode(view, layers=layer)).astype(jnp.float32)
            return (states * view.mask[..., None]).sum(1) / jnp.maximum(
                view.mask.sum(1, keepdims=True), 1
            )

        return self._chunked(
            ("features", names, layer), features, params, [inputs[n] for n in names], chunk
        )

    def generate(
        self, params: Any, inputs: Mapping[str, Tokens], target: str, *, key: jax.Array, sampler: Sampler | None = None,
        prompt: tuple[np.ndarray, np.ndarray] | None = None, rows: int | None = None,
        grammar: Tables | None = None, chunk: int = 256,
    ) -> Tokens:  # fmt: skip
        """Samples `target` given all of `inputs` (which may be empty: then `rows` says how many).

        Args:
          sampler: None = the one that the settings name for `target`.
          prompt: what is known of the target: (ids int32[size], known bool[size]), the same for all rows, or [n, size] each.
          grammar: of a sequence, what may come next (a tokenizer's `grammar`).

        Returns:
          ids int32[n, size], length int32[n].
        """
        names, m = self._ordered(inputs, least=0), self.space[self._known(target)]
        how = sampler or self.settings.samplers.get(target, Sampler())
        count = len(inputs[names[0]][0]) if names else rows or 1
        ids, known = (
            (np.zeros(m.size, np.int32), np.zeros(m.size, bool)) if prompt is None else prompt
        )
        ids, known = (np.broadcast_to(a, (count, m.size)) for a in (ids, known))
        seeds = np.asarray(jax.random.bits(key, (count,), "uint32"))

        def generate(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            *sources, given, known = ids
            predict = self._predictor(
                params, names, sources, length[: len(names)], target, how.guidance
            )
            chunk_key = jax.random.fold_in(jax.random.key(0), length[-1][0])
            known = known.astype(bool)
            if m.order == "left_to_right":
                return sample_sequence(predict, given, known, chunk_key, how, grammar)
            return sample_parallel(predict, given, known, chunk_key, how)

        columns = [inputs[n] for n in names] + [(ids, seeds), (known.astype(np.int32), seeds)]
        out = self._chunked(
            ("generate", names, target, how, grammar), generate, params, columns, chunk
        )
        return out, self._lengths(out, m)

    def score(
        self,
        params: Any,
        inputs: Mapping[str, Tokens],
        target: str,
        tokens: Tokens,
        *,
        key: jax.Array,
        chunk: int = 256,
    ) -> np.ndarray:
        """log p(target | inputs) in nats, float32[n], by the chain rule along one order of the places.

        Sequences are read left to right, parallel modalities in one random order (drawn from `key`) shared by all
        rows, so scores of different targets for one input compare. Exact for the model's law in that order.
        """
        names, m = self._ordered(inputs, least=0), self.space[self._known(target)]
        order = np.arange(m.size)
        if m.order != "left_to_right":
            order = np.asarray(jax.random.permutation(key, m.size))
        rank = jnp.asarray(np.argsort(order))

        def score(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            *sources, given = ids
            predict = self._predictor(params, names, sources, length[:-1], target, 1.0)
            valid = jnp.arange(m.size) < length[-1][:, None]

            def step(i: jax.Array, total: jax.Array) -> jax.Array:
                log_p = jax.nn.log_softmax(predict(given, valid & (rank < i)))
                picked = jnp.take_along_axis(log_p, given[..., None], axis=-1)[..., 0]
                return total + jnp.where((rank == i) & valid, picked, 0).sum(1)

            return jax.lax.fori_loop(0, m.size, step, jnp.zeros(given.shape[0]))

        columns = [inputs[n] for n in names] + [tokens]
        return self._chunked(("score", names, target, tuple(order)), score, params, columns, chunk)

    def _predictor(
        self,
        params: Any,
        names: tuple[str, ...],
        sources: list[jax.Array],
        length: list[jax.Array],
        target: str,
        guidance: float,
    ) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """(ids, known) of the target -> logits for all its places, the sources and the known places read anew."""
        model, m = self.model(params), self.space[target]
        places = self.space.starts[target] + jnp.arange(m.size, dtype=jnp.int32)

        def logits(ids: jax.Array, known: jax.Array, seen: bool) -> jax.Array:
            own = View(ids + self.space.offset(target), jnp.broadcast_to(places, ids.shape), known)
            view = _join(self._view(names, sources, length), own) if seen and names else own
            queries = View(own.ids, own.place, ~known)
            return model.logits(model.decode(queries, model.encode(view), view), target)

        def predict(ids: jax.Array, known: jax.Array) -> jax.Array:
            if guidance == 1.0 or not names:
                return logits(ids, known, True)
            return guided(logits(ids, known, True), logits(ids, known, False), guidance)

        return predict

    def _view(self, names: tuple[str, ...], ids: list[jax.Array], length: list[jax.Array]) -> View:
        """All tokens of some modalities, side by side."""
        parts = []
        for name, given, n in zip(names, ids, length, strict=True):
            shape, dense = given.shape[:2], self.space[name].vocabulary is None
            row = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
            said = row if dense else given + self.space.offset(name)
            values = {name: given} if dense else {}
            there = row < n[:, None]
            parts.append(View(said, row + self.space.starts[name], there, values=values))
        view = parts[0]
        for part in parts[1:]:
            view = _join(view, part)
        return view

    def _lengths(self, ids: np.ndarray, m: Any) -> np.ndarray:
        """Up to and with the first eos; all places where there is none."""
        if m.vocabulary.eos is None:
            return np.full(len(ids), m.size, np.int32)
        ended = ids == m.vocabulary.eos
        return np.where(ended.any(1), ended.argmax(1) + 1, m.size).astype(np.int32)

    def _known(self, name: str) -> str:
        if name not in self.space.names:
            raise UserError(f"modality {name!r}: the model has {', '.join(self.space.names)}")
        return name

    def _ordered(self, inputs: Mapping[str, Any], least: int = 1) -> tuple[str, ...]:
        """The inputs' names in the space's order."""
        for name in inputs:
            self._known(name)
        if len(inputs) < least:
            raise UserError(f"no input modality given; the model has {', '.join(self.space.names)}")
        return tuple(n for n in self.space.names if n in inputs)

    def _chunked(
        self, name: Any, function: Callable, params: Any, columns: list[Tokens], chunk: int
    ) -> np.ndarray:
        """Maps `function(params, ids, lengths)` over rows in chunks padded to one size; compiled once per `name`."""
        count = len(columns[0][0])
        chunk = min(chunk, 1 << max(count - 1, 0).bit_length())  # few rows: a small program
        jitted = self._jitted.setdefault((name, chunk), jax.jit(function))
        out = []
        for start in range(0, count, chunk):
            rows = np.minimum(np.arange(start, start + chunk), count - 1)
            ids = [_as_given(np.asarray(c[0])[rows]) for c in columns]
            length = [jnp.asarray(np.asarray(c[1])[rows]) for c in columns]
            out.append(np.asarray(jitted(params, ids, length))[: count - start])
        return np.concatenate(out)


def _join(a: View, b: View) -> View:
    pairs = ((a.ids, b.ids), (a.place, b.place), (a.mask, b.mask))
    joined = (jnp.concatenate(pair, 1) for pair in pairs)
    return View(*joined, values=a.values | b.values)


def _as_given(rows: np.ndarray) -> jax.Array:
    """Ids as int32, values of dense modalities as float32."""
    return jnp.asarray(rows.astype(np.float32 if rows.dtype.kind == "f" else np.int32))
